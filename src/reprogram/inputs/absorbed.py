"""Class prompts that join the tokens at one block and leave after it (TransHP; arXiv 2304.06385)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import check_start


@final
class JoiningTokens(Edit):
    """``x -> [x, P]``: n learned tokens at the end of what a block reads, so that attention may take them up.

    Args:
        start: [n, d], what P is at first. Copied.
        site: "hidden.i", what the block reads.

    Raises:
        ConfigError: a start of another shape.

    >>> JoiningTokens(torch.full((2, 1), 7.0), site="hidden.0")(torch.zeros(1, 1, 1)).squeeze(-1).tolist()
    [[0.0, 7.0, 7.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, start: Float[Tensor, " n d"], *, site: str) -> None:
        super().__init__()
        check_start(start, "n d")
        self.site = site
        self.values = nn.Parameter(start.detach().float().clone())

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " batch longer d"]:
        """The sequences with P behind them."""
        if value.shape[-1] != self.values.shape[1]:
            raise ConfigError(say("value", f"must be tokens of width {self.values.shape[1]}", list(value.shape)))
        return torch.cat([value, self.values.to(value.dtype).expand(len(value), -1, -1)], 1)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, site={self.site!r}"


@final
class LeavingTokens(Edit):
    """``[x, Q] -> x``: what became of the n tokens that joined a block before goes no further.

    Nothing is learned and nothing manipulated: it undoes the change of shape.

    Args:
        n: tokens at the end.
        site: "hidden.i", what the next block reads.
    """

    operators = frozenset()

    def __init__(self, n: int, *, site: str) -> None:
        super().__init__()
        self.n, self.site = n, site

    def forward(self, value: Float[Tensor, " batch longer d"]) -> Float[Tensor, " batch tokens d"]:
        """The sequences without their last n tokens."""
        if value.shape[1] <= self.n:
            raise ConfigError(say("value", f"must have more than {self.n} tokens", list(value.shape)))
        return value[:, : -self.n]

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"n={self.n}, site={self.site!r}"
