"""Pictures against class texts, trained to keep the picture's vector near and its class's text nearer still (TVP)."""

import math
from collections.abc import Sequence
from typing import final

import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import precise, source_scores


@final
class ConsistentScores(Output):
    """``y_t``: the scaled cosine of the picture to class t's text.

    Its loss, for E the picture's vector and y the class:
    ``CE(y) + consistency * mean ||E(I(x)) - E(x)||_2 - similarity * mean score_y``.

    Args:
        texts: a text for each of T classes.
        consistency: lambda_1 (0.005 in TVP's code); 0 does without what the source says of plain pictures.
        similarity: lambda_2 (0.001).

    Raises:
        ConfigError: a weight is negative or not finite.
    """

    alignment = Alignment.RULE_BASED

    def __init__(self, texts: Sequence[str], *, consistency: float = 0.005, similarity: float = 0.001) -> None:
        super().__init__()
        if not all(0 <= w < math.inf for w in (consistency, similarity)):
            raise ConfigError(say("weights", "must be finite and 0 or more", (consistency, similarity)))
        self.texts, self.consistency, self.similarity = tuple(texts), consistency, similarity

    @property
    def reading(self) -> Reading:
        """The class texts, and, while it learns, the plain pictures if they count."""
        return Reading(texts=self.texts, plain=self.training and self.consistency > 0)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        return source_scores(output, len(self.texts))

    def loss(
        self, output: SourceOutput, scores: Float[Tensor, " batch target"], target: Integer[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """What training minimises."""
        found = F.cross_entropy(scores, target) - self.similarity * scores.gather(1, target[:, None]).mean()
        if not self.consistency:
            return found
        plain = output.plain
        if output.features is None or plain is None or plain.features is None:
            raise CapabilityError(say("source", "must give the picture's vector, with edits and without", "none"))
        moved = F.pairwise_distance(precise(output.features), precise(plain.features), eps=0.0)
        return found + self.consistency * moved.mean()

    def extra_repr(self) -> str:
        """Settings."""
        return f"texts={self.texts[:3]!r}…, consistency={self.consistency}, similarity={self.similarity}"
