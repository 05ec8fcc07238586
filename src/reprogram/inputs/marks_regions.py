"""Regions of a picture, and who proposes them: given boxes or masks, a grid, or a segmentation that needs no model.

A proposer is anything that maps a picture [3, height, width] of uint8 to regions. Those here show all their settings in
their `repr`, so that programs that differ in them are told apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say

Box = tuple[float, float, float, float]
"""(left, top, right, bottom), as fractions of the picture's width and height."""

GRAIN = 128
"""Pixels of the longer side of the picture that is segmented."""

RIM = 8
"""A part of which less than one pixel in so many has only its like around it is a rim, not a thing."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A part of a picture.

    Attributes:
        mask: [height, width], True where the region is; one pixel at least.
        name: what is there, where that is known.

    Raises:
        DataError: the mask is empty.

    >>> region = Region(torch.tensor([[False, True, True], [False, False, True]]))
    >>> region.box, region.area, region.centre
    ((1, 0, 3, 2), 3, (0.7222222222222223, 0.41666666666666663))
    """

    mask: Bool[Tensor, " height width"]
    name: str = ""

    def __post_init__(self) -> None:
        if not bool(self.mask.any()):
            raise DataError(say("region", "must cover one pixel at least", tuple(self.mask.shape)))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels, right and bottom not included."""
        rows, columns = self.mask.any(1).nonzero(), self.mask.any(0).nonzero()
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.mask.sum())

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the mean pixel, fractions of width and height."""
        rows, columns = self.mask.nonzero(as_tuple=True)
        height, width = self.mask.shape
        return (float(columns.double().mean()) + 0.5) / width, (float(rows.double().mean()) + 0.5) / height


Proposer = Callable[[Tensor], Sequence[Region]]


