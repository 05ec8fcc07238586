"""Descriptions as methods hold them: read once, drawn, and kept with the program."""

from collections.abc import Mapping, Sequence

from reprogram.core.errors import ConfigError, say
from reprogram.inputs.descriptions import PAIR, Described, Given, exactly, read_descriptions


def drawn_descriptions(
    given: Given | None, classes: Sequence[str], sets: Sequence[str] | None = PAIR, *, count: int, seed: int = 0
) -> Described:  # fmt: skip
    """Descriptions by set, of each class at most `count`; of more, as many are drawn without replacement.

    Args:
        given: see `read_descriptions`; None is an error that says where to get some.
        classes: T names.
        sets: that are needed; None for all there are.
        count: m.
        seed: of the draws.

    Raises:
        ConfigError: nothing is given, or `count` is below 1.
        DataError: as `read_descriptions`.

    >>> drawn_descriptions({"a": ["Round.", "Red."], "b": "Long."}, ("a", "b"), ["any"], count=2)
    {'any': [['Round.', 'Red.'], ['Long.']]}
    """
    found = read_descriptions(needed(given), classes, sets)
    return {one: at_most(texts, count, seed + number) for number, (one, texts) in enumerate(found.items())}


def needed(given: Given | None) -> Given:
    """What is given.

    Raises:
        ConfigError: nothing is; the message says where to get some.
    """
    if given is None:
        remedy = "`reprogram describe --task TASK --kind both|causes --out FILE` writes some: descriptions=FILE."
        raise ConfigError(say("descriptions", "must be there for every class", None, remedy))
    return given


def at_most(texts: Sequence[Sequence[str]], count: int, seed: int = 0) -> list[list[str]]:
    """Each class's texts, if they are not more than `count`; else as many of them, drawn without replacement.

    Raises:
        ConfigError: `count` is below 1.

    >>> at_most([["x"], ["y", "z"]], 2)
    [['x'], ['y', 'z']]
    """
    drawn = exactly(texts, count, seed)
    return [some if len(own) > count else list(own) for own, some in zip(texts, drawn, strict=True)]


def settings_only(given: Given | None) -> Mapping[str, object]:
    """Descriptions that stand in the settings themselves.

    A program that is built from a task's description alone, as from a file, must not read paths that it names.

    Raises:
        ConfigError: there are none, or they are a path.
    """
    if isinstance(given, Mapping):
        return given
    remedy = "Give descriptions={...} here, or the task with its data."
    raise ConfigError(
        say("descriptions", "must be kept with the program or stand in its settings", needed(given), remedy)
    )
