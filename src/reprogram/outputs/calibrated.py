"""Scores less what the source favours anyway: contextual and batch calibration of an output."""

from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Observing, Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.core.texts import Texts
from reprogram.outputs._checks import check_sizes, not_finite
from reprogram.outputs._tally import over_ranks, take_back


@final
class Calibrated(Output):
    """``y = inner - log q``: q the mean probabilities over what was observed (labels are not looked at).

    Observing the task's inputs is batch calibration (Zhou et al. 2023, arXiv 2309.17249); observing inputs without
    content (`content_free`) is contextual calibration (Zhao et al. 2021, arXiv 2102.09690). Before the first `refresh`
    scores are those of `inner`.

    Args:
        inner: an output that observes nothing itself.
        targets: T.
        rows: what is observed in place of the training split; None for the split itself.
        bare: `rows` go to the source as they are, not through I.
        most: rows of the training split that are observed at most.
        floor: no class's mean probability is taken for less, so that a class that is never predicted cannot win by
            that alone.

    Raises:
        ConfigError: `inner` observes, or T is below 1.

    >>> from reprogram.outputs.identity import Identity
    >>> biased = SourceOutput(torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log())
    >>> fair = Calibrated(Identity(2), 2)
    >>> fair.observe(biased, torch.tensor([0, 1]))
    >>> fair.refresh()
    >>> fair(biased).softmax(1).tolist()
    [[0.631..., 0.368...], [0.391..., 0.608...]]
    """

    alignment = Alignment.STATISTICAL
    prior: Tensor
    total: Tensor
    seen: Tensor

    def __init__(
        self,
        inner: Output,
        targets: int,
        *,
        rows: Texts | None = None,
        bare: bool = False,
        most: int | None = None,
        floor: float = 1e-6,
    ) -> None:
        super().__init__()
        self.rows, self.bare, self.most, self.floor = rows, bare, most, floor
        check_sizes(targets, targets)
        if isinstance(inner, Observing):
            raise ConfigError(say("inner", "must observe nothing itself", type(inner).__name__))
        self.inner, self.targets = inner, targets
        self.register_buffer("prior", torch.zeros(targets))  # log q
        self.register_buffer("total", torch.zeros(targets, dtype=torch.float64), persistent=False)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64), persistent=False)

    @property
    def reading(self) -> Reading:
        """What `inner` needs."""
        return self.inner.reading

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of `inner` less the prior."""
        scores = self.inner(output)
        return scores - self.prior.to(scores.dtype)

    @torch.no_grad()
    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Add a batch's probabilities.

        Raises:
            DataError: scores that are NaN or infinite.
        """
        scores = self.inner(output)
        if not bool(scores.isfinite().all()):
            raise not_finite(scores, "scores")
        self.total += scores.double().softmax(-1).sum(0)
        self.seen += len(scores)

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the prior anew, from all ranks. Where nothing was observed at all, it stays as it is."""
        total, seen = over_ranks(self.total), over_ranks(self.seen)
        if bool(seen):
            self.prior.copy_((total / seen).clamp_min(self.floor).log())

    def forget(self) -> None:
        """Start the mean anew; the prior stays."""
        self.total.zero_()
        self.seen.zero_()

    def statistics(self) -> dict[str, Tensor]:
        """Copies of the sum and the count: with the state, all that an exact resume needs."""
        return {"total": self.total.clone(), "seen": self.seen.clone()}

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take back what `statistics` gave.

        Raises:
            ArtifactError: it is not from an output like this one.
        """
        take_back({"total": self.total, "seen": self.seen}, statistics)


def content_free(columns: Sequence[str]) -> Texts:
    """Rows that say nothing, to observe for contextual calibration: "N/A", "[MASK]" and "none" in every column.

    >>> content_free(["text"]).columns
    {'text': ('N/A', '[MASK]', 'none')}
    """
    return Texts({name: ("N/A", "[MASK]", "none") for name in columns})
