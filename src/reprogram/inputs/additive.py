"""A learned pattern that is added to the value: full image, frame, or everything around a hole.

Slots: *where* (a mask), *how its values are bounded* (squash), *before or after normalisation* (the site).
Only the values under the mask are stored, so a program holds nothing that cannot reach the output.
"""

from collections.abc import Callable
from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator

Squash = Literal["none", "sigmoid", "tanh", "clamp"]
Init = Literal["zeros", "normal"]

_SQUASH: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda v: v,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "clamp": lambda v: v.clamp(0, 1),
}


def frame_mask(canvas: int, width: int) -> Bool[Tensor, " height width"]:
    """True in a frame of `width` pixels along the edge; all True from `width` = canvas / 2 on.

    >>> int(frame_mask(224, 30).sum()) * 3  # the 69,840 numbers of VP (Bahng et al. 2022)
    69840
    """
    if not width >= 1:
        raise ConfigError(say("width", "must be at least 1 pixel", width))
    mask = torch.ones(canvas, canvas, dtype=torch.bool)
    mask[width : canvas - width, width : canvas - width] = False
    return mask


def around_mask(canvas: int, height: int, width: int) -> Bool[Tensor, " height width"]:
    """True outside the centred hole of height x width pixels where `Place` puts the image.

    >>> int(around_mask(224, 128, 128).sum()) * 3
    101376
    """
    if not (1 <= height <= canvas and 1 <= width <= canvas):
        raise ConfigError(say("hole", f"must fit the canvas of {canvas} pixels", (height, width)))
    if height == canvas and width == canvas:
        remedy = "Make `inner` smaller than the canvas, so that there is a frame to learn."
        raise ConfigError(say("hole", "must leave pixels around it", (height, width), remedy))
    mask = torch.ones(canvas, canvas, dtype=torch.bool)
    top, left = (canvas - height + 1) // 2, (canvas - width + 1) // 2
    mask[top : top + height, left : left + width] = False
    return mask


def full_mask(canvas: int) -> Bool[Tensor, " height width"]:
    """True everywhere."""
    return torch.ones(canvas, canvas, dtype=torch.bool)


@final
class Additive(Edit):
    """``value + squash(delta) * mask`` (or ``squash(delta * mask)``), delta learned.

    Args:
        mask: [height, width], where the pattern may be.
        channels: of the image.
        squash: "sigmoid" (frames of ILM-VP and BLM: zeros start as mid-grey, *not* as no change), "tanh", "clamp" to
            [0, 1], or "none" (watermarks).
        init: "zeros" or "normal" (N(0, 1)).
        site: "input" adds to pixels in [0, 1], "normalised" to what the network sees.
        squash_hole: mask before squashing, as Elsayed et al. write it: with a sigmoid 0.5 then also enters the hole.

    The learned numbers are `values` [channels, pixels under the mask].
    """

    operators = frozenset({Operator.ADDITIVE})
    pixels: Tensor

    def __init__(
        self,
        mask: Bool[Tensor, " height width"],
        *,
        channels: int = 3,
        squash: Squash = "none",
        init: Init = "zeros",
        site: str = "input",
        squash_hole: bool = False,
    ) -> None:
        super().__init__()
        if squash not in _SQUASH:
            raise ConfigError(say("squash", f"must be one of {list(_SQUASH)}", squash))
        if not mask.any():
            raise ConfigError(say("mask", "must leave pixels to learn", "an empty mask"))
        self.site, self.squash = site, squash
        pixels = mask.flatten().nonzero().squeeze(1)
        values = torch.zeros(channels, len(pixels))
        self.values = nn.Parameter(values if init == "zeros" else torch.randn_like(values))
        self.register_buffer("pixels", pixels, persistent=False)
        self._everywhere = bool(mask.all())
        self.hole = float(_SQUASH[squash](torch.zeros(()))) if squash_hole else 0.0
        self.shape = (channels, *mask.shape)

    def pattern(self) -> Float[Tensor, " channel height width"]:
        """What is added to every image: the squashed values where the mask is, `hole` elsewhere."""
        bounded = _SQUASH[self.squash](self.values)
        if self._everywhere:
            return bounded.view(self.shape)
        flat = bounded.new_full((self.shape[0], self.shape[1] * self.shape[2]), self.hole)
        return flat.index_copy(1, self.pixels, bounded).view(self.shape)

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel height width"]:
        """The images with the pattern added."""
        if value.shape[1:] != self.shape:
            msg = say("value", f"must be images of {list(self.shape)} at `{self.site}`", list(value.shape[1:]))
            raise ConfigError(msg)
        return value + self.pattern().to(value.dtype)

    def pull(
        self,
        value: Float[Tensor, " batch channel height width"],
        cotangent: Float[Tensor, " batch target channel height width"],
    ) -> tuple[Float[Tensor, " batch target learned"], None]:
        """See `core.pulling`: the cotangent under the mask, times the slope of the squash."""
        with torch.enable_grad():
            values = self.values.detach().requires_grad_()
            (slope,) = torch.autograd.grad(_SQUASH[self.squash](values).sum(), values)
        flat = cotangent.flatten(3)
        under = flat if self._everywhere else flat.index_select(3, self.pixels)
        return (under * slope.to(under.dtype) if self.squash != "none" else under).flatten(2), None

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, squash={self.squash!r}, site={self.site!r}"
