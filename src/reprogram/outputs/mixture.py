"""Answers of several prompts to one input, weighed by learned weights (Qin and Eisner 2021, arXiv 2104.06599)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.outputs._checks import check_sizes


@final
class MixtureOfAnswers(Output):
    """``y = log sum_k softmax(w)_k p_k``: p_k the probabilities that `inner` gives under prompt k, w learned.

    Rows come K to an input, as `inputs.PromptMixture` makes them. The alignment is that of `inner`. y is
    log-probabilities already, which a softmax leaves as they are.

    Args:
        inner: reads each row's answer.
        variants: K.

    Raises:
        ConfigError: K is below 1.

    >>> from reprogram.outputs.identity import Identity
    >>> both = SourceOutput(torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log())
    >>> MixtureOfAnswers(Identity(), 2)(both).exp().mul(10).round().tolist()
    [[7.0, 3.0]]
    """

    def __init__(self, inner: Output, variants: int) -> None:
        super().__init__()
        check_sizes(variants, variants)
        self.inner, self.variants, self.alignment = inner, variants, inner.alignment
        self.weights = nn.Parameter(torch.zeros(variants))

    @property
    def reading(self) -> Reading:
        """What `inner` needs."""
        return self.inner.reading

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Log-probabilities of the mixture."""
        rows = self.inner(output)
        if rows.ndim != 2:
            raise ConfigError(say("inner", "must give a score a class", list(rows.shape)))
        if len(rows) % self.variants:
            raise DataError(say("rows", f"must come {self.variants} to an input", len(rows)))
        each = rows.log_softmax(-1).view(-1, self.variants, rows.shape[1])
        return (each + self.weights.to(each.dtype).log_softmax(0).unsqueeze(1)).logsumexp(1)
