"""A learned change of the token table of a frozen text tower, as far as its class texts use it."""

from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator


@final
class TokenDelta(Edit):
    """``E[id] -> E[id] + D[id]`` for every token of the class texts, and ``+ P[l]`` at position l.

    D has a row for each token that is there: texts that share a word share its row. A table of tokens (and one of
    positions) that is trained on these texts gives the same; but it would be the source that changes, and 25 million
    numbers of CLIP that are stored, of which all but these get no gradient.

    Args:
        ids: [T, tokens], the class texts in order.
        mask: [T, tokens], False at padding, which is left as it is.
        width: d of the table.
        positions: learn P as well.
        site: where the text tower's embeddings are.

    Raises:
        ConfigError: shapes that differ, no token, or a width below 1.

    The learned numbers are `values` [distinct tokens, d] and `places` [tokens, d]; zeros at first, which is no change.

    >>> delta = TokenDelta(torch.tensor([[5, 7], [5, 0]]), torch.tensor([[True, True], [True, False]]), 4)
    >>> delta.values.shape, delta.places.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    operators = frozenset({Operator.ADDITIVE})
    index: Tensor
    mask: Tensor

    def __init__(
        self, ids: Int[Tensor, "..."], mask: Bool[Tensor, "..."], width: int, *, positions: bool = True,
        site: str = "text.embedding",
    ) -> None:  # fmt: skip
        super().__init__()
        if ids.ndim != 2 or ids.shape != mask.shape or width < 1 or not bool(mask.any()):
            got = f"ids {list(ids.shape)}, mask {list(mask.shape)}, width {width}"
            raise ConfigError(say("class texts", "must be token ids [T, tokens] with their mask", got))
        self.site = site
        there = torch.bincount(ids[mask]) > 0
        self.values = nn.Parameter(torch.zeros(int(there.sum()), width))
        self.places = nn.Parameter(torch.zeros(ids.shape[1], width)) if positions else None
        rows = torch.zeros_like(ids)
        rows[mask] = there.cumsum(0)[ids[mask]] - 1
        self.register_buffer("index", rows, persistent=False)
        self.register_buffer("mask", mask[..., None].clone(), persistent=False)

    def forward(self, value: Float[Tensor, " text tokens d"]) -> Float[Tensor, " text tokens d"]:
        """The class texts' embeddings, changed."""
        if value.shape[:2] != self.index.shape:
            raise ConfigError(say("class texts", f"must be {list(self.index.shape)} tokens", list(value.shape[:2])))
        delta = self.values[self.index]
        if self.places is not None:
            delta = delta + self.places
        return value + torch.where(self.mask, delta, 0.0).to(value.dtype)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, positions={self.places is not None}, site={self.site!r}"
