"""Small value types that programs and fits return."""

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor


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
    """Scores [N, T] for N inputs, with readings of them.

    >>> p = Predictions(torch.tensor([[0.0, 2.0]]), ("cat", "dog"))
    >>> p.labels, round(float(p.confidence[0]), 4)
    (['dog'], 0.8808)
    """

    scores: Tensor
    classes: tuple[str, ...] | None = None

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of the scores, [N, T]."""
        return self.scores.softmax(-1)

    @cached_property
    def indices(self) -> Tensor:
        """Predicted class numbers, [N]."""
        return self.scores.argmax(-1) if self.scores.numel() else torch.empty(0, dtype=torch.int64)

    @property
    def labels(self) -> list[str]:
        """Predicted class names, or numbers as text where the program knows no names."""
        return [self.classes[i] if self.classes else str(i) for i in cast("list[int]", self.indices.tolist())]  # pyright: ignore[reportUnknownMemberType]

    @property
    def confidence(self) -> Tensor:
        """Probability of each predicted class, [N]."""
        return self.probabilities.max(-1).values

    def __len__(self) -> int:
        return len(self.scores)
