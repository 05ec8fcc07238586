"""A soft prompt: learned tokens among a text's embeddings (prompt tuning; Lester et al. 2021, arXiv 2104.08691)."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.inserting import Where
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import check_start, check_where, inserted


@final
class SoftPrompt(Edit):
    """``x -> [P; x]``: the n learned rows P before the embeddings x of every sequence.

    Args:
        start: [n, d], what P is at first; see `starts`. Copied.
        where: "start" (before the first token), "after_first" (after a class token), "end", or "slots" (where the
            template's `{soft:N}` are).
        site: where token embeddings are.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite, or an unknown place.

    >>> import torch
    >>> SoftPrompt(torch.ones(2, 3), where="after_first")(torch.zeros(1, 2, 3)).sum(-1).tolist()
    [[0.0, 3.0, 3.0, 0.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})
    where: Where

    def __init__(self, start: Float[Tensor, " n d"], *, where: Where = "start", site: str = "embedding") -> None:
        super().__init__()
        check_start(start, "n d")
        check_where(where)
        self.site, self.where = site, where
        self.values = nn.Parameter(start.detach().float().clone())

    @property
    def length(self) -> int:
        """The number n of tokens."""
        return len(self.values)

    def tokens(self) -> Float[Tensor, " n d"]:
        """P."""
        return self.values

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " batch longer d"]:
        """The sequences with P in them."""
        return inserted(value, self.tokens().expand(len(value), -1, -1), self.where)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, where={self.where!r}, site={self.site!r}"
