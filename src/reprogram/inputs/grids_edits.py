"""Edits that show a question in a grid beside an example.

To sources that read pictures and text it is put as a question; sources that paint what is missing get the grid alone.
"""

import hashlib
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from reprogram.core.conversation import Ask, Budget, Pictures, Talk
from reprogram.core.errors import CapabilityError, ConfigError, DataError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.core.writing import Writing, Written
from reprogram.inputs.grids import (
    LAYOUTS,
    Layout,
    agreement,
    card,
    cell_of,
    compose,
    contrastive_head,
    layout_of,
    nearest,
    palette,
    plain_features,
    square,
)
from reprogram.inputs.showing import asking, listed

Features = Callable[[Sequence[Tensor]], Tensor]
"""Pictures [1 or 3, height, width] -> features [n, dim]."""

Select = Literal["nearest", "supervised", "random"]

_WORDS = {0: ("top", "left"), 1: ("bottom", "right")}


@final
class Examples:
    """Examples to be shown, and how they are chosen for a question.

    Args:
        pictures: [1 or 3, height, width] each.
        labels: the class of each.
        classes: of the task; their colours follow from their number.
        canvas: pixels of the grid's side.
        select: "nearest" by cosine of features; "supervised" by cosine after `contrastive_head`, trained here on the
            examples themselves with the classes' agreement as the gain (for gains that were measured, as in the paper,
            give `features` that have the head in them); "random", by the question's pixels.
        features: of pictures; None for `plain_features`.

    Raises:
        ConfigError: there are no examples, or one is of an unknown class.
    """

    def __init__(
        self, pictures: Sequence[Tensor], labels: Sequence[str], classes: Sequence[str], canvas: int, *,
        select: Select = "nearest", features: Features | None = None,
    ) -> None:  # fmt: skip
        if not pictures or len(pictures) != len(labels) or not set(labels) <= set(classes):
            remedy = "Build the program for a task with data, not for its description alone."
            got = f"{len(pictures)} pictures of the classes {sorted(set(labels))}"
            raise ConfigError(say("examples", "must be pictures with a class of the task each", got, remedy))
        self.canvas, self.cell, self.select = canvas, cell_of(canvas), select
        self.labels, self.classes = tuple(labels), tuple(classes)
        self.colours = palette(len(classes))
        self.squares = torch.stack([square(picture, self.cell) for picture in pictures])
        self._see = features or plain_features
        self._known = self._see(list(pictures)).float().cpu() if select != "random" else torch.empty(0, 1)
        if select == "supervised":
            self._head: Tensor | None = contrastive_head(self._known, agreement(self.labels))
            self._known = self._known @ self._head
        else:
            self._head = None

    def chosen(self, picture: Tensor, count: int) -> list[int]:
        """Numbers of the examples for a question, best first; fewer if there are fewer."""
        if self.select == "random":
            seed = zlib.crc32(picture.cpu().contiguous().numpy().tobytes())  # pyright: ignore
            return random.Random(seed).sample(range(len(self.labels)), min(count, len(self.labels)))
        seen = self._see([picture]).float().cpu()
        return nearest(seen if self._head is None else seen @ self._head, self._known, count)[0]

    def grid(self, number: int, picture: Tensor, layout: Layout, *, words: bool) -> Float[Tensor, " 3 canvas canvas"]:
        """The grid of an example and a question.

        Args:
            number: of the example.
            picture: the question's.
            layout: which goes where.
            words: write the class's name on its card.
        """
        kind = self.classes.index(self.labels[number])
        label = card(self.labels[number], self.colours[kind], self.cell, words=words)
        return compose(self.squares[number], label, square(picture, self.cell), self.canvas, layout)

    def __repr__(self) -> str:
        digest = hashlib.sha256(self.squares.numpy().tobytes()).hexdigest()[:16]  # pyright: ignore
        kinds = (self.labels, self.classes)
        return f"Examples({digest}, {kinds}, canvas={self.canvas}, select={self.select!r}, {self._see!r})"


@final
class GridQuestions(Edit):
    """Ask about grids, one for each example chosen and each layout; ends with all answers, one a line.

    Args:
        examples: to choose from.
        shots: examples to a question, each in a grid of its own.
        layouts: names of `LAYOUTS`.
        writing: how to answer.
        budget: None for as many questions as there are grids.
    """

    site = "input"
    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(
        self, examples: Examples, *, shots: int = 1, layouts: Sequence[str] = ("rows",),
        writing: Writing | None = None, budget: Budget | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if shots < 1 or not layouts:
            raise ConfigError(say("shots, layouts", "must be one or more", (shots, list(layouts))))
        for name in layouts:
            layout_of(name)
        self.examples, self.shots, self.layouts = examples, shots, tuple(layouts)
        self.writing = writing or Writing(tokens=32)
        calls = shots * len(self.layouts)
        self.budget = budget or Budget(calls=calls, tokens=calls * self.writing.tokens)

    def talk(self, row: Mapping[str, str], pictures: Pictures) -> Talk:
        """The questions about one picture.

        Raises:
            DataError: there is no picture, or more than one.
        """
        if len(pictures) != 1:
            raise DataError(say("row", "must have one picture to ask about", len(pictures)))
        lines: list[str] = []
        for number in self.examples.chosen(pictures[0], self.shots):
            for name in self.layouts:
                page = self.examples.grid(number, pictures[0], LAYOUTS[name], words=True)
                drawn = (page * 255).round().to(torch.uint8)
                said = yield Ask(grid_prompt(LAYOUTS[name], self.examples.classes), self.writing, (drawn,))
                lines.append(" ".join(said.text.split()))
        return Written(text="\n".join(lines))

    def forward(self, value: Any) -> Any:
        """A conversation has no single edited value.

        Raises:
            CapabilityError: always; `Program.outputs` has the conversation.
        """
        got = type(value).__name__
        raise CapabilityError(say("grid questions", "must be run by a program, which has the conversation", got))

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"{self.examples!r}, shots={self.shots}, layouts={self.layouts}, {self.writing!r}, {self.budget!r}"


@final
class GridCanvas(Edit):
    """Put every picture into a grid beside the example that suits it best, for a source that paints what is missing.

    Args:
        examples: to choose from.
        layout: name of one of `LAYOUTS`.
    """

    site = "input"
    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, examples: Examples, layout: str = "rows") -> None:
        super().__init__()
        self.examples, self.layout = examples, layout
        self._places = layout_of(layout)

    def forward(
        self, value: Float[Tensor, " batch channel height width"] | UInt8[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch 3 canvas canvas"]:
        """The grids, in [0, 1]."""
        pages = [
            self.examples.grid(self.examples.chosen(picture, 1)[0], picture, self._places, words=False)
            for picture in value.detach()
        ]
        return torch.stack(pages).to(value.device)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"{self.examples!r}, layout={self.layout!r}"


def grid_prompt(layout: Layout, classes: Sequence[str]) -> str:
    """The question that goes with a grid."""
    where = {
        part: f"{_WORDS[place[0]][0]} {_WORDS[place[1]][1]}"
        for part, place in (("image", layout.image), ("label", layout.label), ("query", layout.query))
    }
    return asking(
        f"The picture is a table of four. The example is at the {where['image']}, its answer at the {where['label']}, "
        f"the question at the {where['query']}; the answer to the question is missing. It is {listed(list(classes))}. "
        "Answer with that name only."
    )
