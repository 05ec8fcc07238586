"""The identity alignment: source classes are the target's classes."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import precise, source_scores


@final
class Identity(Output):
    """``y = f(x)``, in float32 at least.

    Args:
        sources: S, which is T here too; None takes whatever comes, but cannot be folded.

    Raises:
        ConfigError: S is below 1.

    >>> Identity()(SourceOutput(torch.tensor([[1.0, -2.0]]))).tolist()
    [[1.0, -2.0]]
    """

    alignment = Alignment.IDENTITY

    def __init__(self, sources: int | None = None) -> None:
        super().__init__()
        if sources is not None and sources < 1:
            raise ConfigError(say("sources", "must be 1 or more, or None", sources))
        self.sources = sources

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """The scores [B, S] as they are."""
        return precise(output.logits) if self.sources is None else source_scores(output, self.sources)

    def fold(self) -> Float[Tensor, " source target"]:
        """The identity matrix.

        Raises:
            ConfigError: S is not known.
        """
        if self.sources is None:
            raise ConfigError(say("sources", "must be given for a matrix of the identity", None))
        return torch.eye(self.sources)

    def offset(self) -> Float[Tensor, " target"]:
        """Zeros [T], what is to be added to ``scores @ fold()``.

        Raises:
            ConfigError: S is not known.
        """
        return torch.zeros(len(self.fold()))
