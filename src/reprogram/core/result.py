"""Small value types that programs and fits return."""

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from reprogram.core.writing import Answer


@dataclass(frozen=True, slots=True)
class Parameters:
    """How big a program is.

    Attributes:
        allocated: learned numbers it holds.
        effective: those of them that can reach the output.
        fitted: numbers fitted without gradients (a label mapping), not learned.
    """

    allocated: int
    effective: int
    fitted: int = 0


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores [N, T] for N inputs, with readings of them; also answers, of programs that read them off texts.

    Of dense tasks, scores are [N, T, height, width] and `indices` label maps [N, height, width].

    >>> p = Predictions(torch.tensor([[0.0, 2.0]]), ("cat", "dog"))
    >>> p.labels, round(float(p.confidence[0]), 4)
    (['dog'], 0.8808)
    """

    scores: Tensor
    classes: tuple[str, ...] | None = None
    answers: tuple[Answer, ...] | None = None

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of the scores over the classes, [N, T] or [N, T, height, width]."""
        return self.scores.softmax(1)

    @cached_property
    def indices(self) -> Tensor:
        """Predicted class numbers, [N] or [N, height, width]."""
        return self.scores.argmax(1) if self.scores.numel() else torch.empty(0, dtype=torch.int64)

    @property
    def labels(self) -> list[str]:
        """Predicted class names, or numbers as text where the program knows no names.

        Of programs that read answers off texts: the answers, empty where there was none to be read. Of label maps: the
        names that occur, the largest area first, with commas.
        """
        if self.answers is not None:
            return [answer.value or "" for answer in self.answers]
        if self.indices.ndim > 1:
            return [", ".join(self._name(c) for c in _by_area(one)) for one in self.indices]
        return [self._name(i) for i in cast("list[int]", self.indices.tolist())]  # pyright: ignore[reportUnknownMemberType]

    @property
    def confidence(self) -> Tensor:
        """Probability of each predicted class, [N]; of answers, the share of the texts that say so, 0 without one.

        Of label maps, the mean over their pixels.
        """
        if self.answers is not None:
            return torch.tensor([a.share if a.value is not None else 0.0 for a in self.answers])
        most = self.probabilities.max(1).values
        return most.flatten(1).mean(1) if most.ndim > 1 else most

    def _name(self, index: int) -> str:
        return self.classes[index] if self.classes else str(index)

    def __len__(self) -> int:
        return len(self.scores)


def _by_area(indices: Tensor) -> list[int]:
    """The class numbers of a label map, the most frequent first."""
    counts = indices.flatten().bincount()
    order = counts.argsort(descending=True, stable=True)
    return cast("list[int]", order[counts[order] > 0].tolist())  # pyright: ignore[reportUnknownMemberType]
