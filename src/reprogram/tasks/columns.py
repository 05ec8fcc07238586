"""Which columns of a table or data set mean what: found by their names, in any case, unless the options say.

Two texts together are looked for before one. What is to be told apart is a column such as "label"; where there is none,
a column such as "completion" makes it a task of generation. A column called "target" is what is to be written where the
text is called a prompt (prompt, input, instruction, question, source), and a class beside any other text.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reprogram.core.errors import DataError
from reprogram.tasks.options import Options

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What people call splits, in any case."""

IMAGE_COLUMNS = ("image", "path", "file", "filename", "file_name", "filepath", "image_path")
"""With paths of pictures, in tables."""

IMAGE_NAMES = ("image", "img", "picture", "photo", "pixel_values")
"""With pictures, in data sets."""

LABEL_COLUMNS = ("label", "class", "target", "category")
"""With pictures."""

SPLIT_COLUMNS = ("split",)

TEXT_COLUMNS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("text", "text_pair"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "sentence"),
    ("instruction", "input"),
    ("text",),
    ("sentence",),
    ("review",),
    ("prompt",),
    ("input",),
    ("instruction",),
    ("question",),
    ("source",),
    ("document",),
    ("content",),
    ("comment",),
    ("message",),
    ("tweet",),
    ("utterance",),
    ("headline",),
)
CLASS_COLUMNS = ("label", "labels", "class", "category", "sentiment", "emotion", "intent")
"""With texts."""

TARGET_COLUMNS = ("target", "targets", "completion", "output", "response", "answer", "summary")
PROMPTS = frozenset({"prompt", "input", "instruction", "question", "source"})

KNOWN = frozenset(
    [name for group in TEXT_COLUMNS for name in group]
    + [*IMAGE_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS, *CLASS_COLUMNS, *TARGET_COLUMNS]
)
"""A first line with one of these names, in any case, is a line of names."""

Fail: TypeAlias = Callable[[str, object, str], DataError]
"""Makes the error out of a requirement, what came, and a remedy."""


@dataclass(frozen=True, slots=True)
class TextColumns:
    """Columns of a text task.

    Attributes:
        texts: one or several, in order.
        answer: the class, or what is to be written.
        generates: it is the latter.
        split: column with the split, if there is one.
    """

    texts: tuple[str, ...]
    answer: str
    generates: bool
    split: str | None = None


def find_texts(available: Collection[str]) -> tuple[str, ...]:
    """The text columns that the names give away; none if there are none.

    >>> find_texts(["idx", "Hypothesis", "Premise", "label"]), find_texts(["a", "b"])
    (('Premise', 'Hypothesis'), ())
    """
    lower = _by_lower(available)
    return next((tuple(lower[n] for n in group) for group in TEXT_COLUMNS if lower.keys() >= set(group)), ())


def choose_columns(available: Sequence[str], options: Options, fail: Fail) -> TextColumns:
    """The columns of a text task.

    Raises:
        DataError: as `fail` makes it; a column that an option names is not there, or one can not be told.

    >>> choose_columns(["Review", "Target"], Options(), DataError)
    TextColumns(texts=('Review',), answer='Target', generates=False, split=None)
    >>> choose_columns(["prompt", "target"], Options(), DataError).generates
    True
    """
    given = [("text", name) for name in options.texts]
    given += [(o, n) for o in ("label", "target", "split") if (n := getattr(options, o)) is not None]
    for option, name in given:
        if name not in available:
            raise fail(f"must have the column `{option}=` names, {name!r}", list(available), "")
    rest = [name for name in available if name not in {name for _, name in given}]
    texts = options.texts or find_texts(rest)
    if not texts:
        groups = [" and ".join(group) for group in TEXT_COLUMNS]
        raise fail(f"must have a column of texts called one of {groups}", list(available), "Say which with `text=`.")
    rest = [name for name in rest if name not in texts]
    answer, generates = _answer(texts, rest, options)
    if answer is None:
        requirement = f"must have a column called one of {[*CLASS_COLUMNS, *TARGET_COLUMNS]}"
        remedy = "Say which with `label=` for classes, or `target=` for texts that are to be written."
        raise fail(requirement, list(available), remedy)
    return TextColumns(texts, answer, generates, options.split or _first(rest, SPLIT_COLUMNS))


def _answer(texts: Sequence[str], rest: Sequence[str], options: Options) -> tuple[str | None, bool]:
    if options.label is not None or options.target is not None:
        return options.label or options.target, options.target is not None
    label, target = _first(rest, CLASS_COLUMNS), _first(rest, TARGET_COLUMNS)
    if label is not None or target is None:
        return label, False
    return target, target.lower() != "target" or texts[0].lower() in PROMPTS


def _first(available: Collection[str], names: Sequence[str]) -> str | None:
    lower = _by_lower(available)
    return next((lower[name] for name in names if name in lower), None)


def _by_lower(available: Collection[str]) -> dict[str, str]:
    """Names by their lower case; of two that differ in case only, the first."""
    return {name.lower(): name for name in reversed(list(available))}
