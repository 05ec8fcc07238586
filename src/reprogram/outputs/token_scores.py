"""The identity alignment of language models: scores of the vocabulary are what is wanted, at every token."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import precise


@final
class TokenScores(Output):
    """``y = f(x)`` at every token that is to predict one, or at the input's own tokens, in float32 at least.

    For generation, and for programs without a task.

    >>> import torch
    >>> TokenScores()(SourceOutput(token_scores=torch.zeros(7, 100))).shape
    torch.Size([7, 100])
    """

    alignment = Alignment.IDENTITY

    @property
    def reading(self) -> Reading:
        """Scores at tokens."""
        return Reading(tokens=True)

    def forward(self, output: SourceOutput) -> Float[Tensor, " *place vocabulary"]:
        """Scores of the vocabulary: [M, V] for the M tokens of all targets, else [B, tokens, V]."""
        if output.token_scores is None:
            raise CapabilityError(say("output", "must come with scores at tokens", None, "Take a language model."))
        return precise(output.token_scores)
