"""Where labels go on a picture: next to what they mean, never on one another, whatever the number of regions.

Regions take their turn by ascending area. A label's wish is the middle of what smaller regions left of its own (the
pixel farthest from its edge). It goes to the nearest place that is free of labels: inside its own part if there is one,
else beside it and off the regions that are as small, else anywhere. What finds no place on the picture gets one on a
strip below it, which is as tall as need be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

GAP = 1
"""Pixels that stay free between labels."""


@final
@dataclass(frozen=True, slots=True)
class Label:
    """The place of a label.

    Attributes:
        left: of its box, pixels.
        top: of its box.
        width: of its box.
        height: of its box.
        anchor: (x, y), the pixel that it means.
        inside: its box is wholly on the part of the region that is its own.
    """

    left: int
    top: int
    width: int
    height: int
    anchor: tuple[int, int]
    inside: bool


@final
@dataclass(frozen=True, slots=True)
class Placement:
    """Places for all labels.

    Attributes:
        labels: in the order of the regions.
        height: of the picture with the strip below it, pixels.
        width: of the same; more than the picture's only if a label is wider than that.
    """

    labels: tuple[Label, ...]
    height: int
    width: int


def place(masks: Sequence[Bool[Tensor, " height width"]], sizes: Sequence[tuple[int, int]]) -> Placement:
    """Places for labels that neither overlap nor touch.

    Args:
        masks: of the regions.
        sizes: (width, height) of each region's label, pixels.
    """
    height, width = masks[0].shape
    order = sorted(range(len(masks)), key=lambda i: (int(masks[i].sum()), i))
    own, taken = list(masks), torch.zeros_like(masks[0])
    for i in order:
        rest = masks[i] & ~taken
        own[i] = rest if bool(rest.any()) else masks[i]
        taken = taken | masks[i]
    anchors = [middle(mask) for mask in own]
    tight = torch.zeros_like(taken)  # regions without room for their label, which others' labels should leave in sight
    for i, mask in enumerate(own):
        if _within(mask, torch.zeros_like(mask), sizes[i], anchors[i]) is None:
            tight = tight | mask
    used = torch.zeros_like(taken)
    found: dict[int, Label] = {}
    strip = _Strip(height, width)
    for i in order:
        spot = inside = _within(own[i], used, sizes[i], anchors[i])
        if spot is None:
            spot = _nearest(used | tight, sizes[i], anchors[i])
        if spot is None:
            spot = _nearest(used, sizes[i], anchors[i])
        if spot is None:
            spot = strip.next(sizes[i])
        else:
            x, y = spot
            used[max(0, y - GAP) : y + sizes[i][1] + GAP, max(0, x - GAP) : x + sizes[i][0] + GAP] = True
        found[i] = Label(*spot, *sizes[i], anchors[i], inside is not None)
    return Placement(tuple(found[i] for i in range(len(masks))), strip.bottom, strip.width)


def middle(mask: Bool[Tensor, " height width"]) -> tuple[int, int]:
    """(x, y) of the pixel that is farthest from the region's edge; of several the one nearest to their mean.

    >>> middle(torch.tensor([[False, True, True, True, True, True]]))
    (3, 0)
    """
    depth = squared_depth(mask)
    rows, columns = (depth == depth.max()).nonzero(as_tuple=True)
    away = (rows - rows.double().mean()).square() + (columns - columns.double().mean()).square()
    best = int(away.argmin())
    return int(columns[best]), int(rows[best])


def squared_depth(mask: Bool[Tensor, " height width"]) -> Int[Tensor, " height width"]:
    """Squared distance of every pixel of the region to the nearest pixel that is not in it; 0 outside of it.

    Exact; what lies beyond the picture is not in the region.

    >>> squared_depth(torch.ones(3, 4, dtype=torch.bool)).tolist()
    [[1, 1, 1, 1], [1, 4, 4, 1], [1, 1, 1, 1]]
    """
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    whole = torch.zeros(mask.shape, dtype=torch.int64)
    if not len(rows):
        return whole
    part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    steps = F.pad(mask[part].long(), (1, 1, 1, 1))
    for line in range(1, len(steps)):  # to the nearest pixel outside above, then also below
        steps[line] *= steps[line - 1] + 1
    for line in range(len(steps) - 2, 0, -1):
        steps[line] = torch.minimum(steps[line], steps[line + 1] + 1)
    vertical = steps.square()
    best = vertical.clone()
    shift = 1
    while shift * shift < int(best.max()):
        near = vertical[:, shift:] + shift * shift
        best[:, :-shift] = torch.minimum(best[:, :-shift], near)
        best[:, shift:] = torch.minimum(best[:, shift:], vertical[:, :-shift] + shift * shift)
        shift += 1
    whole[part] = best[1:-1, 1:-1]
    return whole


@final
class _Strip:
    """Rows of labels below the picture."""

    def __init__(self, height: int, width: int) -> None:
        self.bottom, self.width = height, width
        self._left = self._top = 0
        self._empty = True

    def next(self, size: tuple[int, int]) -> tuple[int, int]:
        if self._empty or self._left + size[0] > self.width:
            self._left, self._top, self._empty = 0, self.bottom + GAP, False
        self.width = max(self.width, size[0])
        spot = (self._left, self._top)
        self._left += size[0] + GAP
        self.bottom = max(self.bottom, self._top + size[1])
        return spot


def _within(own: Tensor, used: Tensor, size: tuple[int, int], anchor: tuple[int, int]) -> tuple[int, int] | None:
    """As `_nearest`, for a box that lies wholly in a region and on nothing used."""
    rows, columns = own.any(1).nonzero(), own.any(0).nonzero()
    top, left = int(rows[0]), int(columns[0])
    part = (slice(top, int(rows[-1]) + 1), slice(left, int(columns[-1]) + 1))
    found = _nearest(used[part] | ~own[part], size, (anchor[0] - left, anchor[1] - top))
    return None if found is None else (found[0] + left, found[1] + top)


def _nearest(blocked: Tensor, size: tuple[int, int], anchor: tuple[int, int]) -> tuple[int, int] | None:
    """(left, top) of the box without a blocked pixel whose middle is nearest to the anchor; None without one."""
    width, height = size
    if height > blocked.shape[0] or width > blocked.shape[1]:
        return None
    sums = F.pad(blocked.int().cumsum(0).cumsum(1), (1, 0, 1, 0))
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    rows, columns = (inside == 0).nonzero(as_tuple=True)
    if not len(rows):
        return None
    # Twice the distances, so that they are whole numbers.
    away = (2 * rows + height - 1 - 2 * anchor[1]).square() + (2 * columns + width - 1 - 2 * anchor[0]).square()
    best = int(away.argmin())
    return int(columns[best]), int(rows[best])
