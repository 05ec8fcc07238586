"""What a program scores on a split, from its target scores alone."""

import math
import time
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.core.program import Answering, Program, evaluating
from reprogram.core.task import IGNORED
from reprogram.core.texts import Texts
from reprogram.core.writing import Answer
from reprogram.fit.batches import alike
from reprogram.fit.feed import Feed, feed_for, scoring_batch
from reprogram.tasks import Split


@dataclass(frozen=True, eq=False, kw_only=True)
class Metrics:
    """Results on one split.

    Attributes:
        accuracy: share of inputs classified right; for generation, of the targets' tokens that are predicted when all
            earlier ones are given.
        balanced_accuracy: mean over the classes that occur of the share classified right; NaN for generation.
        macro_f1: mean F1 over the classes that occur or are predicted; NaN for generation.
        loss: mean cross-entropy of the target scores, nats; for generation, to a token of the targets.
        confusion: [T, T] counts, rows the truth, columns the prediction; None for generation. Inputs of which no
            answer could be read are not in it.
        scores: [N, T] target scores; [N, 0] for generation.
        seconds: wall time it took.
        answers: of programs that read answers off texts: one an input. Accuracy is then the share of inputs whose
            answer is the right one; one that could not be read is wrong.
        mean_iou: of dense tasks: intersection over union of predicted and true pixels, mean over the classes that occur
            or are predicted; None for others. All other numbers are then about pixels that count: accuracy is theirs,
            `confusion` counts them, and `scores` are means over each input's pixels, [N, T].
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    loss: float
    confusion: Tensor | None
    scores: Tensor
    seconds: float
    answers: tuple[Answer, ...] | None = None
    mean_iou: float | None = None

    @property
    def unparsable(self) -> float | None:
        """Share of inputs of which no answer could be read; None for programs that read none off texts."""
        if self.answers is None:
            return None
        return sum(a.value is None for a in self.answers) / max(1, len(self.answers))

    def __len__(self) -> int:
        return len(self.scores)

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy: how far a split of this size can tell programs apart.

        An input with a label map counts as one: its pixels are no independent trials.

        >>> m = measure(torch.eye(2).repeat(50, 1), torch.tensor([0, 1] * 50))
        >>> [round(v, 3) for v in m.interval()]
        [0.963, 1.0]
        """
        n, z = len(self), 1.959964
        centre = (self.accuracy + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (self.accuracy * (1 - self.accuracy) / n + z * z / (4 * n * n)) ** 0.5
        return max(0.0, centre - half), min(1.0, centre + half)

    @property
    def perplexity(self) -> float:
        """The exponential of the loss: of generation, how many tokens the source hesitates between."""
        return math.exp(min(self.loss, 700.0))

    def brief(self) -> dict[str, float]:
        """The single numbers, for cards and logs."""
        missed = {} if self.unparsable is None else {"unparsable": self.unparsable}
        missed |= {} if self.mean_iou is None else {"mean_iou": self.mean_iou}
        if self.confusion is None and self.answers is not None:
            return {"accuracy": self.accuracy, **missed}
        if self.confusion is None:
            return {"accuracy": self.accuracy, "loss": self.loss, "perplexity": self.perplexity}
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "loss": self.loss,
            **missed,
        }


def measure(scores: Float[Tensor, " n target"], labels: Int[Tensor, " n"], seconds: float = 0.0) -> Metrics:
    """Metrics of target scores against labels.

    >>> measure(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])).accuracy
    0.5
    """
    confusion = _confusion(scores, labels)
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


def _confusion(scores: Tensor, labels: Tensor) -> Tensor:
    """[T, T] counts, rows the truth."""
    targets = scores.shape[1]
    return torch.bincount(labels * targets + scores.argmax(1), minlength=targets * targets).view(targets, targets)


