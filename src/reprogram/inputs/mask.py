"""A pattern seen through a mask that a small network makes for each image (SMM; Cai et al. 2024, arXiv 2406.03150)."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator


@final
class SampleMask(Edit):
    """``x + delta * up(g(x))``: g a small convolutional network, up a copy of each mask cell to a patch of pixels.

    g: 3x3 convolutions 3 -> 8 -> 16 -> 32 -> 64 with batch norm and ReLU, max-pooling by 2 after the first
    ``log2(patch)`` of them, and a last one to the image's channels, without an activation (the paper's 5-layer
    generator; `layers=6` adds 64 -> 128 for vision transformers). delta starts at zeros.

    Args:
        canvas: pixels of the square image. A canvas that `patch` does not divide repeats the last cells at the edge.
        patch: pixels that share one mask cell, a power of two up to 16 (paper: 8).
        layers: 5 or 6 convolutions.
        channels: of the image.
        site: "normalised" as published.

    >>> sum(p.numel() for p in SampleMask(224).generator.parameters())  # table 4 of the paper
    26499
    """

    operators = frozenset({Operator.ADDITIVE, Operator.PARAMETRIC})

    def __init__(
        self, canvas: int, *, patch: int = 8, layers: int = 5, channels: int = 3, site: str = "normalised"
    ) -> None:
        super().__init__()
        pools = patch.bit_length() - 1
        if patch < 1 or 1 << pools != patch or pools > 4:
            raise ConfigError(say("patch", "must be 1, 2, 4, 8 or 16 pixels", patch))
        if layers not in (5, 6):
            raise ConfigError(say("layers", "must be 5 or 6", layers))
        if canvas < patch:
            raise ConfigError(say("canvas", f"must be at least one patch of {patch} pixels", canvas))
        self.site, self.patch = site, patch
        self.values = nn.Parameter(torch.zeros(channels, canvas, canvas))
        self.generator = _generator(channels, [8, 16, 32, 64, 128][: layers - 1], pools)

    def mask(self, value: Float[Tensor, " batch channel height width"]) -> Float[Tensor, " batch channel height width"]:
        """The mask of each image, at the image's size."""
        cells = self.generator(value)
        height, width = value.shape[-2:]
        mask = cells.repeat_interleave(self.patch, -2).repeat_interleave(self.patch, -1)
        missing = (0, width - mask.shape[-1], 0, height - mask.shape[-2])
        return F.pad(mask, missing, mode="replicate") if any(missing) else mask

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel height width"]:
        """The images with their masked patterns added."""
        if value.shape[1:] != self.values.shape:
            msg = say("value", f"must be images of {list(self.values.shape)}", list(value.shape[1:]))
            raise ConfigError(msg)
        return torch.addcmul(value, self.values.to(value.dtype), self.mask(value).to(value.dtype))

    def effective(self) -> int:
        """All but the biases of convolutions that a batch norm follows: it takes them out again."""
        lost = sum(m.bias.numel() for m in list(self.generator)[:-1] if isinstance(m, nn.Conv2d) and m.bias is not None)
        return sum(p.numel() for p in self.parameters()) - lost


def _generator(channels: int, widths: list[int], pools: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = channels
    for index, width in enumerate(widths):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if index < pools else []
        before = width
    return nn.Sequential(*layers, nn.Conv2d(before, channels, 3, padding=1))
