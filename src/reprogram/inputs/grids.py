"""Grids: an example, its answer and a question as three quarters of a picture, the fourth left empty for the answer.

Layout of Bar et al. 2022 (arXiv:2209.00647): on a white canvas of P pixels each quarter has `P // 2 - 1` pixels, so
that 224 pixels hold quarters of 111 with 2 pixels between them. Which example stands beside a question matters (Zhang
et al. 2023, arXiv:2301.13670): it is chosen by similarity of features, as they are or after a small linear map that was
trained to tell good examples from bad ones.
"""

import base64
import binascii
import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.task import Sample
from reprogram.inputs.marks_drawing import LEAST_FONT, MOST_FONT, blend, glyphs, plate_of
from reprogram.inputs.showing import shown
from reprogram.media.frame import to_sample
from reprogram.media.images import read_image, to_data_uri

Corner = tuple[int, int]
"""(row, column), each 0 or 1, of a quarter."""

Combine = Literal["mean", "logits", "product", "max"]


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """Which quarter holds what.

    Attributes:
        image: the example's.
        label: the example's answer's.
        query: the question's.
        empty: the answer's.
    """

    image: Corner
    label: Corner
    query: Corner
    empty: Corner


LAYOUTS: dict[str, Layout] = {
    "rows": Layout((0, 0), (0, 1), (1, 0), (1, 1)),
    "columns": Layout((0, 0), (1, 0), (0, 1), (1, 1)),
    "rows_up": Layout((1, 0), (1, 1), (0, 0), (0, 1)),
    "columns_left": Layout((0, 1), (1, 1), (0, 0), (1, 0)),
}
"""`rows` and its flip `columns` are the paper's, with the empty quarter at the bottom right; the others mirror them."""


