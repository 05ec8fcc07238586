"""Texts about classes, from a mapping or a JSON file: attributes, descriptions, causes.

Two forms, with one text in place of a list of one:

    {"daisy": ["A daisy has white petals.", ...], "rose": [...]}
    {"daisy": {"descriptive": ["...", ...], "distinctive": ["...", ...]}, "rose": {...}}

`reprogram describe` writes such files; `describing` is how.
"""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.task import Example

MAX_BYTES = 32 * 2**20
"""A larger file is refused: 100,000 sentences are about 10 MB."""

FLAT = "descriptions"
"""The name of the set where texts are not sorted into sets."""

PAIR = ("descriptive", "distinctive")
"""What a class looks like, and what tells it from the others."""

CAUSES = "cause_{}"
"""The names of sets of causes, counted from 1."""

Given: TypeAlias = Mapping[str, Any] | str | Path
"""Descriptions, or the path of a JSON file of them."""

Described: TypeAlias = dict[str, list[list[str]]]
"""By set: a list of texts for every class, in the task's order."""


def read_descriptions(given: Given, classes: Sequence[str], sets: Sequence[str] | None = PAIR) -> Described:
    """Descriptions of every class, by set, with single spaces; texts without words and repetitions are left out.

    Args:
        given: texts by class, or by class and set; or the path of a JSON file of them.
        classes: T names, exactly those that are described.
        sets: names of the sets that are needed; others are not looked at. One set may be given without its name, as
            plain lists. None for all sets there are (`FLAT` for plain lists).

    Returns:
        for each set, in the order of `sets`, T lists of at least one text.

    Raises:
        DataError: the file cannot be read, is too large or no JSON; a class or set is missing, a class is unknown or
            stands there twice; a class has no text in a set, or something that is no text.

    >>> read_descriptions({"no": "Never.", "yes": ["It is so.", "it is  so."]}, ("yes", "no"), ["any"])
    {'any': [['It is so.'], ['Never.']]}
    >>> both = {"a": {"descriptive": "Round.", "distinctive": "Rounder."}, "b": {"descriptive": "Long.",
    ... "distinctive": "Longer."}}
    >>> read_descriptions(both, ("a", "b"))
    {'descriptive': [['Round.'], ['Long.']], 'distinctive': [['Rounder.'], ['Longer.']]}
    """
    found = given if isinstance(given, Mapping) else _parsed(given)
    strange, missing = sorted(set(found) - set(classes), key=str), [c for c in classes if c not in found]
    if strange or missing:
        got = f"{missing[:5]} missing and {strange[:5]} unknown"
        remedy = "Classes are named exactly as in the task; `reprogram describe` writes the missing ones."
        raise DataError(say("descriptions", f"must be of the {len(classes)} classes of the task", got, remedy))
    sorted_out = {name: _by_set(name, found[name], sets) for name in classes}
    wanted = list(sets) if sets is not None else _common(sorted_out)
    return {one: [_once(f"descriptions[{name!r}][{one!r}]", _of(sorted_out, name, one)) for name in classes]
            for one in wanted}  # fmt: skip


def pooled(found: Described) -> list[list[str]]:
    """The texts of all sets together, T lists, each text once.

    >>> pooled({"looks": [["Round."], ["Long."]], "other": [["Flat.", "round."], ["Thin."]]})
    [['Round.', 'Flat.'], ['Long.', 'Thin.']]
    """
    by_class = zip(*found.values(), strict=True)
    return [distinct([text for texts in several for text in texts]) for several in by_class]


def cause_sets(count: int) -> tuple[str, ...]:
    """The names of so many sets of causes.

    >>> cause_sets(3)
    ('cause_1', 'cause_2', 'cause_3')
    """
    return tuple(CAUSES.format(number) for number in range(1, count + 1))


def exactly(texts: Sequence[Sequence[str]], count: int, seed: int = 0) -> list[list[str]]:
    """As many texts for each class: `count` drawn without replacement; of too few all, and the rest drawn again.

    Args:
        texts: T lists of at least one text.
        count: m.
        seed: of the draws; a class's draw depends on its place, not on the other classes' texts.

    Raises:
        ConfigError: `count` is below 1.
        DataError: a class has no text.

    >>> exactly([["x"], ["y", "z"]], 2)[0], sorted(exactly([["x"], ["y", "z"]], 2)[1])
    (['x', 'x'], ['y', 'z'])
    """
    if count < 1:
        raise ConfigError(say("count", "must be 1 or more texts for a class", count))
    found = list[list[str]]()
    for place, own in enumerate(texts):
        if not own:
            raise DataError(say(f"texts[{place}]", "must hold a text", list(own)))
        draw = torch.Generator().manual_seed(seed * 1_000_003 + place)
        order = torch.randperm(len(own), generator=draw)[:count]
        more = torch.randint(len(own), (max(0, count - len(own)),), generator=draw)
        found.append([own[int(i)] for i in torch.cat([order, more])])
    return found


