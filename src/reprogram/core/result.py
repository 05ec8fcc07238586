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

    >>> p = Predictions(torch.tensor([[0.0, 2.0]]), ("cat", "dog"))
    >>> p.labels, round(float(p.confidence[0]), 4)
    (['dog'], 0.8808)
    """

    scores: Tensor
    classes: tuple[str, ...] | None = None
    answers: tuple[Answer, ...] | None = None

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
        """Predicted class names, or numbers as text where the program knows no names.

        Of programs that read answers off texts: the answers, empty where there was none to be read.
        """
        if self.answers is not None:
            return [answer.value or "" for answer in self.answers]
        return [self.classes[i] if self.classes else str(i) for i in cast("list[int]", self.indices.tolist())]  # pyright: ignore[reportUnknownMemberType]

    @property
    def confidence(self) -> Tensor:
        """Probability of each predicted class, [N]; of answers, the share of the texts that say so, 0 without one."""
        if self.answers is not None:
            return torch.tensor([a.share if a.value is not None else 0.0 for a in self.answers])
        return self.probabilities.max(-1).values

    def __len__(self) -> int:
        return len(self.scores)
