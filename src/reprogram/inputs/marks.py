"""Set-of-Mark: number the regions of a picture so that a model can speak about them (arXiv:2310.11441).

The parts are in `marks_regions` (which regions), `marks_placement` (where labels go) and `marks_drawing` (how they
look); here is the edit that draws them on the pictures of prompts.
"""

import json
from collections.abc import Sequence
from typing import Any, cast, final

from jaxtyping import UInt8
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.core.texts import Texts
from reprogram.core.writing import PICTURE
from reprogram.inputs.marks_drawing import Marked, Style, annotate, mark, name_of
from reprogram.inputs.marks_regions import Boxes, Proposer, Region

REGIONS = "regions"
"""Name of a column whose texts are the regions of each row's picture: JSON, a list of boxes in fractions."""


@final
class Marks(Edit):
    """Number the regions of the picture of every row, after a `Showing`.

    Args:
        proposer: maps a picture [3, height, width] uint8 to regions. Rows with a column "regions" have their own.
        style: how marks look.
        group: regions on one picture at most; with more the picture is shown several times, each time with the next
            of them (SoM-Bench shows 5 at a time). None for all on one.

    Raises:
        ConfigError: a group of less than one.
    """

    site = "input"
    operators = frozenset({Operator.ADDITIVE})

    def __init__(self, proposer: Proposer, style: Style | None = None, *, group: int | None = None) -> None:
        super().__init__()
        if group is not None and group < 1:
            raise ConfigError(say("group", "must be 1 or more", group))
        self.proposer, self.style, self.group = proposer, style or Style(), group

    def forward(self, value: Texts) -> Texts:
        """The same texts with marked pictures.

        Raises:
            DataError: a row has no picture, or more than one.
        """
        pictures: list[tuple[Tensor, ...]] = []
        for i in range(len(value)):
            given = value.pictures[i] if value.pictures is not None else ()
            if len(given) != 1:
                raise DataError(say(f"row {i}", "must have one picture to be marked", len(given)))
            own = value.columns.get(REGIONS)
            proposer = self.proposer if own is None else boxes_in(own[i])
            pictures.append(self.drawn(given[0], proposer))
        columns = {
            name: tuple(t.replace(PICTURE, PICTURE * len(row)) for t, row in zip(texts, pictures, strict=True))
            for name, texts in value.columns.items()
            if name != REGIONS
        }
        return Texts(columns, value.targets, None, tuple(pictures))

    def drawn(self, picture: UInt8[Tensor, " channel height width"], proposer: Proposer) -> tuple[Tensor, ...]:
        """The picture with the regions of a proposer, as often as the groups need."""
        return tuple(part.picture for part in marked_groups(picture, proposer(picture), self.style, self.group))

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"{self.proposer!r}, {self.style!r}, group={self.group}"


def marked_groups(
    picture: UInt8[Tensor, " channel height width"], regions: Sequence[Region], style: Style,
    group: int | None = None,
) -> list[Marked]:  # fmt: skip
    """Pictures with so many marks each; numbers and colours run on from one to the next.

    Args:
        picture: [3, height, width].
        regions: of the picture.
        style: of the marks.
        group: marks on one picture; None for all.
    """
    if group is None or len(regions) <= group:
        return [mark(picture, regions, style)]
    found: list[Marked] = []
    for start in range(0, len(regions), group):
        part = list(regions[start : start + group])
        names = tuple(name_of(start + k, letters=style.letters) for k in range(1, len(part) + 1))
        drawn, labels = annotate(picture, part, names, style, first=start + 1)
        found.append(Marked(drawn, dict(zip(names, part, strict=True)), labels))
    return found


def boxes_in(text: str) -> Boxes:
    """Boxes written as JSON: a list of [left, top, right, bottom], fractions of width and height.

    Raises:
        DataError: it is something else.

    >>> boxes_in("[[0, 0, 0.5, 1]]").boxes
    ((0.0, 0.0, 0.5, 1.0),)
    """
    need = "must be a JSON list of boxes [left, top, right, bottom] in fractions"
    try:
        said = cast("list[list[Any]]", json.loads(text))
        rows = [tuple(float(n) for n in row) for row in said]
        if any(len(row) != 4 for row in rows):
            raise DataError(say(REGIONS, need, text))
        return Boxes(tuple((row[0], row[1], row[2], row[3]) for row in rows))
    except (ValueError, TypeError, RecursionError) as problem:
        raise DataError(say(REGIONS, need, text, str(problem))) from problem
