"""What conversations about marked pictures read off a model's texts before they ask again.

Edits cannot use the parsers of `outputs`, which is a room beside theirs; these are the few they need.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from reprogram.inputs.showing import PRIVATE

STARTS = 256
"""So many braces at most are tried as the beginning of an object, so that no text takes quadratic time."""


def last_object(text: str) -> Mapping[str, Any]:
    """The last JSON object in a text that is not part of another; empty if there is none.

    >>> last_object('First {"points": [4]}, no: {"points": [1, {"a": 2}]} }')
    {'points': [1, {'a': 2}]}
    """
    decoder, found, place = json.JSONDecoder(), {}, text.find("{")
    for _ in range(STARTS):
        if place < 0:
            break
        try:
            found, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)
    return cast("Mapping[str, Any]", found)


def chosen_ids(text: str, count: int, *, key: str = "points") -> list[int]:
    """Whole numbers from 1 to `count` in the list under a key of the text's last JSON object, each once.

    Empty if there is no such list; numbers out of range, and what is no whole number, are left out.

    >>> chosen_ids('{"points": [3, 99, 3, "2", -1, 2.5, true]}', 5), chosen_ids("none", 5)
    ([3, 2], [])
    """
    said = last_object(text).get(key)
    entries = cast("list[Any]", said) if isinstance(said, list) else [said]
    numbers = [_whole(entry) for entry in entries]
    return list(dict.fromkeys(n for n in numbers if n is not None and 1 <= n <= count))


def named_ids(text: str, count: int, names: Sequence[str]) -> dict[int, str]:
    """Which mark is said to show which of some names: the last JSON object, numbers from 1 to `count` as its keys.

    Unknown numbers and names are left out; case does not matter.

    >>> named_ids('{"1": "Dog", "7": "dog", "x": "cat", "2": "tree"}', 3, ["dog", "cat"])
    {1: 'dog'}
    """
    known = {name.casefold(): name for name in names}
    pairs = ((_whole(key), known.get(str(value).strip().casefold())) for key, value in last_object(text).items())
    return {n: name for n, name in pairs if n is not None and 1 <= n <= count and name is not None}


def listed_names(text: str, most: int = 8) -> list[str]:
    r"""Short names in a list that a model wrote: one a line or between commas, without bullets and numbers.

    >>> listed_names("Key objects:\n- dog\n2. red ball, dog.")
    ['dog', 'red ball']
    """
    clean = PRIVATE.sub("\ufffd", text)
    pieces = [re.sub(r"^[\s\-*•\d.)]+|[\s.;\"']+$", "", piece) for piece in re.split(r"[\n,;]", clean)]
    kept = [p for p in pieces if p and not p.endswith(":") and len(p.split()) <= 4]
    return list(dict.fromkeys(kept))[:most]


def _whole(entry: Any) -> int | None:
    if isinstance(entry, str) and re.fullmatch(r"\s*\d{1,6}\s*", entry):
        return int(entry)
    return entry if isinstance(entry, int) and not isinstance(entry, bool) else None