def layout_of(name: str) -> Layout:
    """A layout by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in LAYOUTS:
        raise ConfigError(say("layout", f"must be one of {list(LAYOUTS)}", name))
    return LAYOUTS[name]


def cell_of(canvas: int) -> int:
    """Pixels of a quarter's side.

    >>> cell_of(224), cell_of(225), cell_of(64)
    (111, 111, 31)
    """
    if canvas < 8:
        raise ConfigError(say("canvas", "must be 8 pixels or more", canvas))
    return canvas // 2 - 1


def corner_of(place: Corner, canvas: int) -> tuple[int, int]:
    """(top, left) of a quarter, pixels: the first begins at 0, the second ends with the canvas.

    >>> corner_of((0, 1), 224), corner_of((1, 1), 225)
    ((0, 113), (114, 114))
    """
    far = canvas - cell_of(canvas)
    return place[0] * far, place[1] * far


def compose(
    image: Float[Tensor, " *batch 3 cell cell"], label: Float[Tensor, " *batch 3 cell cell"],
    query: Float[Tensor, " *batch 3 cell cell"], canvas: int, layout: Layout = LAYOUTS["rows"],
) -> Float[Tensor, " *batch 3 canvas canvas"]:  # fmt: skip
    """The grid, white where nothing is.

    Args:
        image: of the example, in [0, 1], the quarter's size.
        label: the example's answer as a picture.
        query: the question.
        canvas: P.
        layout: which goes where.

    >>> grid = compose(*(torch.full((3, 3, 3), v) for v in (0.0, 0.5, 0.2)), canvas=8)
    >>> grid[0, 0].tolist()
    [0.0, 0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    """
    cell = cell_of(canvas)
    page = query.new_ones(*query.shape[:-2], canvas, canvas)
    for part, place in ((image, layout.image), (label, layout.label), (query, layout.query)):
        top, left = corner_of(place, canvas)
        page[..., top : top + cell, left : left + cell] = part
    return page


def quarter(page: Float[Tensor, " *batch 3 canvas canvas"], place: Corner) -> Float[Tensor, " *batch 3 cell cell"]:
    """A quarter of a grid, what `compose` put there."""
    canvas = page.shape[-1]
    cell, (top, left) = cell_of(canvas), corner_of(place, canvas)
    return page[..., top : top + cell, left : left + cell]


def square(picture: Tensor, cell: int) -> Float[Tensor, " 3 cell cell"]:
    """A picture of any shape in a quarter, as large as fits, white around it, in [0, 1].

    Args:
        picture: [1 or 3, height, width], uint8 or floats in [0, 1].
        cell: pixels of the quarter.
    """
    small = shown(picture, cell).float() / 255
    page = torch.ones(3, cell, cell)
    top, left = (cell - small.shape[1]) // 2, (cell - small.shape[2]) // 2
    page[:, top : top + small.shape[1], left : left + small.shape[2]] = small
    return page


def palette(count: int) -> Float[Tensor, " target 3"]:
    """A colour for each class, evenly spaced hues at full saturation, in [0, 1].

    >>> palette(3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return torch.tensor([colorsys.hsv_to_rgb(k / count, 1.0, 1.0) for k in range(count)])


def card(name: str, colour: Float[Tensor, " 3"], cell: int, *, words: bool = True) -> Float[Tensor, " 3 cell cell"]:
    """A class as a picture: its colour, and its name on it where that fits in letters of 8 pixels or more.

    Args:
        name: of the class.
        colour: in [0, 1].
        cell: pixels of the quarter.
        words: write the name.
    """
    page = (colour * 255).view(3, 1, 1).expand(3, cell, cell).clone()
    for font in range(min(MOST_FONT, cell // 2), LEAST_FONT - 1, -1) if words else ():
        ink = glyphs(name, font)
        height, width = ink.shape
        if width <= cell - 4 and height <= cell - 4:
            top, left = (cell - height) // 2, (cell - width) // 2
            red, green, blue = (int(v) for v in page[:, 0, 0])
            blend(page[:, top : top + height, left : left + width], ink, plate_of((red, green, blue)))
            break
    return page / 255


# -- examples ----------------------------------------------------------------------------------------------------------


def picture_text(picture: Tensor, cell: int) -> str:
    """A picture as text that a program file can hold: a PNG, no larger than a quarter, as a data URI."""
    return to_data_uri(shown(picture, min(cell, max(picture.shape[-2:]))))


def picture_of(text: str) -> UInt8[Tensor, " 3 height width"]:
    """The picture that a text of `picture_text` stands for.

    Raises:
        DataError: it is no picture.
    """
    head, _, body = text.partition(",")
    if head != "data:image/png;base64":
        raise DataError(say("example", "must be a picture as a data URI (PNG)", text[:40]))
    try:
        image = read_image(base64.b64decode(body, validate=True), name="example")
    except binascii.Error as problem:
        raise DataError(say("example", "must be a picture as a data URI (PNG)", text[:40])) from problem
    return to_sample(image, Sample(shape=(3, image.height, image.width), fit="exact"))


def plain_features(pictures: Sequence[Tensor], side: int = 8) -> Float[Tensor, " n dim"]:
    """Features that need no model: mean colours of `side` x `side` squares, each picture's own mean taken off.

    Args:
        pictures: [1 or 3, height, width] each.
        side: squares along each side.
    """
    small = torch.stack([square(picture, 4 * side) for picture in pictures])
    cells = F.avg_pool2d(small, 4).flatten(1)
    return cells - cells.mean(1, keepdim=True)


def nearest(queries: Float[Tensor, " n dim"], examples: Float[Tensor, " m dim"], count: int) -> list[list[int]]:
    """For each query the examples with the greatest cosine similarity, greatest first: unsupervised retrieval.

    >>> nearest(torch.tensor([[1.0, 0.1]]), torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]), 2)
    [[1, 2]]
    """
    alike = F.normalize(queries, dim=1) @ F.normalize(examples, dim=1).T
    order = alike.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return cast("list[list[int]]", order.tolist())  # pyright: ignore[reportUnknownMemberType]


def agreement(labels: Sequence[str]) -> Float[Tensor, " m m"]:
    """1 where two examples have one class, else 0: the gain of an example for a query, where none was measured.

    >>> agreement(["a", "b", "a"]).tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """
    return torch.tensor([[float(a == b) for b in labels] for a in labels])


def measured(count: int, result: Callable[[int, int], float]) -> Float[Tensor, " m m"]:
    """Results in context, measured: how well each example does as the one that is shown beside each other one.

    Args:
        count: m, examples.
        result: of (query, example), such as 1 for a right answer and 0 for a wrong one, or the overlap of two masks.
    """
    gains = torch.zeros(count, count)
    for query in range(count):
        for example in range(count):
            if query != example:
                gains[query, example] = result(query, example)
    return gains


def contrastive_head(
    features: Float[Tensor, " m dim"], gains: Float[Tensor, " m m"], *, ends: int = 5, temperature: float = 0.1,
    steps: int = 100, width: int = 64,
) -> Float[Tensor, " dim width"]:  # fmt: skip
    """A linear map of features after which examples that do well for a query lie nearer to it: supervised retrieval.

    For each query the `ends` examples with the greatest gain are its good ones and the `ends` with the least its bad
    ones (5 and 5 in the paper). The loss is -log of the good ones' part of ``sum exp(cosine / temperature)`` over both.
    Starts at the features' principal directions and follows the full gradient (Adam): no random numbers.

    Args:
        features: of m examples.
        gains: how well example j does for query i; the diagonal is not read.
        ends: good and bad ones a query.
        temperature: of the loss.
        steps: of descent.
        width: of the result, at most.

    Raises:
        DataError: there are fewer than three examples, or all do equally well.
    """
    if len(features) < 3 or float(gains.max()) == float(gains.min()):
        need = "must be of three examples or more that do not all do equally well"
        raise DataError(say("gains", need, tuple(gains.shape)))
    good, bad = _ends(gains, min(ends, (len(features) - 1) // 2))
    with torch.enable_grad(), torch.inference_mode(False):
        clean = F.normalize(features.detach().clone(), dim=1)
        directions = cast("Tensor", torch.linalg.svd(clean - clean.mean(0), full_matrices=False)[2])  # pyright: ignore
        head = directions[:width].T.clone().requires_grad_()
        optimizer = torch.optim.Adam([head], lr=0.05)
        for _ in range(steps):
            mapped = F.normalize(clean @ head, dim=1)
            scores = mapped @ mapped.T / temperature
            both = scores.masked_fill(~(good | bad), float("-inf")).logsumexp(1)
            loss = (both - scores.masked_fill(~good, float("-inf")).logsumexp(1))[good.any(1)].mean()
            optimizer.zero_grad()
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            optimizer.step()  # pyright: ignore[reportUnknownMemberType]
    return head.detach()


def combined(
    probabilities: Float[Tensor, " layout *shape target"], how: Combine = "mean"
) -> Float[Tensor, " *shape target"]:
    """Answers of several grids as one, probabilities that sum to 1.

    Args:
        probabilities: of each grid.
        how: "mean" of the probabilities, "logits" for the mean of their logarithms, "product", or "max".

    >>> [round(float(combined(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), how)[0]), 4)
    ...  for how in ("mean", "logits", "product", "max")]
    [0.55, 0.6, 0.6923, 0.5294]
    """
    if how == "mean":
        return probabilities.mean(0)
    if how == "max":
        top = probabilities.amax(0)
        return top / top.sum(-1, keepdim=True)
    logits = probabilities.clamp_min(1e-12).log()
    return (logits.mean(0) if how == "logits" else logits.sum(0)).softmax(-1)


def _ends(gains: Tensor, ends: int) -> tuple[Bool[Tensor, " m m"], Bool[Tensor, " m m"]]:
    """The examples with the greatest and the least gain for each query; what is as good as the worst is no good one."""
    count = len(gains)
    self = torch.eye(count, dtype=torch.bool)
    good, bad = torch.zeros_like(self), torch.zeros_like(self)
    for row in range(count):
        others: list[int] = [i for i in range(count) if i != row]
        order = sorted(others, key=lambda i: (-float(gains[row, i]), i))
        best, worst = float(gains[row, order[0]]), float(gains[row, order[-1]])
        good[row, [i for i in order[:ends] if float(gains[row, i]) > worst]] = True
        bad[row, [i for i in order[-ends:] if float(gains[row, i]) < best]] = True
    return good, bad & ~good
