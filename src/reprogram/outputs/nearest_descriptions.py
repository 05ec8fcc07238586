"""Pictures against descriptions of classes: the mean over those that are nearest (AttrVR; Cai et al. 2025)."""

import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import source_scores


@final
class NearestDescriptions(Output):
    """``y_t = sum_g w_g * mean of the k highest scores among class t's descriptions in set g``.

    The k nearest are chosen for each picture anew; gradients go through their scores. A class that has fewer than k
    descriptions in a set has the mean of them all.

    Args:
        sets: g of them, each with a list of descriptions for each of T classes.
        nearest: k (3 in AttrVR).
        weights: w, one a set (1/2 and 1/2 in AttrVR).

    Raises:
        ConfigError: sets of different classes, a class without a description, `nearest` below 1, or weights that are
            not finite or not one a set.

    >>> output = NearestDescriptions([[["a", "b", "c"], ["d"]]], nearest=2, weights=(1.0,))
    >>> output(SourceOutput(scores=torch.tensor([[1.0, 5.0, 3.0, 2.0]]))).tolist()
    [[4.0, 2.0]]
    """

    alignment = Alignment.RULE_BASED
    table: Tensor
    sizes: Tensor
    weights: Tensor

    def __init__(
        self, sets: Sequence[Sequence[Sequence[str]]], *, nearest: int = 3, weights: Sequence[float] = (0.5, 0.5)
    ) -> None:
        super().__init__()
        self.targets = len(sets[0]) if sets else 0
        if not self.targets or any(len(one) != self.targets or not all(one) for one in sets):
            raise ConfigError(say("descriptions", "must be there for the same classes in every set", len(sets)))
        if nearest < 1 or len(weights) != len(sets) or not all(math.isfinite(w) for w in weights):
            got = f"nearest {nearest}, weights {tuple(weights)}"
            raise ConfigError(say("settings", f"must be 1 or more nearest, and {len(sets)} finite weights", got))
        self.texts = tuple(text for one in sets for own in one for text in own)
        counts = torch.tensor([[len(own) for own in one] for one in sets])
        self.nearest = min(nearest, int(counts.max()))
        self.even = bool((counts == counts.max()).all())
        self.register_buffer("table", _padded(counts), persistent=False)
        self.register_buffer("sizes", counts.clamp(max=self.nearest), persistent=False)
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float32), persistent=False)

    @property
    def reading(self) -> Reading:
        """The descriptions."""
        return Reading(texts=self.texts)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        scores = source_scores(output, len(self.texts))
        if not self.even:
            scores = torch.cat([scores, scores.new_full((len(scores), 1), -math.inf)], 1)
            scores = scores[:, self.table.flatten()]
        best = scores.view(len(scores), *self.table.shape).topk(self.nearest, dim=-1, sorted=False).values
        if not self.even:
            best = torch.where(best.isneginf(), 0.0, best)
        means = best.sum(-1) / self.sizes
        return torch.einsum("bgt,g->bt", means, self.weights.to(means.dtype))

    def extra_repr(self) -> str:
        """Settings."""
        return f"texts={self.texts[:2]!r}…, targets={self.targets}, nearest={self.nearest}"


def _padded(counts: Tensor) -> Tensor:
    """[sets, T, most]: the number of each description, and the number of all for a place that is left over."""
    most = int(counts.max())
    place = torch.arange(most).expand(*counts.shape, most)
    first = (counts.flatten().cumsum(0) - counts.flatten()).view(counts.shape)
    return torch.where(place < counts[..., None], first[..., None] + place, int(counts.sum()))
