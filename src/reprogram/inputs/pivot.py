"""PIVOT: search for a point of a picture by letting a model choose among numbered points, round after round.

The cross-entropy method with the model as its judge (Nasiriany et al. 2024, arXiv:2402.07872): draw points from a
normal distribution, show them as numbered circles, ask for the best ones, fit the distribution to those, and so on.
"""

import json
import math
import random
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import UInt8
from torch import Tensor

from reprogram.core.conversation import Ask, Budget, Pictures, Talk
from reprogram.core.errors import CapabilityError, ConfigError, DataError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.core.writing import Writing, Written
from reprogram.inputs.marks_drawing import Colour, Style, blend, check_picture, colour_of, glyphs, segment
from reprogram.inputs.marks_reading import chosen_ids
from reprogram.inputs.showing import asking

Point = tuple[float, float]
"""(x, y), fractions of width and height."""

START: Point = (0.5, 0.5)
TRIES = 1000
GROWTH = 1.1
WIDEST = 1.0
"""Standard deviation, in fractions of the picture, up to which a crowded draw is widened."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How to search. Defaults are those of the demonstration code, but for `spread` and `least`, which are ours.

    Attributes:
        rounds: of drawing, asking and fitting.
        first: points in the first round.
        later: points in the others.
        keep: points to ask for.
        trials: searches that start anew, whose results are compared at the end.
        spread: standard deviation at the start, in fractions of width and height.
        least: standard deviation that it never falls below.
        arrows: draw an arrow from the middle of the picture to each point.
        font: pixels; None for what fits the picture.
        seed: of the points, together with the picture.

    Raises:
        ConfigError: a number out of range.
    """

    rounds: int = 3
    first: int = 25
    later: int = 10
    keep: int = 3
    trials: int = 1
    spread: float = 0.3
    least: float = 0.02
    arrows: bool = True
    font: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "first", "later", "keep", "trials"):
            if getattr(self, name) < 1:
                raise ConfigError(say(name, "must be 1 or more", getattr(self, name)))
        if not 0 < self.least <= self.spread <= 2:
            need = "must be above 0, the first not above the second, that one 2 at most"
            raise ConfigError(say("least, spread", need, (self.least, self.spread)))

    @property
    def calls(self) -> int:
        """Questions at most."""
        return self.trials * (self.rounds + 1) + 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to.

    Attributes:
        point: the answer; None if not one of the model's answers could be read.
        path: the middle of the distribution after every round of every trial.
        unread: answers without a single valid id.
    """

    point: Point | None
    path: tuple[Point, ...]
    unread: int


@final
class Pivot(Edit):
    """Ask a model again and again which of the points drawn on the picture is the best, see `seek`.

    What it ends with is the text `{"point": [x, y]}`.

    Args:
        question: what the point is to be.
        search: how.
        writing: how the model is to answer.
        budget: of questions and tokens; None for what the search may need.
    """

    site = "input"
    operators = frozenset({Operator.ADDITIVE, Operator.CONCATENATIVE})

    def __init__(
        self, question: str, search: Search | None = None, writing: Writing | None = None,
        budget: Budget | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.question, self.search = question, search or Search()
        self.writing = writing or Writing(tokens=128)
        self.budget = budget or Budget(calls=self.search.calls, tokens=self.search.calls * self.writing.tokens)

    def talk(self, row: Mapping[str, str], pictures: Pictures) -> Talk:
        """The search on one picture.

        Raises:
            DataError: there is no picture, or more than one.
        """
        if len(pictures) != 1:
            raise DataError(say("row", "must have one picture to search", len(pictures)))
        found = yield from seek(pictures[0], self.question, self.search, self.writing)
        if found.point is None:
            reason = f"none of {found.unread} answers named a point that was there"
            return Written(text="", finish="error", reason=reason)
        return Written(text=json.dumps({"point": [round(n, 4) for n in found.point]}))

    def forward(self, value: Any) -> Any:
        """A search asks more than once, so it has no single edited value.

        Raises:
            CapabilityError: always; `Program.outputs` has the conversation.
        """
        raise CapabilityError(
            say("pivot", "must be run by a program, which has the conversation", type(value).__name__)
        )

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"{self.question!r}, {self.search!r}, {self.writing!r}, {self.budget!r}"


def search(
    ask: Callable[[Ask], Written], picture: UInt8[Tensor, " channel height width"], question: str,
    options: Search = Search(), writing: Writing = Writing(tokens=128),  # noqa: B008 - frozen
) -> Found:  # fmt: skip
    """Search for a point with anything that answers questions about pictures.

    Args:
        ask: answers a question.
        picture: [3, height, width].
        question: what the point is to be.
        options: how to search.
        writing: handed on with the questions.
    """
    talk = seek(picture, question, options, writing)
    try:
        question_now = next(talk)
        while True:
            question_now = talk.send(ask(question_now))
    except StopIteration as end:
        return end.value


def seek(
    picture: UInt8[Tensor, " channel height width"], question: str, options: Search, writing: Writing
) -> Generator[Ask, Written, Found]:
    """The search as a conversation: yields questions, is sent answers, returns what was found.

    Ids that were not drawn are left out. One id left: the distribution moves there with the least spread. None left: it
    starts anew. After the last round one more question picks one of the points chosen; if that cannot be read, the
    answer is the middle of the distribution.

    Args:
        picture: [3, height, width].
        question: what the point is to be.
        options: how.
        writing: of the answers.

    Raises:
        DataError: the picture has no pixels or not three channels.
    """
    check_picture(picture)
    path, winners, unread = list[Point](), list[Point](), 0
    for trial in range(options.trials):
        draw = random.Random((options.seed * 1_000_003 + trial) * 2**32 + zlib.crc32(picture.numpy().tobytes()))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        spot, spread, chosen = START, (options.spread, options.spread), list[Point]()
        for number in range(options.rounds):
            points = sample(draw, spot, spread, options.later if number else options.first, _spacing(picture, options))
            chosen, missed = yield from _choose(picture, points, question, options.keep, options, writing)
            unread += missed
            spot, spread = refit(chosen, options)
            path.append(spot)
        if len(chosen) > 1:
            best, missed = yield from _choose(picture, chosen, question, 1, options, writing)
            unread += missed
            winners += best or [spot]
        else:
            winners += chosen
    if len(winners) > 1:
        apart = _apart(winners, _spacing(picture, options))
        best, missed = yield from _choose(picture, apart, question, 1, options, writing)
        unread += missed
        winners = best or winners
    return Found(point=winners[0] if winners else None, path=tuple(path), unread=unread)


def sample(draw: random.Random, spot: Point, spread: Point, count: int, spacing: tuple[Point, Point]) -> list[Point]:
    """Points of a normal distribution, cut to the picture, whose circles lie on it and do not overlap.

    A point too near to an earlier one, or to the border, is drawn anew from a distribution wider by a tenth each time.
    After 1000 tries it is left out: so there can be fewer points than asked for (the demonstration code lets circles
    overlap then).

    Args:
        draw: random numbers.
        spot: mean.
        spread: standard deviations.
        count: points.
        spacing: radius of a circle and least distance of two, both as fractions of width and of height.
    """
    (margin, apart), points = spacing, list[Point]()
    for _ in range(count):
        wide = 1.0
        for _ in range(TRIES):
            x, y = (draw.gauss(m, min(s * wide, max(s, WIDEST))) for m, s in zip(spot, spread, strict=True))
            fits = margin[0] <= x <= 1 - margin[0] and margin[1] <= y <= 1 - margin[1]
            if fits and all(math.hypot((x - a) / apart[0], (y - b) / apart[1]) >= 1 for a, b in points):
                points.append((x, y))
                break
            wide = min(wide * GROWTH, 1e6)
    return points or [START]


def refit(chosen: Sequence[Point], options: Search) -> tuple[Point, Point]:
    """Mean and standard deviations of the points chosen; the start without any.

    >>> refit([(0.2, 0.5), (0.4, 0.5)], Search())
    ((0.30000000000000004, 0.5), (0.1, 0.02))
    >>> refit([], Search())
    ((0.5, 0.5), (0.3, 0.3))
    """
    if not chosen:
        return START, (options.spread, options.spread)
    count = len(chosen)
    x, y = (sum(p[axis] for p in chosen) / count for axis in (0, 1))
    wide, tall = (math.sqrt(sum((p[axis] - m) ** 2 for p in chosen) / count) for axis, m in ((0, x), (1, y)))
    return (x, y), (max(wide, options.least), max(tall, options.least))


def draw_points(
    picture: UInt8[Tensor, " channel height width"], points: Sequence[Point], options: Search = Search()
) -> UInt8[Tensor, " channel height width"]:
    """Numbered white circles with rings of the numbers' colours, and arrows to them.

    Args:
        picture: [3, height, width].
        points: numbered from 1 on.
        options: arrows and font.
    """
    canvas = picture.float()
    height, width = canvas.shape[-2:]
    radius, font = _radius(picture, options)
    places = [(x * width - 0.5, y * height - 0.5) for x, y in points]
    middle = (width / 2 - 0.5, height / 2 - 0.5)
    for x, y in places if options.arrows else ():
        blend(canvas, segment(height, width, middle, (x, y), max(1.5, radius / 6)), (220, 40, 40), 0.4)
    white: Colour = (255, 255, 255)
    for number, spot in enumerate(places, 1):
        disc = segment(height, width, spot, spot, 2 * radius)
        blend(canvas, disc, white)
        blend(canvas, disc & ~segment(height, width, spot, spot, 2 * radius - 4), colour_of(number))
        ink = glyphs(str(number), font)
        top = min(max(0, round(spot[1] - (ink.shape[0] - 1) / 2)), height - min(height, ink.shape[0]))
        left = min(max(0, round(spot[0] - (ink.shape[1] - 1) / 2)), width - min(width, ink.shape[1]))
        part = canvas[:, top : top + ink.shape[0], left : left + ink.shape[1]]
        blend(part, ink[: part.shape[1], : part.shape[2]], (0, 0, 0))
    return canvas.round_().to(torch.uint8)


def _choose(
    picture: Tensor, points: list[Point], question: str, keep: int, options: Search, writing: Writing
) -> Generator[Ask, Written, tuple[list[Point], int]]:
    """Ask for the best points; those chosen, and 1 if no answer could be read."""
    from_one = f"numbered circles from 1 to {len(points)}" if len(points) > 1 else "one numbered circle, 1"
    wanted = f"the {min(keep, len(points))} best numbers, best first," if keep > 1 else "the best number"
    text = f'The picture has {from_one}. {question}\nEnd with {wanted} as JSON: {{"points": []}}'
    said = yield Ask(asking(text), writing, (draw_points(picture, points, options),))
    ids = chosen_ids(said.text, len(points))[:keep]
    return [points[i - 1] for i in ids], int(not ids)


def _radius(picture: Tensor, options: Search) -> tuple[int, int]:
    """Pixels of a circle's radius, and of its font."""
    font = Style(font=options.font).font_for(*picture.shape[-2:])
    tall, wide = glyphs("8" * len(str(max(options.first, options.later))), font).shape
    return math.ceil(math.hypot(tall, wide) / 2) + 3, font


def _spacing(picture: Tensor, options: Search) -> tuple[Point, Point]:
    """A circle's radius and the least distance of two circles, as fractions of width and of height."""
    height, width = picture.shape[-2:]
    radius = _radius(picture, options)[0]
    margin = min(radius, width / 2 - 1) / width, min(radius, height / 2 - 1) / height
    return (max(0.0, margin[0]), max(0.0, margin[1])), ((2 * radius + 2) / width, (2 * radius + 2) / height)


def _apart(points: Sequence[Point], spacing: tuple[Point, Point]) -> list[Point]:
    """The points, without those whose circles would lie on an earlier one's."""
    kept: list[Point] = []
    for x, y in points:
        if all(math.hypot((x - a) / spacing[1][0], (y - b) / spacing[1][1]) >= 1 for a, b in kept):
            kept.append((x, y))
    return kept
