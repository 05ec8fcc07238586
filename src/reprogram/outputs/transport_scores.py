"""Pictures against class texts as sets of vectors each: what a class's set gets by the best transport (PLOT)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs.transport import PUBLISHED, Transport, transported


@final
class TransportScores(Output):
    """``y_t = scale * sum(T * sim)`` for the cosines sim [M, N] of M vectors of the picture with N of class t's text.

    T is the transport plan of the cost ``1 - sim`` between uniform weights (Chen et al. 2023, section 3.2).

    Args:
        texts: T class texts, one a class.
        sets: N, variants that the text side makes of each.
        pictures: M, rows that the image side makes of each picture; None for the vectors of the picture's own parts.
        transport: how the plan is found.
        pooled: also add the scaled cosine of the means: of the picture's vector (or M rows) and of the N texts.
        scaled: factor of the cosines, and what is added: `(source.scale, source.bias)`.

    Raises:
        ConfigError: there are no texts, or sets or pictures are below 1.

    With one vector each the plan is 1 and the score the cosine:

    >>> one = TransportScores(("a", "b"), 1, pictures=1)
    >>> said = SourceOutput(features=torch.tensor([[1.0, 0.0]]), texts=torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    >>> [round(v, 4) for v in one(said)[0].tolist()]
    [1.0, 0.6]
    """

    alignment = Alignment.RULE_BASED

    def __init__(
        self,
        texts: Sequence[str],
        sets: int,
        *,
        pictures: int | None = None,
        transport: Transport = PUBLISHED,
        pooled: bool = False,
        scaled: tuple[float, float] = (1.0, 0.0),
    ) -> None:
        super().__init__()
        if not texts or sets < 1 or (pictures is not None and pictures < 1):
            raise ConfigError(say("sets", "must be 1 or more, of 1 text or more", (len(texts), sets, pictures)))
        self.texts, self.sets, self.pictures = tuple(texts), sets, pictures
        self.transport, self.pooled = transport, pooled
        self.scale, self.bias = scaled

    @property
    def reading(self) -> Reading:
        """The class texts, and the vectors of the picture's parts."""
        return Reading(texts=self.texts, local=self.pictures is None)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        seen, texts = vectors_of(output, self.pictures or 1, self.sets)
        parts = seen if self.pictures is not None else output.local
        if parts is None:
            raise CapabilityError(say("source", "must give the vectors of a picture's parts", None))
        close = torch.einsum("bmd,tnd->btmn", parts, texts)
        scores = self.scale * transported(close, self.transport) + self.bias
        if self.pooled:
            scores = scores + self.scale * F.normalize(seen.mean(1), dim=-1) @ F.normalize(texts.mean(1), dim=-1).T
        return scores

    def extra_repr(self) -> str:
        """Settings."""
        return f"texts={self.texts[:3]!r}…, sets={self.sets}, pictures={self.pictures}, {self.transport}"


def vectors_of(output: SourceOutput, pictures: int, sets: int) -> tuple[Tensor, Tensor]:
    """What an image-text source said, by picture [B, M, d] and by class [T, N, d].

    Raises:
        CapabilityError: it gave no such vectors, or not so many of each.
    """
    seen, texts = output.features, output.texts
    if seen is None or texts is None or texts.ndim != 2 or len(seen) % pictures or len(texts) % sets:
        got = (None if seen is None else list(seen.shape), None if texts is None else list(texts.shape))
        raise CapabilityError(say("source", f"must give {pictures} vectors a picture and {sets} a class text", got))
    return seen.view(-1, pictures, seen.shape[-1]), texts.view(-1, sets, texts.shape[-1])
