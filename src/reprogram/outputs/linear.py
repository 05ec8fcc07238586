"""The linear alignment: a learned linear layer on the source's scores or features."""

from collections.abc import Mapping
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from reprogram.core.program import Output
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._checks import check_sizes, not_finite
from reprogram.outputs._scores import no_autocast, source_features, source_scores
from reprogram.outputs._tally import over_ranks, take_back

_FLAT = 1e-6  # a number that varies less than this, as a share of its mean, is taken as constant


@final
class Linear(Output):
    """``y = (v - mean) / std @ weight.T + bias`` with v the source's scores, or its features.

    Weight and bias are learned; they start at zero, so that predictions start uniform. Mean and standard deviation of
    each of the S numbers are not learned but observed, and are 0 and 1 until the first `refresh`. Refresh before
    learning, not during it: it changes what the weights mean.

    Args:
        sources: S; with `features` their width D.
        targets: T.
        features: read features instead of scores, which makes this a linear probe.

    Raises:
        ConfigError: S or T is below 1.

    >>> said = SourceOutput(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    >>> linear = Linear(2, 3)
    >>> linear.observe(said, torch.tensor([0, 1]))
    >>> linear.refresh()
    >>> linear.mean.tolist(), linear.std.tolist(), linear(said).abs().sum().item()
    ([2.0, 7.0], [1.0, 1.0], 0.0)
    """

    alignment = Alignment.LINEAR
    mean: Tensor
    std: Tensor
    seen: Tensor
    center: Tensor
    spread: Tensor

    def __init__(self, sources: int, targets: int, features: bool = False) -> None:
        super().__init__()
        check_sizes(sources, targets)
        self.sources, self.targets, self.reads_features = sources, targets, features
        self.weight = nn.Parameter(torch.zeros(targets, sources))
        self.bias = nn.Parameter(torch.zeros(targets))
        self.register_buffer("mean", torch.zeros(sources))
        self.register_buffer("std", torch.ones(sources))
        # Statistics so far: how many samples, their mean, and the sum of squares about it.
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64), persistent=False)
        self.register_buffer("center", torch.zeros(sources), persistent=False)
        self.register_buffer("spread", torch.zeros(sources), persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Target scores, in float32 at least, also under autocast."""
        value = self._read(output)
        kind = value.dtype
        with no_autocast(value):
            return F.linear((value - self.mean.to(kind)) / self.std.to(kind), self.weight.to(kind), self.bias.to(kind))

    @torch.no_grad()
    def fold(self) -> Float[Tensor, " source target"]:
        """[S, T]: ``weight.T`` with the scaling in it."""
        return self.weight.T / self.std.unsqueeze(1)

    @torch.no_grad()
    def offset(self) -> Float[Tensor, " target"]:
        """[T], what is to be added to ``v @ fold()``: the bias with the centring in it."""
        return self.bias - self.mean @ self.fold()

    @torch.no_grad()
    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Add a batch to mean and variance; labels are not looked at.

        Raises:
            DataError: numbers that are NaN or infinite.
        """
        value = self._read(output)
        if not len(value):
            return
        mean = value.mean(0)
        spread = (value - mean).square_().sum(0)
        if not bool(spread.isfinite().all()):
            raise not_finite(value, "features" if self.reads_features else "logits")
        seen, new = int(self.seen), len(value)
        step = mean - self.center  # Chan's rule for merging two sets, which does not cancel
        self.center += step * (new / (seen + new))
        self.spread += spread + step.square() * (seen * new / (seen + new))
        self.seen += new

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over mean and standard deviation, of all ranks. Where nothing was observed at all, they stay.

        A number that does not vary is only centred (std 1), because dividing by its noise would blow it up.
        """
        seen = over_ranks(self.seen)
        if not bool(seen):
            return
        share = self.seen / seen
        mean = over_ranks(self.center * share)
        variance = over_ranks(self.spread / seen + (self.center - mean).square() * share)
        std = variance.sqrt()
        self.mean.copy_(mean)
        self.std.copy_(std.masked_fill(std <= _FLAT * mean.abs(), 1.0))

    def forget(self) -> None:
        """Start the statistics anew; mean and standard deviation stay."""
        for value in self._statistics().values():
            value.zero_()

    def statistics(self) -> dict[str, Tensor]:
        """Copies of the number of samples, their mean and spread: with the state, all that an exact resume needs."""
        return {name: value.clone() for name, value in self._statistics().items()}

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take back what `statistics` gave.

        Raises:
            ArtifactError: it is not from an output like this one.
        """
        take_back(self._statistics(), statistics)

    def _statistics(self) -> dict[str, Tensor]:
        return {"seen": self.seen, "center": self.center, "spread": self.spread}

    def _read(self, output: SourceOutput) -> Tensor:
        read = source_features if self.reads_features else source_scores
        return read(output, self.sources)
