"""BAR's output: several source classes for a target, the mean of their probabilities, and a focal loss on it."""

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs import label_maps
from reprogram.outputs._checks import check_above, check_at_least, check_one_to_one
from reprogram.outputs._scores import source_scores
from reprogram.outputs._tally import over_ranks, take_back

RESOLUTION = 2.0**30
"""Steps in which mean probabilities are compared: equal means stay equal, whatever the order of their sums."""


@final
class ProbabilityMap(Output):
    """``y_t = log of the mean of p_s over the m source classes that are most probable for t``, p = softmax(z).

    Which m those are is made from data: for every sample its `top` highest probabilities count, their mean over the
    samples of a class ranks the source classes, and they are given away greedily as in
    `label_maps.many_to_one_map`, each to one target (BAR; Tsai et al. 2020, arXiv 2007.08714, multi-label mapping).

    Its own loss is focal: ``-alpha (1 - q)^gamma log q`` of the true class, ``q = softmax(y)``, averaged over samples.

    Args:
        sources: S.
        targets: T.
        per_class: m, with m * T at most S; 6 in BAR.
        top: probabilities of a sample that count; 30 in BAR.
        gamma: of the loss; 4 in BAR, 2 in BlackVIP's port of it, 0 for cross-entropy.
        alpha: of the loss; 0.8 in BAR. It scales the loss of all classes alike.

    Raises:
        ConfigError: a setting is out of range.

    >>> said = SourceOutput(torch.tensor([[0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6]]).log())
    >>> bar = ProbabilityMap(4, 2, per_class=2)
    >>> bar.observe(said, torch.tensor([1, 0]))
    >>> bar.refresh()
    >>> bar.index.tolist(), [round(v, 6) for v in bar(said).exp()[0].tolist()]
    ([[3, 2], [0, 1]], [0.1, 0.4])
    """

    alignment = Alignment.STATISTICAL
    index: Tensor
    chances: Tensor
    seen: Tensor

    def __init__(
        self, sources: int, targets: int, per_class: int = 6, *, top: int = 30, gamma: float = 4.0, alpha: float = 0.8
    ) -> None:
        super().__init__()
        check_one_to_one(sources, targets, per_class)
        check_at_least("gamma", gamma, 0.0)
        check_above("alpha", alpha)
        if top < 1:
            raise ConfigError(say("top", "must be 1 or more", top))
        self.sources, self.targets, self.per_class = sources, targets, per_class
        self.top, self.gamma, self.alpha = top, gamma, alpha
        self.register_buffer("index", torch.arange(targets * per_class).view(targets, per_class))
        self.register_buffer("chances", torch.zeros(sources, targets, dtype=torch.int64), persistent=False)
        self.register_buffer("seen", torch.zeros(targets, dtype=torch.int64), persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Logarithms of mean probabilities."""
        chances = source_scores(output, self.sources).log_softmax(1)
        taken = chances.index_select(1, self.index.flatten()).view(-1, *self.index.shape)
        return taken.logsumexp(-1) - torch.tensor(float(self.per_class)).log().to(taken)

    def loss(self, output: SourceOutput, scores: Tensor, target: Tensor) -> Tensor:
        """The focal loss, a scalar."""
        del output
        return focal_loss(scores, target, self.gamma, self.alpha)

    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Add a batch: the highest probabilities of each sample against its label.

        Raises:
            DataError: scores that are NaN or infinite, or labels that are not classes.
        """
        scores = source_scores(output, self.sources)
        label_maps.top_counts(scores.detach(), target, self.targets, self.top, out=self.chances)
        self.seen += target.bincount(minlength=self.targets)

    @torch.no_grad()
    def refresh(self) -> None:
        """Match anew, from the statistics of all ranks. Where nothing was seen at all, the map stays as it is."""
        total, seen = over_ranks(self.chances), over_ranks(self.seen)
        if bool(seen.any()):
            means = total.double() * label_maps.SOFT_UNIT / seen.clamp_min(1)
            self.index.copy_(label_maps.many_to_one_map((means * RESOLUTION).round().long(), self.per_class))

    def forget(self) -> None:
        """Set the statistics to zero; the map stays."""
        self.chances.zero_()
        self.seen.zero_()

    def statistics(self) -> dict[str, Tensor]:
        """A copy of the statistics: with the state, all that an exact resume needs."""
        return {"chances": self.chances.clone(), "seen": self.seen.clone()}

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take back what `statistics` gave.

        Raises:
            ArtifactError: it is not from an output like this one.
        """
        take_back({"chances": self.chances, "seen": self.seen}, statistics)


def focal_loss(
    scores: Float[Tensor, " batch target"], target: Integer[Tensor, " batch"], gamma: float = 2.0, alpha: float = 1.0
) -> Float[Tensor, ""]:
    """``mean of -alpha (1 - q)^gamma log q`` with q the softmax of scores [B, T] at the labels, in float64.

    With gamma 0 and alpha 1 it is cross-entropy (Lin et al. 2017, arXiv 1708.02002).

    >>> round(focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=2.0).item(), 6)  # (1/2)^2 ln 2
    0.173287
    """
    log_q = scores.double().log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    return (-alpha * (-torch.expm1(log_q)).clamp_min(0) ** gamma * log_q).mean()
