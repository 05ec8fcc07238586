"""Answers as JSON: how a controller reads, shows, merges and puts them into further questions. Nothing is run.

Sizes are limited, so that answers that are put into answers cannot grow without end.
"""

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import cast

from reprogram.inputs.control import Unusable

LONGEST = 20_000
"""Characters of a call or an answer."""

LARGEST = 10**60
"""No sum is beyond this."""

AFTERWARDS = ("flat", "unique", "keys", "values")
MERGES = ("join", "count", "reverse", "sum", "concat")

DEEPEST = 16
"""Lists within one another in an answer."""

_GAP = re.compile(r"[ ,]*+")
_ANSWER = re.compile(r"#([0-9]{1,3})(?![0-9])")


def letters(text: str) -> list[str]:
    """The letters of a text, as a tool for decomposers; quotes around it are left out.

    >>> letters('"cat"')
    ['c', 'a', 't']
    """
    return [letter for letter in str(read_json(text)) if not letter.isspace()]


def words(text: str) -> list[str]:
    """The words of a text or the parts of a list with commas, as a tool for decomposers.

    >>> words('"Ada Lovelace"'), words("a, b c")
    (['Ada', 'Lovelace'], ['a', 'b c'])
    """
    plain = str(read_json(text))
    return [part.strip() for part in (plain.split(",") if "," in plain else plain.split()) if part.strip()]


def merged(name: str, text: str) -> object:
    """Answers put together: what a line without a handler asks for.

    >>> merged("join", '["a", "b"]'), merged("join", '["a", "b"] "-"'), merged("sum", "[1, 2.5]")
    ('ab', 'a-b', 3.5)
    >>> merged("reverse", '[1, 2]'), merged("concat", "[1] [2, 3]"), merged("count", "[[1, 2]]")
    ([2, 1], [1, 2, 3], 1)
    """
    if name not in MERGES:
        raise Unusable(f"without a handler the operation must be among {list(MERGES)}")
    given = _values(text)
    first = given[0] if given else None
    if name == "concat" and given and all(isinstance(one, list) for one in given):
        return [item for one in given for item in cast("list[object]", one)]
    if name == "reverse" and isinstance(first, str):
        return first[::-1]
    if not isinstance(first, list) or name == "concat":
        raise Unusable(f"({name}) must be given a list, such as #1")
    items = cast("list[object]", first)
    if name == "join":
        between = shown(given[1] if len(given) > 1 else "")
        _check_size(len(between) * len(items))
        return between.join(shown(item) for item in items)
    return len(items) if name == "count" else items[::-1] if name == "reverse" else _total(items)


def shown(value: object) -> str:
    """An answer as text: a text as it is, a list with commas.

    >>> shown("a"), shown(["a", 1]), shown(2.0)
    ('a', 'a, 1', '2.0')
    """
    if isinstance(value, list):
        return ", ".join(shown(item) for item in cast("list[object]", value))
    return value if isinstance(value, str) else to_json(value)


def filled(text: str, answers: Sequence[object]) -> str:
    """A text with every `#i` replaced by answer i as JSON, the first being 1.

    >>> filled("Which of #1 is #2?", [["a", "b"], "c"])
    'Which of ["a", "b"] is "c"?'
    """
    pieces, at, size = list[str](), 0, 0
    for found in _ANSWER.finditer(text):
        number = int(found[1])
        if not 1 <= number <= len(answers):
            raise Unusable(f"#{number} names none of the {len(answers)} answers so far")
        pieces += [text[at : found.start()], to_json(answers[number - 1])]
        size += len(pieces[-1])
        _check_size(size)
        at = found.end()
    return "".join([*pieces, text[at:]])


def listed_in(text: str, answers: Sequence[object]) -> tuple[int, list[object]]:
    """The number and items of the first list that a text names."""
    for found in _ANSWER.finditer(text):
        number = int(found[1])
        value = answers[number - 1] if 1 <= number <= len(answers) else None
        if isinstance(value, list):
            return number, cast("list[object]", value)
    raise Unusable("the text must name an answer that is a list, such as #1")


def sides(item: object) -> tuple[object, object]:
    """Both sides of a pair."""
    if not isinstance(item, list) or len(cast("list[object]", item)) != 2:
        raise Unusable("the list must be one of pairs")
    first, second = cast("list[object]", item)
    return first, second


def afterwards(name: str, value: object) -> object:
    """What follows an operation, one of `AFTERWARDS`.

    >>> afterwards("flat", [["a"], "b"]), afterwards("unique", ["a", "b", "a"]), afterwards("values", [["a", 1]])
    (['a', 'b'], ['a', 'b'], [1])
    """
    if not isinstance(value, list):
        raise Unusable(f"_{name} must follow an operation that gives a list")
    items = cast("list[object]", value)
    if name == "flat":
        return [part for item in items for part in (cast("list[object]", item) if isinstance(item, list) else [item])]
    if name == "unique":
        return list({to_json(item): item for item in items}.values())
    return [sides(item)[name == "values"] for item in items]


def read_json(text: str) -> object:
    """The JSON that a text is, or the text itself."""
    try:
        return as_json(json.loads(text, parse_constant=_no_number))
    except (ValueError, RecursionError):
        return text.strip()


def as_json(value: object) -> object:
    """A value as JSON has it: tuples are lists."""
    _check_depth(value)
    spelled = to_json(value)
    _check_size(len(spelled))
    return json.loads(spelled)


def to_json(value: object) -> str:
    """JSON in one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _total(items: Sequence[object]) -> object:
    total = Fraction(0)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | float) or abs(item) > LARGEST:
            raise Unusable("(sum) must be given a list of numbers that are not too large")
        total += Fraction(repr(item))
    return int(total) if total.denominator == 1 else float(total)


def _values(text: str) -> list[object]:
    """JSON values one after the other."""
    decoder, found, at = json.JSONDecoder(parse_constant=_no_number), list[object](), 0
    text = text.strip()
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise Unusable("what is merged must be answers such as #1, or texts in quotes") from None
        found.append(value)
        at = _GAP.match(text, at).end()  # type: ignore[union-attr]  # it matches anything
    return found


def _check_size(characters: int) -> None:
    if characters > LONGEST:
        raise Unusable(f"a call or an answer would have more than {LONGEST} characters")


def _check_depth(value: object, left: int = DEEPEST) -> None:
    if not left:
        raise Unusable(f"an answer has more than {DEEPEST} lists within one another")
    inner: Sequence[object] = ()
    if isinstance(value, dict):
        inner = list(cast("dict[str, object]", value).values())
    elif isinstance(value, list | tuple):
        inner = cast("Sequence[object]", value)
    for item in inner:
        _check_depth(item, left - 1)


def _no_number(name: str) -> float:
    raise ValueError(name)
