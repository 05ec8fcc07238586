"""A learned patch of pixels at a fixed or a random place (Bahng et al. 2022, the smaller prompts of VP)."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator


@final
class Patch(Edit):
    """Add a p x p patch at the top left corner, or at a fresh uniformly random place for every *batch*.

    Args:
        canvas: pixels of the square image.
        size: p, pixels.
        where: "top_left" or "random". In eval mode a random patch sits in the middle, so that predictions repeat
            (the authors' code keeps it random; a departure).
        channels: of the image.
        site: "normalised" as published.
    """

    operators = frozenset({Operator.ADDITIVE})

    def __init__(
        self, canvas: int, size: int, *, where: Literal["top_left", "random"] = "top_left", channels: int = 3,
        site: str = "normalised",
    ) -> None:  # fmt: skip
        super().__init__()
        if not 1 <= size <= canvas:
            raise ConfigError(say("size", f"must be between 1 and the canvas of {canvas} pixels", size))
        self.site, self.canvas, self.size, self.where = site, canvas, size, where
        self.values = nn.Parameter(torch.randn(channels, size, size))

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel height width"]:
        """The images with the patch added."""
        top, left = self._corner()
        right, bottom = self.canvas - self.size - left, self.canvas - self.size - top
        return value + nn.functional.pad(self.values, (left, right, top, bottom)).to(value.dtype)

    def pull(
        self,
        value: Float[Tensor, " batch channel height width"],
        cotangent: Float[Tensor, " batch target channel height width"],
    ) -> tuple[Float[Tensor, " batch target learned"], None]:
        """See `core.pulling`: the cotangent where the patch sits (in eval mode, the middle of a random one)."""
        top, left = self._corner()
        return cotangent[..., top : top + self.size, left : left + self.size].flatten(2), None

    def _corner(self) -> tuple[int, int]:
        room = self.canvas - self.size
        if self.where == "top_left":
            return 0, 0
        if not self.training:
            return room // 2, room // 2
        top, left = torch.randint(0, room + 1, (2,))
        return int(top), int(left)
