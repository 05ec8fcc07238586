"""A U-Net that redraws the picture: the parametric edit of REFINE (Chen et al. 2025, arXiv 2502.18508)."""

from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator


@final
class UNet(nn.Module):
    """Ronneberger et al.'s network with four levels, batch norm and bilinear upsampling: [B, C, h, w] to the same.

    A map of fewer than 4 pixels a side, which pictures below 32 come to, is not halved any more.

    Args:
        channels: C.
        width: channels of the first level; 2, 4, 8 and 8 times as many in the others.

    >>> sum(p.numel() for p in UNet(3, 64).parameters()), sum(p.numel() for p in UNet(3, 32).parameters())
    (17267523, 4320675)
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        if width < 2:
            raise ConfigError(say("width", "must be 2 or more channels", width))
        down = [width * n for n in (1, 2, 4, 8, 8)]
        up = [width * n for n in (4, 2, 1, 1)]
        self.first = _double(channels, down[0], down[0])
        self.down = nn.ModuleList(_double(a, b, b) for a, b in pairwise(down))
        joined = [down[4] + down[3], up[0] + down[2], up[1] + down[1], up[2] + down[0]]
        self.up = nn.ModuleList(_double(a, a // 2, b) for a, b in zip(joined, up, strict=True))
        self.last = nn.Conv2d(up[-1], channels, 1)

    def forward(self, x: Float[Tensor, " batch channel height width"]) -> Float[Tensor, " batch channel height width"]:
        """The redrawn picture, unbounded."""
        kept = [self.first(x)]
        for level in self.down:
            above = kept[-1]
            kept.append(level(F.max_pool2d(above, 2) if min(above.shape[-2:]) >= 4 else above))
        value = kept.pop()
        for level in self.up:
            beside = kept.pop()
            value = F.interpolate(value, beside.shape[-2:], mode="bilinear", align_corners=True)
            value = level(torch.cat([beside, value], 1))
        return self.last(value)


@final
class Redraw(Edit):
    """``clamp(UNet(x), 0, 1)``: every pixel is made anew from the whole picture.

    The last layer's bias starts at 0.5, mid-grey: where the clamp cuts there is no gradient, and from 0 it may cut
    every pixel for ever.

    Args:
        channels: of the picture.
        width: of the U-Net's first level.

    Raises:
        ConfigError: a width below 2; when used, pictures of fewer than 2 pixels a side.
    """

    site = "input"
    operators = frozenset({Operator.PARAMETRIC})

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.network = UNet(channels, width)
        assert self.network.last.bias is not None
        nn.init.constant_(self.network.last.bias, 0.5)

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel height width"]:
        """Pictures in [0, 1]."""
        if min(value.shape[-2:]) < 2:
            raise ConfigError(say("value", "must be pictures of at least 2 pixels a side", list(value.shape[-2:])))
        return self.network(value).clamp(0, 1)

    def effective(self) -> int:
        """All but the biases of convolutions before a batch norm, which takes every constant off again.

        >>> edit = Redraw(3, 2)
        >>> sum(p.numel() for p in edit.parameters()) - edit.effective()
        138
        """
        numbers = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return numbers - sum(m.num_features for m in self.network.modules() if isinstance(m, nn.BatchNorm2d))

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"width={self.width}"


def _double(before: int, middle: int, after: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch norm and ReLU; their biases, which batch norm takes off, as published."""
    return nn.Sequential(
        nn.Conv2d(before, middle, 3, padding=1), nn.BatchNorm2d(middle), nn.ReLU(),
        nn.Conv2d(middle, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
    )  # fmt: skip
