"""A source that reads marked pictures without a model: it finds marks by their colours and answers by a hidden rule.

With it one can test that marks are where they should be, that searches get to their goal, and that answers are read
right, for the truth is known.
"""

import hashlib
import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, DataError, say
from reprogram.core.program import Input
from reprogram.core.source import Capability, Reading, SourceOutput, SourceSpec
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Batch, Texts
from reprogram.core.writing import PICTURE, Written, readable
from reprogram.inputs.grids import palette, quarter
from reprogram.inputs.marks_drawing import colour_of
from reprogram.media.images import Samples, as_samples

MOST = 256
"""Marks that are looked for."""

FEW = 8
"""Pixels of a mark's colour below which it is chance."""


@final
@dataclass(frozen=True, slots=True)
class Sighting:
    """A mark that was seen.

    Attributes:
        box: (left, top, right, bottom) of all pixels of its colour, right and bottom not included.
        x: of the mean pixel of its colour, as a fraction of the picture's width.
        y: the same of its height.
    """

    box: tuple[int, int, int, int]
    x: float
    y: float


@final
@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What the oracle is shown.

    Attributes:
        prompt: with all its signs for places and turns.
        pictures: [3, height, width] uint8.
    """

    prompt: str
    pictures: tuple[Tensor, ...]

    def marks(self, number: int = 0) -> dict[int, Sighting]:
        """The marks on a picture, by their numbers; none where there is no such picture."""
        return sightings(self.pictures[number]) if number < len(self.pictures) else {}


Rule = Callable[[Look], str]


@final
@dataclass(frozen=True, slots=True)
class PointAt:
    """Chooses the marks nearest to a hidden place, as JSON.

    Attributes:
        x: of the place, as a fraction of the picture's width.
        y: the same of its height.
        most: marks to name.
    """

    x: float
    y: float
    most: int = 3

    def __call__(self, look: Look) -> str:
        """Their numbers, the nearest first."""
        found = look.marks()
        order = sorted(found, key=lambda n: ((found[n].x - self.x) ** 2 + (found[n].y - self.y) ** 2, n))
        return f"I looked at the circles. {json.dumps({'points': order[: self.most]})}"


@final
@dataclass(frozen=True, slots=True)
class Brightest:
    """Cites the mark within whose outline the picture is brightest.

    Attributes:
        names: said in place of the numbers 1, 2, ...; empty to cite the number in brackets.
    """

    names: tuple[str, ...] = ()

    def __call__(self, look: Look) -> str:
        """Such as "[2]"."""
        shades = {n: _shade(look.pictures[0], seen.box) for n, seen in look.marks().items()}
        if not shades:
            return "There is no mark."
        best = max(shades, key=lambda n: (shades[n], -n))
        return f"[{best}] Answer: {self.names[best - 1]}" if self.names else f"It is in [{best}]."


@final
@dataclass(frozen=True, slots=True)
class CopiesLabel:
    """Of a grid, says the class whose colour the example's answer has: what it is if example and question are alike.

    Attributes:
        classes: in the order of their colours.
    """

    classes: tuple[str, ...]

    def __call__(self, look: Look) -> str:
        """The name of a class."""
        place = re.search(r"its answer at the (top|bottom) (left|right)", look.prompt)
        if place is None:
            return "There is no grid."
        part = quarter(look.pictures[0].float() / 255, (int(place[1] == "bottom"), int(place[2] == "right")))
        edge = part[:, 0, :].mean(1)  # the card's colour, above its name
        return self.classes[int((palette(len(self.classes)) - edge).square().sum(1).argmin())]


@final
class OracleSource:
    """Answers every prompt by a rule; it can be shown pictures, and has no weights.

    Args:
        rule: from what it is shown to what it writes. Its `repr` is its fingerprint.

    Attributes:
        looks: everything it was shown, in order.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.spec = SourceSpec(ref="module:oracle", modality="text", input_shape=(), outputs=0)
        self.sites: Mapping[str, Location] = MappingProxyType({"input": Location.INPUT})
        self.capabilities = frozenset({Capability.GENERATION, Capability.PICTURES})
        self.looks: list[Look] = []
        self.kind = "causal"

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def context(self) -> int | None:
        """Without a limit."""
        return None

    def count(self, text: str) -> int:
        """Words."""
        return len(text.split())

    def rendered(self, prompt: str) -> str:
        """With its signs in words."""
        return readable(prompt)

    def fingerprint(self) -> str:
        """Hash of the rule's `repr`."""
        return hashlib.sha256(repr(self.rule).encode()).hexdigest()

    def to(self, device: torch.device | str) -> "OracleSource":
        """Stays where it is."""
        return self

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        """Nothing to attach.

        Raises:
            CapabilityError: something else than writing is to be read.
        """
        if reading.features or reading.tokens or reading.continuations or reading.choices:
            raise CapabilityError(say("source", "must be a model to score or give features", self.spec.ref))

    @contextmanager
    def editing(self, input: Input) -> Generator[None]:
        """There are no hidden sites."""
        yield

    def prepare(self, inputs: object, sample: Sample | None) -> Samples | Texts:
        """Pictures as image tensors of the sample's shape; texts that are ready stay as they are."""
        return inputs if isinstance(inputs, Texts) else as_samples(inputs, sample)

    def __call__(self, x: Batch, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """What the rule says to `I(x)`.

        Raises:
            DataError: the edits do not make texts of the batch, or a prompt has another number of places than pictures.
        """
        shown = input(x, "input")
        if not isinstance(shown, Texts) or reading.writing is None:
            raise DataError(say("x", "must become texts that are to be answered", type(shown).__name__))
        samples = reading.writing.samples
        return SourceOutput(written=tuple((self._written(shown, i),) * samples for i in range(len(shown))))

    def _written(self, shown: Texts, row: int) -> Written:
        prompt, pictures = shown.prompts[row], shown.pictures[row] if shown.pictures is not None else ()
        if prompt.count(PICTURE) != len(pictures):
            raise DataError(say("prompt", f"must have {prompt.count(PICTURE)} pictures", len(pictures)))
        self.looks.append(Look(prompt, pictures))
        text = self.rule(self.looks[-1])
        return Written(text=text, tokens=self.count(text))


def sightings(picture: Tensor) -> dict[int, Sighting]:
    """Marks on a picture [3, height, width] of uint8, by the exact colours of their frames and edges."""
    codes = _code(picture.long())
    known = {int(_code(torch.tensor(colour_of(n)))): n for n in range(1, MOST + 1)}
    values, counts = codes.unique(return_counts=True)
    found: dict[int, Sighting] = {}
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if value in known and count >= FEW:
            rows, columns = (codes == value).nonzero(as_tuple=True)
            box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
            height, width = codes.shape
            x, y = (float(columns.double().mean()) + 0.5) / width, (float(rows.double().mean()) + 0.5) / height
            found[known[value]] = Sighting(box, x, y)
    return dict(sorted(found.items()))


def _code(colour: Tensor) -> Tensor:
    return colour[0] * 65536 + colour[1] * 256 + colour[2]


def _shade(picture: Tensor, box: Sequence[int]) -> float:
    left, top, right, bottom = box
    return float(picture[:, top:bottom, left:right].float().mean())
