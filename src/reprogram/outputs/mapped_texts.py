"""Every class in many sentences, each a source class of its own, and a label map from them to the classes (ILM-VP)."""

from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs import label_maps
from reprogram.outputs._tally import over_ranks
from reprogram.outputs.statistical import BayesianMap, BayesianMapPlus, FrequencyMap


@final
class MappedTexts(Output):
    """A label map over L sentences about each of T classes: S = L T source classes of an image-text source.

    Whose sentence a picture is closest to is what is counted. So class t may be recognised by a sentence about another
    class. Until the first `refresh`, and as long as a class was never seen, a class has what is its own: its first
    sentence in a one-to-one map (unless a class that was seen has taken it), the mean over all of its sentences in a
    Bayesian one.

    Args:
        texts: S of them, the L of class 0 first, the plainest of a class in front.
        map: from S to T; made anew by `refresh`.

    Raises:
        ConfigError: the map is of other sizes, or of several source classes to a target.

    >>> output = MappedTexts(("a cat", "some cat", "a dog", "some dog"), FrequencyMap(4, 2))
    >>> output(SourceOutput(scores=torch.tensor([[1.0, 2.0, 3.0, 4.0]]))).tolist()
    [[1.0, 3.0]]
    """

    alignment = Alignment.STATISTICAL
    own: Tensor

    def __init__(self, texts: Sequence[str], map: FrequencyMap | BayesianMap | BayesianMapPlus) -> None:
        super().__init__()
        several = isinstance(map, FrequencyMap) and map.per_class != 1
        if len(texts) != map.sources or len(texts) % map.targets or several:
            got = f"{len(texts)} texts, a map from {map.sources} to {map.targets}"
            raise ConfigError(say("texts", "must be as many for each class, with a map from all of them", got))
        self.texts, self.map = tuple(texts), map
        each = len(texts) // map.targets
        self.register_buffer("own", torch.arange(len(texts)).view(map.targets, each), persistent=False)
        with torch.no_grad():
            if isinstance(map, FrequencyMap):
                map.index.copy_(self.own[:, :1])
            else:
                self._fill(map.matrix)

    @property
    def reading(self) -> Reading:
        """The sentences."""
        return Reading(texts=self.texts)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        return self.map(output)

    def fold(self) -> Float[Tensor, " source target"]:
        """The map as a matrix [S, T]: scores times this, plus `offset`, is what `forward` gives."""
        return self.map.fold()

    def offset(self) -> Float[Tensor, " target"]:
        """[T], see `fold`."""
        return self.map.offset()

    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Count a batch: the closest sentence (for BLM+ the k likeliest) against the label.

        Raises:
            DataError: scores that are NaN or infinite, or labels that are not classes.
        """
        self.map.observe(output, target)

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the map anew from what was counted, on all ranks. Where nothing was counted it stays as it is."""
        if not isinstance(self.map, FrequencyMap):
            self.map.refresh()
            self._fill(self.map.matrix)
            return
        total = over_ranks(self.map.counts)
        if bool(total.any()):
            unseen = (~total.any(0)).nonzero().flatten()
            ranked = 2 * total
            ranked[self.own[unseen, 0], unseen] = 1  # below any count
            self.map.index.copy_(label_maps.many_to_one_map(ranked, 1))

    def forget(self) -> None:
        """Start counting anew; the map stays."""
        self.map.forget()

    def statistics(self) -> dict[str, Tensor]:
        """A copy of the counts."""
        return self.map.statistics()

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take back what `statistics` gave.

        Raises:
            ArtifactError: it is not from an output like this one.
        """
        self.map.load_statistics(statistics)

    def _fill(self, matrix: Tensor) -> None:
        """The mean over its own sentences for every class that has no weights."""
        unseen = (~matrix.any(0)).nonzero().flatten()
        matrix[self.own[unseen], unseen[:, None]] = 1 / self.own.shape[1]

    def extra_repr(self) -> str:
        """Settings."""
        return f"texts={self.texts[:3]!r}…"
