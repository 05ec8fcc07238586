"""Several soft prompts, with each of which every input is read (Qin and Eisner 2021, arXiv 2104.06599)."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.inserting import Where
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import check_start, check_where, inserted


@final
class PromptMixture(Edit):
    """``x -> [P_1; x], ..., [P_K; x]``: K times as many sequences, those of one input next to one another.

    The output must bring the K answers of each input together: `outputs.MixtureOfAnswers`. At "text.embedding" it is
    every class text that is read with K sets of words: `outputs.TransportScores`.

    Args:
        start: [K, n, d], what the prompts are at first. They must differ, or they stay the same for ever.
        where: see `SoftPrompt`.
        site: where token embeddings are.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite, or an unknown place.

    >>> import torch
    >>> mixture = PromptMixture(torch.tensor([[[1.0]], [[2.0]]]))
    >>> mixture(torch.tensor([[[5.0]], [[6.0]]])).squeeze(-1).tolist()
    [[1.0, 5.0], [2.0, 5.0], [1.0, 6.0], [2.0, 6.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})
    where: Where

    def __init__(self, start: Float[Tensor, " k n d"], *, where: Where = "start", site: str = "embedding") -> None:
        super().__init__()
        check_start(start, "k n d")
        check_where(where)
        self.site, self.where = site, where
        self.values = nn.Parameter(start.detach().float().clone())

    @property
    def length(self) -> int:
        """The number n of tokens."""
        return self.values.shape[1]

    def tokens(self) -> Float[Tensor, " k n d"]:
        """P_1 to P_K."""
        return self.values

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " rows longer d"]:
        """Each sequence with each prompt, [batch * K, n + tokens, d]."""
        prompts = self.tokens()
        rows = value.repeat_interleave(len(prompts), 0)
        return inserted(rows, prompts.repeat(len(value), 1, 1), self.where)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, where={self.where!r}, site={self.site!r}"
