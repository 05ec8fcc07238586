"""Placement: how a task's image gets onto the source's canvas. A change of shape, not a manipulation (no operator)."""

from typing import Literal, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit


@final
class Place(Edit):
    """Scale the image and centre it on a square canvas of zeros.

    With a canvas of P pixels and an image of h: `(P - h + 1) // 2` zeros before and `(P - h) // 2` after, on each axis
    (the padding of ILM-VP, BLM and AutoVP). Values stay in [0, 1].

    Args:
        canvas: P, pixels of the source's input.
        inner: pixels of the longer side after scaling; None keeps the image's own size, and scales it down only
            if it is larger than the canvas.
        interpolation: "bicubic" (default) or "bilinear", both antialiased when scaling down, or "nearest".

    >>> import torch
    >>> Place(8, 4)(torch.ones(1, 3, 2, 2)).sum(dim=(1, 2, 3)).item()
    48.0
    """

    site = "input"
    operators = frozenset()

    def __init__(
        self, canvas: int, inner: int | None = None,
        interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic",
    ) -> None:  # fmt: skip
        super().__init__()
        if canvas < 1:
            raise ConfigError(say("canvas", "must be at least 1 pixel", canvas))
        if inner is not None and not 1 <= inner <= canvas:
            raise ConfigError(say("inner", f"must be between 1 and the canvas of {canvas} pixels", inner))
        self.canvas, self.inner, self.interpolation = canvas, inner, interpolation

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after scaling: the hole that a pattern around it must leave.

        >>> Place(128, 96).size(32, 24), Place(128).size(32, 32), Place(128).size(256, 128)
        ((96, 72), (32, 32), (128, 64))
        """
        longer = max(height, width)
        target = self.inner or min(longer, self.canvas)
        return (
            (height, width) if longer == target else (_scaled(height, target, longer), _scaled(width, target, longer))
        )

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel canvas canvas"]:
        """Scaled and padded images."""
        height, width = self.size(value.shape[-2], value.shape[-1])
        if (height, width) != tuple(value.shape[-2:]):
            smooth = self.interpolation != "nearest"
            shrink = smooth and height < value.shape[-2]
            value = F.interpolate(value, (height, width), mode=self.interpolation, antialias=shrink,
                                  align_corners=False if smooth else None)  # fmt: skip
            value = value.clamp(0, 1) if self.interpolation == "bicubic" else value
        left, top = (self.canvas - width + 1) // 2, (self.canvas - height + 1) // 2
        right, bottom = self.canvas - width - left, self.canvas - height - top
        return F.pad(value, (left, right, top, bottom)) if left or right or top or bottom else value

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"canvas={self.canvas}, inner={self.inner}, interpolation={self.interpolation!r}"


def _scaled(side: int, target: int, longer: int) -> int:
    return max(1, (side * target + longer // 2) // longer)
