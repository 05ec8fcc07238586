"""Reading features by what was seen: class prototypes, and the nearest neighbours themselves. Nothing is learned.

Both observe batches as the label maps do (see `statistical`); what they read with is made at `refresh`, and saved.
"""

from collections.abc import Mapping
from typing import final

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.core.program import Output
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._checks import check_above, check_sizes, not_finite
from reprogram.outputs._scores import no_autocast, source_features
from reprogram.outputs._tally import over_ranks, take_back
from reprogram.outputs.statistical import UNSEEN

_LEAST = 1e-3  # of the probability is shared by all classes, so that a class without neighbours has a finite score


@final
class Prototypes(Output):
    """``y_t = cos(h, c_t) / temperature``: h the features, c_t the mean of class t's features, each of length 1.

    A class never seen gets the score `UNSEEN` (-10,000). Before the first `refresh` all scores are 0.

    Args:
        sources: D, width of the features.
        targets: T.
        temperature: divides the cosines.

    Raises:
        ConfigError: D or T is below 1, or the temperature is not above 0.

    >>> said = SourceOutput(features=torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
    >>> near = Prototypes(2, 2, temperature=0.5)
    >>> near.observe(said, torch.tensor([1, 0]))
    >>> near.refresh()
    >>> near(said).tolist()
    [[0.0, 2.0], [2.0, 0.0]]
    """

    alignment = Alignment.STATISTICAL
    reads_features = True
    prototypes: Tensor
    sums: Tensor
    seen: Tensor

    def __init__(self, sources: int, targets: int, temperature: float = 0.1) -> None:
        super().__init__()
        check_sizes(sources, targets)
        check_above("temperature", temperature)
        self.sources, self.targets, self.temperature = sources, targets, temperature
        self.register_buffer("prototypes", torch.zeros(targets, sources))
        self.register_buffer("sums", torch.zeros(targets, sources), persistent=False)
        self.register_buffer("seen", torch.zeros(targets, dtype=torch.int64), persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Cosines over the temperature."""
        value = _units(source_features(output, self.sources))
        table = self.prototypes.to(value.dtype)
        known = table.any(1)
        with no_autocast(value):
            scores = value @ _units(table).T / self.temperature
        return torch.where(known | ~known.any(), scores, UNSEEN)

    @torch.no_grad()
    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Add a batch to the sums of its classes.

        Raises:
            DataError: features that are NaN or infinite, or labels that are not classes.
        """
        value = _observed(output, self.sources, target, self.targets)
        self.sums.index_add_(0, target, _units(value).to(self.sums.dtype))
        self.seen += torch.bincount(target, minlength=self.targets)

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the prototypes anew, from all ranks. Where nothing was observed at all, they stay as they are."""
        seen, sums = over_ranks(self.seen), over_ranks(self.sums)
        if bool(seen.any()):
            self.prototypes.copy_(sums / seen.clamp_min(1).unsqueeze(1))

    def forget(self) -> None:
        """Start the sums anew; the prototypes stay."""
        self.sums.zero_()
        self.seen.zero_()

    def statistics(self) -> dict[str, Tensor]:
        """Copies of the sums and counts: with the state, all that an exact resume needs."""
        return {"sums": self.sums.clone(), "seen": self.seen.clone()}

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take back what `statistics` gave.

        Raises:
            ArtifactError: it is not from an output like this one.
        """
        take_back({"sums": self.sums, "seen": self.seen}, statistics)


@final
class NearestNeighbours(Output):
    """``y_t = log of the share that class t has among the k nearest neighbours``, weighed by exp(cosine / temperature).

    Keeps the features themselves, of at most `capacity` samples, each with the same chance to be among them.

    Args:
        sources: D, width of the features.
        targets: T.
        k: neighbours that count.
        capacity: samples kept.
        temperature: of the weights.

    Raises:
        ConfigError: a setting is out of range.

    >>> said = SourceOutput(features=torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
    >>> near = NearestNeighbours(2, 2, k=1, capacity=8)
    >>> near.observe(said, torch.tensor([1, 0]))
    >>> near.refresh()
    >>> near(said).argmax(1).tolist()
    [1, 0]
    """

    alignment = Alignment.STATISTICAL
    reads_features = True
    keys: Tensor
    labels: Tensor
    found: Tensor
    classes: Tensor
    seen: Tensor

    def __init__(
        self, sources: int, targets: int, k: int = 16, *, capacity: int = 1024, temperature: float = 0.1
    ) -> None:
        super().__init__()
        check_sizes(sources, targets)
        check_sizes(capacity, k)
        check_above("temperature", temperature)
        self.sources, self.targets, self.k, self.capacity, self.temperature = sources, targets, k, capacity, temperature
        self.register_buffer("keys", torch.zeros(capacity, sources))
        self.register_buffer("labels", torch.full((capacity,), -1))
        self.register_buffer("found", torch.zeros(capacity, sources), persistent=False)
        self.register_buffer("classes", torch.full((capacity,), -1), persistent=False)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64), persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Log-shares of the classes; all the same before the first `refresh`."""
        value = _units(source_features(output, self.sources))
        with no_autocast(value):
            near = (value @ self.keys.to(value.dtype).T).masked_fill(self.labels < 0, UNSEEN)
        best = near.topk(min(self.k, self.capacity), dim=1)
        weight = (best.values / self.temperature).softmax(-1)
        owner = self.labels[best.indices]
        weight = weight * (owner >= 0)
        share = value.new_zeros(len(value), self.targets).scatter_add(1, owner.clamp_min(0), weight)
        return (share * (1 - _LEAST) + _LEAST / self.targets).log()

    @torch.no_grad()
    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Keep a batch's features, in place of earlier ones at random once the memory is full.

        Raises:
            DataError: features that are NaN or infinite, or labels that are not classes.
        """
        value = _units(_observed(output, self.sources, target, self.targets)).to(self.found.dtype)
        first = int(self.seen)
        number = torch.arange(first, first + len(value))
        chance = torch.rand(len(value), generator=torch.Generator().manual_seed(first), dtype=torch.float64)
        drawn = (chance * (number + 1)).long()  # reservoir sampling: sample i takes the place of one of the i before
        places = torch.where(number < self.capacity, number, drawn)
        for row, place in enumerate(places):
            if int(place) < self.capacity:
                self.found[int(place)] = value[row]
                self.classes[int(place)] = target[row]
        self.seen += len(value)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what was kept, of all ranks a share each. Where nothing was observed at all, it stays as it is."""
        found, classes = _of_all_ranks(self.found, self.classes)
        kept = (classes >= 0).nonzero().squeeze(1)
        if not len(kept):
            return
        if len(kept) > self.capacity:  # as many of every rank: each rank's rows are in random order already
            kept = kept[torch.arange(self.capacity, device=kept.device) * len(kept) // self.capacity]
        self.keys.zero_()
        self.labels.fill_(-1)
        self.keys[: len(kept)] = found[kept]
        self.labels[: len(kept)] = classes[kept]

    def forget(self) -> None:
        """Keep nothing of what was observed; what is read with stays."""
        self.found.zero_()
        self.classes.fill_(-1)
        self.seen.zero_()

    def statistics(self) -> dict[str, Tensor]:
        """Copies of what was kept: with the state, all that an exact resume needs."""
        return {name: value.clone() for name, value in self._statistics().items()}

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take back what `statistics` gave.

        Raises:
            ArtifactError: it is not from an output like this one.
        """
        take_back(self._statistics(), statistics)

    def _statistics(self) -> dict[str, Tensor]:
        return {"found": self.found, "classes": self.classes, "seen": self.seen}


def _units(value: Tensor) -> Tensor:
    return F.normalize(value, dim=-1)


def _observed(output: SourceOutput, sources: int, target: Tensor, targets: int) -> Tensor:
    value = source_features(output, sources)
    if not bool(value.isfinite().all()):
        raise not_finite(value, "features")
    if len(target) != len(value):
        raise DataError(say("target", f"must be a class for each of {len(value)} samples", len(target)))
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < targets:
        raise DataError(
            say("target", f"must be classes from 0 to {targets - 1}", [int(end) for end in target.aminmax()])
        )
    return value


def _of_all_ranks(found: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Every rank's rows, one rank after the other."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return found, classes
    rank, ranks = dist.get_rank(), dist.get_world_size()
    every = found.new_zeros(ranks, *found.shape)
    every[rank] = found
    whose = classes.new_zeros(ranks, *classes.shape)
    whose[rank] = classes + 1
    return over_ranks(every).flatten(0, 1), over_ranks(whose).flatten() - 1
