"""Small classifiers to be trained on the spot: MLP, CNN and ViT of any depth and width, and layers without gradients.

Plain layers only (linear, convolution, layer norm, embedding), so that the layer-wise kernel of a source applies.
Images are [B, channel, height, width], normalised; scores are [B, S].
"""

import itertools
from collections.abc import Iterable
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say

GRID = 4
"""A ViT cuts an image into 4 x 4 patches; a CNN pools to 4 x 4 before its head."""
TIE = 1e-3
"""What a place in a window costs against the one before it."""


@final
class Hard(nn.Module):
    """sign(x). Its derivative is 0 almost everywhere; with `through`, backward takes that of clamp(x, -1, 1) instead.

    >>> x = torch.tensor([-2.0, 0.5], requires_grad=True)
    >>> Hard(through=True)(x).sum().backward()
    >>> Hard()(x).tolist(), x.grad.tolist()
    ([-1.0, 1.0], [0.0, 1.0])
    """

    def __init__(self, *, through: bool = False) -> None:
        super().__init__()
        self.through = through

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        hard = torch.sign(x)
        if not self.through:
            return hard
        soft = x.clamp(-1, 1)
        return hard.detach() + (soft - soft.detach())  # the bracket is exactly 0


@final
class ArgmaxPool(nn.Module):
    """Where in each 2 x 2 window the largest value is, one-hot: [B, C, h, w] -> [B, 4C, h / 2, w / 2].

    Of values that are equal up to rounding, as in an even background, the first wins.

    Positions are whole numbers, so the derivative is 0; with `through`, backward takes that of a softmax.
    """

    def __init__(self, *, through: bool = False) -> None:
        super().__init__()
        self.through = through

    def forward(self, x: Tensor) -> Tensor:
        """One-hot positions; an odd last row or column is left out."""
        batch, channels, height, width = x.shape[0], x.shape[1], x.shape[2] // 2, x.shape[3] // 2
        windows = x[:, :, : 2 * height, : 2 * width].reshape(batch, channels, height, 2, width, 2)
        windows = windows.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels, 4, height, width)
        windows = windows - TIE * torch.arange(4, device=x.device, dtype=x.dtype).view(4, 1, 1)
        hard = F.one_hot(windows.argmax(2), 4).movedim(-1, 2).to(x.dtype)
        soft = windows.softmax(2) if self.through else 0.0 * windows  # 0 and not None, so that backward runs
        return (hard.detach() + (soft - soft.detach())).flatten(1, 2)


def mlp(shape: tuple[int, ...], outputs: int, depth: int, width: int, hard: nn.Module | None = None) -> nn.Module:
    """`depth` hidden layers of `width`; ReLU, or `hard` in its place."""
    sizes = [torch.Size(shape).numel(), *[width] * depth]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), hard or nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def cnn(shape: tuple[int, ...], outputs: int, depth: int, width: int, hard: nn.Module | None = None) -> nn.Module:
    """`depth` 3 x 3 convolutions of `width` channels, stride 2 in the first two, mean pooling to 4 x 4, a linear head.

    `hard` stands in the place of every ReLU, or, if it is an `ArgmaxPool`, after the first one instead of the second
    stride.
    """
    pool = isinstance(hard, ArgmaxPool)
    layers: list[nn.Module] = []
    before = shape[0]
    for i in range(depth):
        layers += [nn.Conv2d(before, width, 3, 1 if (i == 1 and pool) or i > 1 else 2, 1)]
        layers += [nn.ReLU() if hard is None or pool else hard]
        layers += [hard] if i == 0 and hard is not None and pool else []
        before = 4 * width if i == 0 and pool else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(GRID), nn.Flatten(), nn.Linear(before * GRID**2, outputs))


@final
class Attention(nn.Module):
    """Multi-head self-attention with one linear layer for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        """[B, token, width] -> the same."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


@final
class Layer(nn.Module):
    """A transformer layer, normalised before its parts."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, token, width] -> the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


@final
class ViT(nn.Module):
    """A vision transformer over 4 x 4 patches, with learned positions and the mean of the tokens as its feature."""

    def __init__(self, shape: tuple[int, ...], outputs: int, depth: int, width: int) -> None:
        super().__init__()
        if shape[1] % GRID or shape[2] % GRID or width % 8:
            got = (*shape, width)
            raise ConfigError(say("shape, width", f"must be divisible by {GRID}, the width by 8", got))
        patch = (shape[1] // GRID, shape[2] // GRID)
        self.patches = nn.Conv2d(shape[0], width, patch, patch)
        self.positions = nn.Embedding(GRID**2, width)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.layers = nn.Sequential(*(Layer(width, max(1, width // 16)) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        places = torch.arange(GRID**2, device=x.device).expand(len(x), -1)
        return self.head(self.norm(self.layers(tokens + self.positions(places))).mean(1))


def vit(shape: tuple[int, ...], outputs: int, depth: int, width: int, hard: nn.Module | None = None) -> nn.Module:
    """See `ViT`.

    Raises:
        ConfigError: a hard layer is asked for, or the sizes do not divide.
    """
    if hard is not None:
        raise ConfigError(say("hard", "must be None for a ViT", type(hard).__name__))
    return ViT(shape, outputs, depth, width)


FAMILIES = {"mlp": mlp, "cnn": cnn, "vit": vit}


@torch.no_grad()
def quantise(weights: Iterable[Tensor], bits: int) -> None:
    """Round each tensor in place to 2^bits - 1 equally spaced values around 0, at the scale of least squared error.

    >>> w = torch.tensor([0.9, -1.1, 0.1])
    >>> quantise([w], 2)
    >>> w[2].item(), (w[0] == -w[1]).item()
    (0.0, True)
    """
    if not 2 <= bits <= 16:
        raise ConfigError(say("bits", "must be from 2 to 16", bits))
    top = 2 ** (bits - 1) - 1
    for weight in weights:
        largest = float(weight.abs().max())
        if largest == 0:
            continue
        tried = [_rounded(weight, share / 20 * largest / top, top) for share in range(4, 21)]
        weight.copy_(min(tried, key=lambda t: float((t - weight).square().sum())))


def _rounded(weight: Tensor, step: float, top: int) -> Tensor:
    return (weight / step).round().clamp(-top, top) * step
