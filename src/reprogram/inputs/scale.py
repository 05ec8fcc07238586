"""A learned size of the image inside a learned frame (AutoVP; Tsao et al. 2024, arXiv 2310.08381)."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs.place import Place

SMALLEST, LARGEST = 0.1, 5.0
"""Between which AutoVP's code keeps the scale."""


def scaled_about_centre(
    images: Float[Tensor, " batch channel height width"], scale: Float[Tensor, ""]
) -> Float[Tensor, " batch channel height width"]:
    """Enlarge pictures about the middle of their canvas, which keeps its size; what is beyond the edge reads as 0.

    Pixel p of the result is read, bilinearly, at ``c + (p - c) / scale`` with ``c = (P - 1) / 2`` on each axis.
    Differentiable in both arguments.

    Args:
        images: [B, channel, height, width].
        scale: above 1 enlarges.

    >>> row = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]).expand(1, 1, 6, 6)
    >>> [round(v, 4) for v in scaled_about_centre(row, torch.tensor(2.0))[0, 0, 3].tolist()]
    [0.25, 0.75, 1.0, 1.0, 0.75, 0.25]
    """
    inverse = scale.to(images.dtype).reciprocal()
    zero = torch.zeros_like(inverse)
    matrix = torch.stack([torch.stack([inverse, zero, zero]), torch.stack([zero, inverse, zero])])
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@final
class ScaledFrame(Edit):
    """``scale(pad(resize(x)), s) + sigmoid(delta) * mask(s)``: frame and size of the image learned together.

    The image's longer side is brought to `inner` pixels, the rest of the canvas is 0, and the whole is scaled by s
    about its centre. The mask is 1 outside the centred hole of ``min(floor(side * s), P)`` pixels that the image then
    fills; no gradient goes through it. s is learned like delta and kept between 0.1 and 5: it is put back before every
    pass of training, and read within these limits anyway. A shrinking image so gives its border to the frame, whose
    numbers are there for the whole canvas; `effective` counts those outside the hole.

    Args:
        canvas: P, pixels of the source's square input.
        inner: B, pixels of the image's longer side at s = 1, at most P.
        shape: (channel, height, width) of the task's images.
        start: s at the start; AutoVP tries 0.5, 1 and 1.5.

    Raises:
        ConfigError: inner is not between 1 and P, or the start not between 0.1 and 5.

    >>> edit = ScaledFrame(8, 4, (1, 4, 4), start=1.5)
    >>> int(edit.mask().sum()), edit.effective()
    (28, 29)
    """

    site = "input"
    operators = frozenset({Operator.ADDITIVE, Operator.PARAMETRIC})

    def __init__(self, canvas: int, inner: int, shape: tuple[int, ...], start: float = 1.0) -> None:
        super().__init__()
        if not SMALLEST <= start <= LARGEST:
            raise ConfigError(say("scale", f"must be between {SMALLEST} and {LARGEST:g}", start))
        self.place = Place(canvas, inner, "bilinear")
        self.canvas, self.shape = canvas, tuple(shape)
        self.sides = self.place.size(*self.shape[-2:])
        self.values = nn.Parameter(torch.zeros(self.shape[0], canvas, canvas))
        self.scale = nn.Parameter(torch.tensor(float(start)))

    def limited(self) -> Float[Tensor, ""]:
        """S, between 0.1 and 5; at a limit, too, its gradient reaches the learned number, which can so come back."""
        with torch.no_grad():
            beyond = self.scale.clamp(SMALLEST, LARGEST) - self.scale
        return self.scale + beyond

    def hole(self) -> Int[Tensor, " axis"]:
        """Height and width in pixels of what the scaled image covers."""
        sides = torch.tensor(self.sides, device=self.scale.device)
        return (sides * self.limited().detach().float()).floor().clamp(max=self.canvas).to(torch.int64)

    def mask(self) -> Bool[Tensor, " height width"]:
        """True outside the hole, where the frame is."""
        hole, place = self.hole(), torch.arange(self.canvas, device=self.scale.device)
        start = (self.canvas - hole + 1) // 2
        inside = (place >= start.unsqueeze(1)) & (place < (start + hole).unsqueeze(1))
        return ~(inside[0].unsqueeze(1) & inside[1])

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel canvas canvas"]:
        """The images, scaled, in their frame."""
        if value.shape[1:] != self.shape:
            raise ConfigError(say("value", f"must be images of {list(self.shape)}", list(value.shape[1:])))
        if self.training:
            with torch.no_grad():
                self.scale.clamp_(SMALLEST, LARGEST)
        inside = scaled_about_centre(self.place(value), self.limited())
        return inside + (torch.sigmoid(self.values) * self.mask()).to(inside.dtype)

    def effective(self) -> int:
        """The frame's numbers outside the hole, and s."""
        return self.shape[0] * int(self.mask().sum()) + 1

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"canvas={self.canvas}, sides={self.sides}, scale={float(self.limited().detach()):.3g}"