def by_pixel(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Of label maps [B, H, W], scores [M, T] and classes [M] of the M pixels that count; else what was given.

    >>> scores, target = by_pixel(torch.zeros(1, 2, 1, 3), torch.tensor([[[1, -100, 0]]]))
    >>> scores.shape, target
    (torch.Size([2, 2]), tensor([1, 0]))

    Raises:
        DataError: the program does not give a score for each pixel.
    """
    if target.ndim == 1:
        return scores, target
    if scores.ndim != 4 or scores.shape[2:] != target.shape[1:]:
        need = f"must be scores of every pixel, [B, T, {target.shape[1]}, {target.shape[2]}]"
        raise DataError(say("program", need, list(scores.shape), "A dense task needs a method such as evp_explicit."))
    scores, target = scores.movedim(1, -1).flatten(0, 2), target.flatten()
    counts = target != IGNORED
    return (scores, target) if bool(counts.all()) else (scores[counts], target[counts])


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
    with evaluating(program):
        batches = alike(split, batch_size or scoring_batch(program.source.device))
        if isinstance(program.output, Answering):
            return _measure_answers(program.output, split, feed, batches, start)
        if program.output.reading.tokens and _has_targets(split):
            return _measure_tokens(program, split, feed, batches, start)
        if split.dense and len(split):
            return _measure_maps(program, split, feed, batches, start)
        rows = [program.output(feed.outputs(split, index)).float().cpu() for index in batches]
    scores = torch.cat(rows)[torch.cat(batches).argsort()] if len(split) else torch.empty(0, 1)
    return measure(scores, split.strata, time.perf_counter() - start)


def _has_targets(split: Split) -> bool:
    """The examples are texts to be written, not classes."""
    first = split.fetch(torch.arange(min(1, len(split))))
    return isinstance(first, Texts) and first.targets is not None


def _measure_answers(output: Answering, split: Split, feed: Feed, batches: list[Tensor], start: float) -> Metrics:
    """How many answers are the right ones; none that could be read is wrong, and no prediction."""
    found: dict[int, Answer] = {}
    rows: dict[int, Tensor] = {}
    for index in batches:
        said = feed.outputs(split, index)
        numbers = index.tolist()
        found |= zip(numbers, output.answers(said), strict=True)
        rows |= zip(numbers, output(said).float().cpu(), strict=True)  # type: ignore[operator]  # it is an Output
    answers = tuple(found[i] for i in range(len(split)))
    scores = torch.stack([rows[i] for i in range(len(split))]) if rows else torch.empty(0, 1)
    if _has_targets(split):
        targets = split.fetch(torch.arange(len(split)))
        assert isinstance(targets, Texts)
        pairs = zip(answers, targets.targets or (), strict=True)
        right = [a.value is not None and a.value == output.canonical(target) for a, target in pairs]
        return Metrics(
            accuracy=sum(right) / max(1, len(right)), balanced_accuracy=math.nan, macro_f1=math.nan, loss=math.nan,
            confusion=None, scores=torch.empty(len(split), 0), seconds=time.perf_counter() - start, answers=answers,
        )  # fmt: skip
    read = torch.tensor([a.value is not None for a in answers], dtype=torch.bool)
    part = measure(scores[read], split.labels[read])
    assert part.confusion is not None
    right, said_as = part.confusion.diag().double(), part.confusion.sum(0).double()
    truth = split.labels.bincount(minlength=scores.shape[1]).double()
    recall, f1 = right / truth.clamp_min(1), 2 * right / (truth + said_as).clamp_min(1)
    return replace(
        part, accuracy=float(right.sum()) / max(1, len(split)), loss=measure(scores, split.labels).loss,
        scores=scores, answers=answers,
        balanced_accuracy=float(recall[truth > 0].mean()) if len(split) else 0.0,
        macro_f1=float(f1[(truth + said_as) > 0].mean()) if len(split) else 0.0,
        seconds=time.perf_counter() - start,
    )  # fmt: skip


def _measure_maps(program: Program, split: Split, feed: Feed, batches: list[Tensor], start: float) -> Metrics:
    """Pixel by pixel, and no more than a batch of maps held at once."""
    loss, means = 0.0, list[Tensor]()
    confusion = torch.zeros(0, 0, dtype=torch.int64)
    for index in batches:
        maps = program.output(feed.outputs(split, index)).float().cpu()
        scores, target = by_pixel(maps, split.labels[index])
        loss += float(torch.nn.functional.cross_entropy(scores.double(), target, reduction="sum"))
        found = _confusion(scores, target)
        confusion = found if not len(confusion) else confusion + found
        means.append(maps.mean((2, 3)))
    rows = torch.cat(means)[torch.cat(batches).argsort()]
    return of_pixels(confusion, loss, rows, time.perf_counter() - start)


def of_pixels(confusion: Tensor, loss: float, scores: Tensor, seconds: float = 0.0) -> Metrics:
    """Metrics of label maps.

    Args:
        confusion: [T, T] counts of pixels, rows the truth.
        loss: cross-entropy, summed over them.
        scores: [N, T], means of each input.
        seconds: that it took.

    >>> found = of_pixels(torch.tensor([[3, 1], [0, 0]]), 4.0, torch.zeros(1, 2))
    >>> found.accuracy, found.mean_iou, found.loss  # of class 1 no pixel is right
    (0.75, 0.375, 1.0)
    """
    right, truth, said = confusion.diag().double(), confusion.sum(1).double(), confusion.sum(0).double()
    seen, used, pixels = truth > 0, (truth + said) > 0, max(1, int(confusion.sum()))
    f1, iou = 2 * right / (truth + said).clamp_min(1), right / (truth + said - right).clamp_min(1)
    return Metrics(
        accuracy=float(right.sum()) / pixels, balanced_accuracy=float((right[seen] / truth[seen]).mean()),
        macro_f1=float(f1[used].mean()), loss=loss / pixels, confusion=confusion, scores=scores, seconds=seconds,
        mean_iou=float(iou[used].mean()),
    )  # fmt: skip


def _measure_tokens(program: Program, split: Split, feed: Feed, batches: list[Tensor], start: float) -> Metrics:
    """How well the targets' tokens are predicted, each with all before it given."""
    loss, right, seen = 0.0, 0, 0
    for index in batches:
        out = feed.outputs(split, index)
        scores = program.output(out).float()
        if out.targets is None:
            raise DataError(say(split.name, "must have targets to score a program that writes", "none"))
        loss += float(torch.nn.functional.cross_entropy(scores, out.targets, reduction="sum"))
        right += int((scores.argmax(1) == out.targets).sum())
        seen += len(out.targets)
    return Metrics(
        accuracy=right / max(1, seen), balanced_accuracy=math.nan, macro_f1=math.nan, loss=loss / max(1, seen),
        confusion=None, scores=torch.empty(len(split), 0), seconds=time.perf_counter() - start,
    )  # fmt: skip
