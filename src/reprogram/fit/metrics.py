"""What a program scores on a split, from its target scores alone."""

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reprogram.core.program import Program
from reprogram.fit.feed import Feed, feed_for, scoring_batch
from reprogram.tasks import Split


@dataclass(frozen=True, eq=False, kw_only=True)
class Metrics:
    """Results on one split.

    Attributes:
        accuracy: share of inputs classified right.
        balanced_accuracy: mean over the classes that occur of the share classified right.
        macro_f1: mean F1 over the classes that occur or are predicted.
        loss: mean cross-entropy of the target scores, nats.
        confusion: [T, T] counts, rows the truth, columns the prediction.
        scores: [N, T] target scores.
        seconds: wall time it took.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    loss: float
    confusion: Tensor
    scores: Tensor
    seconds: float

    def __len__(self) -> int:
        return len(self.scores)

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy: how far a split of this size can tell programs apart.

        >>> m = measure(torch.eye(2).repeat(50, 1), torch.tensor([0, 1] * 50))
        >>> [round(v, 3) for v in m.interval()]
        [0.963, 1.0]
        """
        n, z = len(self), 1.959964
        centre = (self.accuracy + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (self.accuracy * (1 - self.accuracy) / n + z * z / (4 * n * n)) ** 0.5
        return max(0.0, centre - half), min(1.0, centre + half)

    def brief(self) -> dict[str, float]:
        """The single numbers, for cards and logs."""
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "loss": self.loss,
        }


def measure(scores: Float[Tensor, " n target"], labels: Int[Tensor, " n"], seconds: float = 0.0) -> Metrics:
    """Metrics of target scores against labels.

    >>> measure(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])).accuracy
    0.5
    """
    targets = scores.shape[1]
    predicted = scores.argmax(1)
    confusion = torch.bincount(labels * targets + predicted, minlength=targets * targets).view(targets, targets)
    right, truth, said = confusion.diag().double(), confusion.sum(1).double(), confusion.sum(0).double()
    f1 = 2 * right / (truth + said).clamp_min(1)
    seen, used = truth > 0, (truth + said) > 0
    return Metrics(
        accuracy=float(right.sum() / max(1, len(labels))),
        balanced_accuracy=float((right[seen] / truth[seen]).mean()) if seen.any() else 0.0,
        macro_f1=float(f1[used].mean()) if used.any() else 0.0,
        loss=float(torch.nn.functional.cross_entropy(scores.double(), labels)) if len(labels) else 0.0,
        confusion=confusion,
        scores=scores,
        seconds=seconds,
    )


@torch.no_grad()
def evaluate(program: Program, split: Split, *, batch_size: int | None = None, feed: Feed | None = None) -> Metrics:
    """Score a program on a split, in eval mode, full precision.

    Args:
        program: whatever mode it is in, it is put back.
        split: `task.test`, for example.
        batch_size: inputs to a forward pass, by default what suits the device; no influence beyond rounding.
        feed: where source outputs come from; by default they are computed, from a cache if nothing is learned in I.
    """
    start = time.perf_counter()
    feed = feed or feed_for(program)
    training = program.training
    program.eval()
    try:
        rows = [
            program.output(feed.outputs(split, index)).float().cpu()
            for index in torch.arange(len(split)).split(batch_size or scoring_batch(program.source.device))
        ]
    finally:
        program.train(training)
    scores = torch.cat(rows) if rows else torch.empty(0, 1)
    return measure(scores, split.labels, time.perf_counter() - start)
