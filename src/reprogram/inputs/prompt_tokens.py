"""Learned tokens among the patches of a vision transformer (VPT; Jia et al. 2022, arXiv 2203.12119)."""

from math import sqrt
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.source import Source, local_module
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import check_start


@final
class PromptTokens(Edit):
    """``[c, x] -> [c, P, x]``: n learned tokens between the class token(s) c and the patches x, without positions.

    Args:
        start: [n, d], what P is at first; see `uniform_start`. Copied.
        site: where the sequences [batch, tokens, d] are that the first block reads, positions already added.
        after: how many tokens c is (1 for a class token alone, 2 with one for distillation, 0 for none).
        dropout: of P's numbers while training.

    Raises:
        ConfigError: a start of another shape, or a setting out of range.

    >>> edit = PromptTokens(torch.full((2, 1), 7.0))
    >>> edit(torch.tensor([[[0.0], [1.0], [2.0]]])).squeeze(-1).tolist()
    [[0.0, 7.0, 7.0, 1.0, 2.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(
        self, start: Float[Tensor, " n d"], *, site: str = "embedding", after: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check(start, after, dropout)
        self.site, self.after = site, after
        self.values = nn.Parameter(start.detach().float().clone())
        self.dropout = nn.Dropout(dropout)

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " batch longer d"]:
        """The sequences with P in them."""
        return _between(value, self.dropout, self.values, self.after, skip=0)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, after={self.after}, site={self.site!r}"


@final
class ReplacedTokens(Edit):
    """``[c, q, x] -> [c, P, x]``: what became of the n tokens that `PromptTokens` put there gives way to fresh ones.

    With one at every block after the first this is VPT-deep: the length stays, so masks and pooling do too.

    Args:
        start: [n, d], n as many as were put there.
        site: what a block reads, "hidden.i".
        after: as for `PromptTokens`.
        dropout: of P's numbers while training.

    Raises:
        ConfigError: a start of another shape, or a setting out of range.

    >>> edit = ReplacedTokens(torch.full((2, 1), 7.0), site="hidden.1")
    >>> edit(torch.tensor([[[0.0], [5.0], [6.0], [1.0]]])).squeeze(-1).tolist()
    [[0.0, 7.0, 7.0, 1.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, start: Float[Tensor, " n d"], *, site: str, after: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        _check(start, after, dropout)
        self.site, self.after = site, after
        self.values = nn.Parameter(start.detach().float().clone())
        self.dropout = nn.Dropout(dropout)

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " batch tokens d"]:
        """The sequences with fresh tokens in the n places."""
        return _between(value, self.dropout, self.values, self.after, skip=len(self.values))

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, after={self.after}, site={self.site!r}"


def uniform_start(n: int, d: int, patch: tuple[int, int]) -> Float[Tensor, " n d"]:
    """U(-v, v) with ``v = sqrt(6 / (3 * height * width + d))`` for patches of height x width pixels, as published.

    >>> bool(uniform_start(50, 768, (16, 16)).abs().max() <= (6 / (3 * 256 + 768)) ** 0.5)
    True
    """
    if n < 1:
        raise ConfigError(say("tokens", "must be 1 or more", n))
    bound = sqrt(6 / (3 * patch[0] * patch[1] + d))
    return torch.empty(n, d).uniform_(-bound, bound)


def patch_size(source: Source, default: int = 16) -> tuple[int, int]:
    """Height and width of a vision transformer's patches: of its first convolution that strides by its own size.

    `default` where there is none to be seen.
    """
    module = local_module(source)
    for part in module.modules() if module is not None else ():
        if isinstance(part, nn.Conv2d) and part.kernel_size == part.stride and max(part.stride) > 1:
            return part.kernel_size[0], part.kernel_size[1]
    return default, default


def _check(start: Tensor, after: int, dropout: float) -> None:
    check_start(start, "n d")
    if after < 0:
        raise ConfigError(say("after", "must be 0 or more tokens", after))
    if not 0 <= dropout < 1:
        raise ConfigError(say("dropout", "must be in [0, 1)", dropout))


def _between(value: Tensor, dropout: nn.Module, prompt: Tensor, after: int, skip: int) -> Tensor:
    if value.shape[-1] != prompt.shape[1] or value.shape[1] < after + skip:
        need = f"must be sequences of width {prompt.shape[1]} and at least {after + skip} tokens"
        raise ConfigError(say("value", need, list(value.shape)))
    fresh = dropout(prompt.expand(len(value), -1, -1)).to(value.dtype)
    return torch.cat([value[:, :after], fresh, value[:, after + skip :]], dim=1)
