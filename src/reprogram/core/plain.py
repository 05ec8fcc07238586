"""Values as JSON knows them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast


def plain(value: Any) -> Any:
    """The same without tuples, sets and infinities; anything else that JSON does not know becomes text.

    >>> plain({1: (0.5, float("nan"), {"a"})})
    {'1': [0.5, None, ['a']]}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in cast("Iterable[Any]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