@final
@dataclass(frozen=True, slots=True)
class Grid:
    """A table of equal cells, numbered row by row.

    Attributes:
        rows: from top to bottom.
        columns: from left to right.

    >>> [region.box for region in Grid(1, 2)(torch.zeros(3, 4, 5, dtype=torch.uint8))]
    [(0, 0, 2, 4), (2, 0, 5, 4)]
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ConfigError(say("rows, columns", "must be 1 or more", (self.rows, self.columns)))

    def __call__(self, picture: UInt8[Tensor, " channel height width"]) -> tuple[Region, ...]:
        """The cells.

        Raises:
            DataError: the picture has fewer pixels than the grid has cells, along one side.
        """
        height, width = picture.shape[-2:]
        if height < self.rows or width < self.columns:
            raise DataError(say("picture", f"must have {self.rows} x {self.columns} pixels at least", (height, width)))
        cells = [(r * height // self.rows, (r + 1) * height // self.rows, c * width // self.columns,
                  (c + 1) * width // self.columns) for r in range(self.rows) for c in range(self.columns)]  # fmt: skip
        return tuple(_rectangle(height, width, *cell) for cell in cells)


@final
@dataclass(frozen=True, slots=True)
class Boxes:
    """The same boxes on every picture.

    Attributes:
        boxes: in fractions of width and height.
        names: what is in each; empty where that is not known.

    >>> Boxes(((0.5, 0.0, 1.0, 1.0),))(torch.zeros(3, 4, 4, dtype=torch.uint8))[0].box
    (2, 0, 4, 4)
    """

    boxes: tuple[Box, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for number, (left, top, right, bottom) in enumerate(self.boxes):
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                need = "must be (left, top, right, bottom) with 0 <= left < right <= 1 and 0 <= top < bottom <= 1"
                raise ConfigError(say(f"boxes[{number}]", need, self.boxes[number]))
        if not self.boxes or (self.names and len(self.names) != len(self.boxes)):
            got = (len(self.boxes), len(self.names))
            raise ConfigError(say("boxes", "must be one or more, with a name for each or none", got))

    def __call__(self, picture: UInt8[Tensor, " channel height width"]) -> tuple[Region, ...]:
        """The boxes, each of one pixel at least."""
        height, width = picture.shape[-2:]
        names = self.names or ("",) * len(self.boxes)
        found: list[Region] = []
        for (left, top, right, bottom), name in zip(self.boxes, names, strict=True):
            y, x = min(int(top * height), height - 1), min(int(left * width), width - 1)
            below, after = max(y + 1, round(bottom * height)), max(x + 1, round(right * width))
            found.append(_rectangle(height, width, y, below, x, after, name=name))
        return tuple(found)


@final
@dataclass(frozen=True, slots=True)
class Segments:
    """Parts of similar colour: the graph segmentation of Felzenszwalb and Huttenlocher (2004), on a small copy.

    Knows colours only: it finds shapes on a plain ground, not objects. For those hand over the regions of a detector.

    Attributes:
        most: regions, the largest ones first.
        coarseness: k of the paper: larger gives larger parts. Colour distances are in 0..255.
        least: share of the picture below which a part is joined to the neighbour most like it.
        ground: keep the part that covers most of the picture's border, if it is half of the border or more.
    """

    most: int = 12
    coarseness: float = 300.0
    least: float = 0.002
    ground: bool = False

    def __post_init__(self) -> None:
        if self.most < 1 or self.coarseness <= 0 or not 0 <= self.least < 1:
            got = (self.most, self.coarseness, self.least)
            raise ConfigError(say("most, coarseness, least", "must be 1 or more, above 0, and from 0 to below 1", got))

    def __call__(self, picture: UInt8[Tensor, " channel height width"]) -> tuple[Region, ...]:
        """The parts, largest first; the whole picture if there is but one."""
        height, width = picture.shape[-2:]
        scale = min(1.0, GRAIN / max(height, width))
        small = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = F.interpolate(picture[None].float(), small, mode="area")[0]
        labels = segmented(pixels, self.coarseness, max(1, round(self.least * small[0] * small[1])))
        wide = F.interpolate(labels[None, None].float(), (height, width), mode="nearest")[0, 0].long()
        sizes = wide.flatten().bincount()
        order = [int(i) for i in sizes.argsort(descending=True, stable=True) if int(sizes[int(i)])]
        back = None if self.ground else _ground(wide)
        kept = [i for i in order if i != back] or order
        return tuple(Region(wide == i) for i in kept[: self.most])


def segmented(pixels: Tensor, coarseness: float, least: int) -> Int[Tensor, " height width"]:
    """Numbers of the parts of a picture, from 0 on.

    Two neighbouring parts become one where the colour step between them is at most the largest step inside either plus
    `coarseness` over its size; then parts of fewer than `least` pixels, and those with next to no inner pixels (the
    blurred rims of shapes), are joined to the neighbour with the least step.

    Args:
        pixels: [channel, height, width], 0..255.
        coarseness: k.
        least: pixels.

    >>> segmented(torch.tensor([[[0.0, 0.0, 90.0], [0.0, 0.0, 90.0]]]), 20.0, 1).tolist()
    [[0, 0, 1], [0, 0, 1]]
    """
    height, width = pixels.shape[-2:]
    edges, steps = _edges(pixels)
    order = steps.argsort(stable=True)
    rows = cast("list[list[int]]", edges[order].tolist())  # pyright: ignore[reportUnknownMemberType]
    weights = cast("list[float]", steps[order].tolist())  # pyright: ignore[reportUnknownMemberType]
    parent, size = list(range(height * width)), [1] * (height * width)
    inside, core = [0.0] * (height * width), [1] * (height * width)
    for small in (False, True):
        for pair, weight in zip(rows, weights, strict=True):
            a, b = pair
            while parent[a] != a:
                parent[a] = a = parent[parent[a]]
            while parent[b] != b:
                parent[b] = b = parent[parent[b]]
            if a == b:
                continue
            a, b = (a, b) if size[a] >= size[b] else (b, a)
            alike = weight <= min(inside[a] + coarseness / size[a], inside[b] + coarseness / size[b])
            slight = size[b] < least or RIM * core[a] < size[a] or RIM * core[b] < size[b]
            if slight if small else alike:
                parent[b], inside[a] = a, weight
                size[a] += size[b]
                core[a] += core[b]
        core = core if small or min(height, width) < 3 else _cores(_roots(parent).view(height, width))
    numbers = cast("Tensor", _roots(parent).unique(return_inverse=True)[1])  # pyright: ignore[reportUnknownMemberType]
    return numbers.view(height, width)


def _roots(parent: list[int]) -> Tensor:
    """[n], the number that every pixel's chain of parents ends in."""
    roots = torch.tensor(parent)
    while not torch.equal(roots, roots[roots]):
        roots = roots[roots]
    return roots


def _cores(roots: Tensor) -> list[int]:
    """For every number, how many of its pixels have only their like around them. The rims of shapes have none."""
    page = F.pad(roots[None, None].double(), (1, 1, 1, 1), mode="replicate")
    alike = (F.max_pool2d(page, 3, 1) == -F.max_pool2d(-page, 3, 1))[0, 0]
    counts = roots[alike].bincount(minlength=roots.numel())
    return cast("list[int]", counts.tolist())  # pyright: ignore[reportUnknownMemberType]


def _edges(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[E, 2] numbers of neighbouring pixels (eight to a pixel), and the colour distance of each pair."""
    height, width = pixels.shape[-2:]
    index = torch.arange(height * width).view(height, width)
    pairs, steps = list[Tensor](), list[Tensor]()
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        near = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        far = (slice(dy, height), slice(max(0, dx), width + min(0, dx)))
        pairs.append(torch.stack([index[near].flatten(), index[far].flatten()], 1))
        steps.append((pixels[(slice(None), *near)] - pixels[(slice(None), *far)]).square().sum(0).sqrt().flatten())
    return torch.cat(pairs), torch.cat(steps)


def _ground(labels: Tensor) -> int | None:
    border = torch.cat([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    counts = border.bincount()
    return int(counts.argmax()) if int(counts.max()) * 2 >= len(border) else None


def _rectangle(height: int, width: int, top: int, bottom: int, left: int, right: int, *, name: str = "") -> Region:  # noqa: PLR0913 - four sides and two lengths
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return Region(mask, name)
