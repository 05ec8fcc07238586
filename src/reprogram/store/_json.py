"""JSON from strangers: bounded in depth, no name twice, no NaN or infinity, no broken Unicode."""

import json
import re
from collections import Counter

from reprogram.core.errors import ArtifactError, say

MAX_DEPTH = 32

# A whole string (also one that never ends, so that the scan stays linear), or a bracket.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


def parse(data: bytes, name: str) -> object:
    """The value that UTF-8 JSON stands for.

    Args:
        data: the bytes; the caller has bounded their number.
        name: what an error calls them.

    Returns:
        None, bool, int, finite float, str, or lists and dicts of these.

    Raises:
        ArtifactError: for anything else.

    >>> parse(b'{"a": [1, 2.5]}', "card")
    {'a': [1, 2.5]}
    """
    try:
        text = data.decode("utf-8")
        _check_depth(text)
        value = json.loads(text, object_pairs_hook=_once)
        canonical(value)  # refuses NaN, infinity (1e999 is one) and lone surrogates
    except (ValueError, RecursionError) as error:
        msg = say(name, "must be plain JSON (UTF-8, no name twice, finite numbers, not too deep)", str(error))
        raise ArtifactError(msg) from None
    return value


def canonical(value: object) -> bytes:
    """The one way this library writes a value: names sorted, no blanks, UTF-8.

    Raises:
        TypeError: the value is not made of what JSON has.
        ValueError: a number is not finite, text is not Unicode, or the value holds itself.
        RecursionError: it is nested too deep.

    >>> canonical({"b": (1,), "a": "é"}).decode()
    '{"a":"é","b":[1]}'
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode("utf-8")


def _check_depth(text: str) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        depth += (first in "[{") - (first in "]}")
        if depth > MAX_DEPTH:
            msg = f"more than {MAX_DEPTH} brackets are open at character {token.start()}"
            raise ValueError(msg)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        msg = f"the name {name[:100]!r} comes twice"
        raise ValueError(msg)
    return made
