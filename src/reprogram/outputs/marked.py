"""Answers about marked pictures and grids: numbers in brackets, points as JSON, class names, colours of a quadrant.

Nothing a model wrote is taken on trust: ids must be those of marks that are there, points must lie on the picture, and
what cannot be read says why.
"""

import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.core.writing import Answer, Writing, Written
from reprogram.outputs.json_schema import json_values

CERTAINTY = 0.98
"""Of the probability, what the answers share; the rest goes to all classes alike, so that scores stay finite."""

_CITED = re.compile(r"\[\s*(\d{1,6}|[a-zA-Z]{1,3})\s*\]")
_CUE = re.compile(r"\banswer\s*(?:is)?\s*[:=]?\s*", re.IGNORECASE)

Read = tuple[str | None, str]
"""The value that was read, or None and why not."""


def cited(text: str, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Marks cited in brackets, in order, each once: those that are known, and those that are not.

    >>> cited("The dog [3] is left of [1]; see [3] and [12].", ["1", "2", "3"])
    (['3', '1'], ['12'])
    """
    found = list(dict.fromkeys(label.lower() for label in _CITED.findall(text)))
    table = set(known)
    return [label for label in found if label in table], [label for label in found if label not in table]


def point_in(text: str) -> tuple[float, float] | str:
    """The point (x, y) that the last JSON object names, fractions of width and height; or why there is none.

    >>> point_in('{"point": [0.25, 1]}'), point_in('{"point": [0.25, 7]}')
    ((0.25, 1.0), 'the point [0.25, 7] is not on the picture')
    """
    found = (value for _, _, value in json_values(text, last=True))
    objects = (cast("dict[str, Any]", value) for value in found if isinstance(value, dict))
    said = next(objects, cast("dict[str, Any]", {})).get("point")
    entries = cast("list[Any]", said) if isinstance(said, list) else []
    if len(entries) != 2 or any(isinstance(n, bool) or not isinstance(n, int | float) for n in entries):
        return 'there is no {"point": [x, y]}'
    x, y = (float(n) for n in entries)
    return (x, y) if 0 <= x <= 1 and 0 <= y <= 1 else f"the point {entries} is not on the picture"


def class_in(text: str, classes: Sequence[str]) -> Read:
    """The class that a text names: after its last "Answer:", else the only one that it names at all.

    Names count as whole words, whatever their case; the longest of those that begin in one place.

    >>> class_in("A dog or a cat? Answer: Cat.", ["cat", "dog"]), class_in("a hot dog", ["dog", "hot dog"])
    (('cat', ''), ('hot dog', ''))
    >>> class_in("a dog and a cat", ["cat", "dog"])
    (None, 'it names several classes: dog, cat')
    """
    cues = list(_CUE.finditer(text))
    if cues:
        found = _names(text[cues[-1].end() :], classes)
        if found:
            return found[0], ""
    found = list(dict.fromkeys(_names(text, classes)))
    if len(found) == 1:
        return found[0], ""
    return None, f"it names several classes: {', '.join(found)}" if found else "it names no class"


def nearest_colour(
    pixels: Float[Tensor, " channel height width"], palette: Float[Tensor, " target channel"]
) -> Int[Tensor, " height width"]:
    """For every pixel the number of the colour with the least squared distance.

    >>> nearest_colour(torch.tensor([[[0.1, 0.9]]] * 3), torch.tensor([[0.0] * 3, [1.0] * 3])).tolist()
    [[0, 1]]
    """
    return (pixels[None] - palette[:, :, None, None]).square().sum(1).argmin(0)


class _WrittenClass(Output):
    """One of several classes, as most of the texts that were written for an input say it."""

    alignment = Alignment.RULE_BASED

    def __init__(self, classes: Sequence[str], writing: Writing) -> None:
        super().__init__()
        self.classes, self.writing = _checked(classes), writing

    @property
    def reading(self) -> Reading:
        """What is to be written."""
        return Reading(writing=self.writing)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Logarithms of the classes' shares of the texts."""
        return vote_scores(self.answers(output), self.classes)

    def answers(self, output: SourceOutput) -> tuple[Answer, ...]:
        """The class most texts say."""
        return tuple(majority(self._split(texts), self._read) for texts in texts_of(output))

    def canonical(self, target: str) -> str:
        """Class names are what they are."""
        return target

    def _split(self, texts: Sequence[Written]) -> Sequence[Written]:
        """The texts that have a vote each."""
        return texts

    @abstractmethod
    def _read(self, text: str) -> Read:
        """The class that a text says."""


@final
class MarkedClasses(_WrittenClass):
    """Mark k stands for class k: the last mark cited is the answer.

    Args:
        classes: T names.
        writing: what is asked for.
        labels: of the marks that stand for the classes; None for 1 to T.
    """

    def __init__(self, classes: Sequence[str], writing: Writing, labels: Sequence[str] | None = None) -> None:
        super().__init__(classes, writing)
        self.labels = tuple(labels) if labels is not None else tuple(str(k + 1) for k in range(len(classes)))
        if len(self.labels) != len(self.classes):
            got = (len(self.labels), len(self.classes))
            raise ConfigError(say("labels", "must be one for each class", got))

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"classes={list(self.classes)}, labels={list(self.labels)}"

    def _read(self, text: str) -> Read:
        said = [label.lower() for label in _CITED.findall(text)]
        if not said:
            return None, "it cites no mark, such as [1]"
        if said[-1] not in self.labels:
            return None, f"it cites mark [{said[-1]}], which is not there"
        return self.classes[self.labels.index(said[-1])], ""


@final
class NamedAnswer(_WrittenClass):
    """The class that the text names, see `class_in`.

    Args:
        classes: T names.
        writing: what is asked for.
        labels: of the marks that there can be; a text that cites another one in brackets is not believed. None where
            brackets mean nothing.
        lines: every line of a text is an answer of its own, and the most frequent one counts.
    """

    def __init__(
        self, classes: Sequence[str], writing: Writing, *, labels: Sequence[str] | None = None, lines: bool = False
    ) -> None:
        super().__init__(classes, writing)
        self.lines = lines
        self.labels = None if labels is None else tuple(labels)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"classes={list(self.classes)}, labels={self.labels}, lines={self.lines}"

    def _split(self, texts: Sequence[Written]) -> Sequence[Written]:
        if not self.lines:
            return texts
        return [Written(text=line, reason=one.reason) for one in texts for line in one.text.split("\n")]

    def _read(self, text: str) -> Read:
        if self.labels is not None:
            strange = cited(text, self.labels)[1]
            if strange:
                return None, f"it cites mark [{strange[0]}], which is not there"
        return class_in(text, self.classes)


@final
class PointClasses(_WrittenClass):
    """The class of the cell in which the point lies: cells of a table, class by class from the top left, row by row.

    Args:
        classes: T names.
        rows: of the table; rows times columns is T.
        columns: of the table.
        writing: what is asked for, where the input does not ask itself.
    """

    def __init__(self, classes: Sequence[str], rows: int, columns: int, writing: Writing = Writing()) -> None:  # noqa: B008 - frozen
        super().__init__(classes, writing)
        self.rows, self.columns = rows, columns
        if rows < 1 or columns < 1 or rows * columns != len(self.classes):
            need = f"must be a table of {len(self.classes)} cells, one for each class"
            raise ConfigError(say("rows, columns", need, (rows, columns)))

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"classes={list(self.classes)}, rows={self.rows}, columns={self.columns}"

    def _read(self, text: str) -> Read:
        point = point_in(text)
        if isinstance(point, str):
            return None, point
        column, row = (min(int(n * many), many - 1) for n, many in zip(point, (self.columns, self.rows), strict=True))
        return self.classes[row * self.columns + column], ""


@final
class QuadrantColours(Output):
    """What an inpainting source painted into the empty quarter of a grid: each class's share of its pixels.

    The source's scores [B, 3 * P * P] are a picture in [0, 1]; of the quarter, every pixel counts for the class whose
    colour is nearest (Bar et al. 2022, arXiv:2209.00647). Softmax of the scores is the classes' shares.

    Args:
        palette: [T, 3], the classes' colours in [0, 1].
        canvas: P, pixels of the grid's side.
        corner: (top, left) of the empty quarter, pixels.
        cell: its side, pixels.
    """

    alignment = Alignment.RULE_BASED
    palette: Tensor

    def __init__(self, palette: Tensor, canvas: int, corner: tuple[int, int], cell: int) -> None:
        super().__init__()
        if palette.ndim != 2 or palette.shape[1] != 3 or len(palette.unique(dim=0)) < len(palette):  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            raise ConfigError(say("palette", "must be a colour of its own for each class", tuple(palette.shape)))
        if min(corner) < 0 or max(corner) + cell > canvas:
            raise ConfigError(say("corner, cell", f"must lie on a canvas of {canvas} pixels", (corner, cell)))
        self.canvas, self.corner, self.cell = canvas, corner, cell
        self.register_buffer("palette", palette.float(), persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Logarithms of the classes' shares of the quarter's pixels."""
        counts = [numbers.flatten().bincount(minlength=len(self.palette)) for numbers in self.snapped(output)]
        shares = torch.stack(counts).double() / self.cell**2
        return (CERTAINTY * shares + (1 - CERTAINTY) / len(self.palette)).log().float()

    def snapped(self, output: SourceOutput) -> list[Int[Tensor, " height width"]]:
        """For each input the class of every pixel of the quarter.

        Raises:
            CapabilityError: the source does not give pictures of the grid's size.
        """
        scores = output.logits
        if scores.shape[1] != 3 * self.canvas**2:
            need = f"must be one that gives pictures of {self.canvas} x {self.canvas} pixels, as 3 * P * P scores"
            raise CapabilityError(say("source", need, f"{scores.shape[1]} scores"))
        pictures = scores.float().view(-1, 3, self.canvas, self.canvas)
        (top, left), cell = self.corner, self.cell
        return [nearest_colour(p[:, top : top + cell, left : left + cell], self.palette) for p in pictures]

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"targets={len(self.palette)}, canvas={self.canvas}, corner={self.corner}, cell={self.cell}"


def majority(texts: Sequence[Written], read: Callable[[str], Read]) -> Answer:
    """The value that most texts say, of several that are as frequent the one said first.

    >>> majority([Written(text="b"), Written(text="?"), Written(text="a"), Written(text="a")],
    ...          lambda text: (None, "no letter") if text == "?" else (text, ""))
    Answer(value='a', reason='', share=0.6666666666666666, unparsable=1)
    """
    readings = [read(one.text) for one in texts]
    found = [value for value, _ in readings if value is not None]
    missed = len(readings) - len(found)
    if not found:
        why = next((one.reason for one in texts if one.reason), "") or next((why for _, why in readings), "no text")
        return Answer(value=None, reason=why, share=0.0, unparsable=missed)
    value, count = Counter(found).most_common(1)[0]
    return Answer(value=value, share=count / len(found), unparsable=missed)


def vote_scores(answers: Sequence[Answer], classes: Sequence[str]) -> Float[Tensor, " batch target"]:
    """Scores whose softmax gives the answered class its share; equal scores where there is no answer."""
    scores = torch.zeros(len(answers), len(classes))
    for row, answer in enumerate(answers):
        if answer.value is None:
            continue
        rest = (1 - answer.share) / max(1, len(classes) - 1)
        scores[row] = math.log(CERTAINTY * rest + (1 - CERTAINTY) / len(classes))
        scores[row, classes.index(answer.value)] = math.log(CERTAINTY * answer.share + (1 - CERTAINTY) / len(classes))
    return scores


def texts_of(output: SourceOutput) -> tuple[tuple[Written, ...], ...]:
    """What the source wrote for every input.

    Raises:
        CapabilityError: it wrote nothing.
    """
    if output.written is None:
        raise CapabilityError(say("source", "must write texts for an answer to be read off", "none"))
    return output.written


def _names(text: str, classes: Sequence[str]) -> list[str]:
    """Classes named in a text, in order."""
    spelled = {name.casefold(): name for name in classes}
    pattern = "|".join(re.escape(name) for name in sorted(spelled, key=len, reverse=True))
    return [spelled[found.group(1)] for found in re.finditer(rf"(?<!\w)({pattern})(?!\w)", text.casefold())]


def _checked(classes: Sequence[str]) -> tuple[str, ...]:
    if len(classes) < 2 or len({name.casefold() for name in classes}) < len(classes) or not all(classes):
        raise ConfigError(say("classes", "must be two or more names that differ in more than case", list(classes)))
    return tuple(classes)