def as_examples(found: Described, classes: Sequence[str]) -> list[Example]:
    """Descriptions as a program's context, so that they are kept with it: (class, set) and text.

    >>> as_examples({"looks": [["Round."], ["Long."]]}, ("a", "b"))[0]
    Example(texts=('a', 'looks'), answer='Round.')
    """
    return [Example((name, one) if one != FLAT else (name,), text)
            for one, several in found.items() for name, texts in zip(classes, several, strict=True)
            for text in texts]  # fmt: skip


def from_examples(
    context: Sequence[Example], classes: Sequence[str], sets: Sequence[str] | None = None
) -> Described:  # fmt: skip
    """What `as_examples` was given.

    Raises:
        DataError: as `read_descriptions`.

    >>> kept = {"looks": [["Round."], ["Long."]]}
    >>> from_examples(as_examples(kept, ("a", "b")), ("a", "b")) == kept
    True
    """
    given = dict[str, dict[str, list[str]]]()
    for one in context:
        if len(one.texts) not in (1, 2):
            raise DataError(say("context", "must hold (class, set) and a text", one.texts))
        own = given.setdefault(one.texts[0], {})
        own.setdefault(one.texts[1] if len(one.texts) == 2 else FLAT, []).append(one.answer)
    return read_descriptions(given, classes, sets)


def parse_descriptions(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file, as it is; its classes are not looked at.

    Raises:
        DataError: it cannot be read, is no ordinary file, too large or no JSON object, or names a class twice.
    """
    return _parsed(path)


def _parsed(path: str | os.PathLike[str]) -> dict[str, Any]:
    found: Any = None
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would never end
            raise DataError(say("descriptions", "must be a file", name))
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(say("descriptions", f"must be a file of at most {MAX_BYTES} bytes", name))
        found = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_no_twice)
    except DataError:
        raise
    except (OSError, ValueError, RecursionError) as problem:
        raise DataError(say("descriptions", "must be a JSON file that can be read", name, str(problem))) from None
    if not isinstance(found, dict):
        raise DataError(say("descriptions", "must be a JSON object of texts by class", type(found).__name__))
    return cast("dict[str, Any]", found)


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(say("descriptions", "must name each class and set once", twice[:5]))
    return found


def _by_set(name: str, given: object, sets: Sequence[str] | None) -> dict[str, object]:
    """What a class has, by set; plain lists are the one set that is asked for."""
    if isinstance(given, Mapping):
        return {str(key): value for key, value in cast("Mapping[object, object]", given).items()}
    if sets is not None and len(sets) != 1:
        remedy = f'Write {{"{name}": {{"{sets[0]}": ["...", ...], ...}}}}.' if sets else ""
        raise DataError(say(f"descriptions[{name!r}]", f"must have the sets {list(sets)}", "texts that are not sorted",
                            remedy))  # fmt: skip
    return {FLAT if sets is None else sets[0]: given}


def _common(found: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The sets, where all classes have the same."""
    first, *rest = found.items()
    for name, own in rest:
        if set(own) != set(first[1]):
            need = f"must have the sets {sorted(first[1])} as {first[0]!r} has"
            raise DataError(say(f"descriptions[{name!r}]", need, sorted(own)))
    if not first[1]:
        raise DataError(say(f"descriptions[{first[0]!r}]", "must have texts", {}))
    return list(first[1])


def _of(found: Mapping[str, Mapping[str, object]], name: str, one: str) -> object:
    if one not in found[name]:
        remedy = f"`reprogram describe --kind {one}` writes it." if one in PAIR else ""
        remedy = "`reprogram describe --kind causes` writes it." if one.startswith(CAUSES.format("")) else remedy
        raise DataError(say(f"descriptions[{name!r}]", f"must have the set {one!r}", sorted(found[name]), remedy))
    return found[name][one]


def _once(where: str, given: object) -> list[str]:
    """Its texts, each once whatever its case, at least one."""
    several = cast("Sequence[object]", given if isinstance(given, list | tuple) else [given])
    if not all(isinstance(text, str) for text in several):
        raise DataError(say(where, "must be a text or a list of texts", several))
    if any("\ud800" <= letter <= "\udfff" for text in several for letter in str(text)):
        raise DataError(say(where, "must be Unicode text, without half characters", several))
    kept = distinct([str(text) for text in several])
    if not kept:
        raise DataError(say(where, "must have a text with words in it", several))
    return kept


def distinct(texts: Sequence[str]) -> list[str]:
    """Texts with single spaces, those without a letter or digit left out, each once whatever its case.

    >>> distinct(["Red  petals.", "red petals.", "...", "Thorns."])
    ['Red petals.', 'Thorns.']
    """
    found = dict[str, str]()
    for text in texts:
        plain = " ".join(text.split())
        if any(map(str.isalnum, plain)):
            found.setdefault(plain.casefold(), plain)
    return list(found.values())
