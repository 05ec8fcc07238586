"""What a fit returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprogram.core.method import Recipe
from reprogram.core.program import Program
from reprogram.fit.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """Inputs that a fit without gradients sent to its source.

    Attributes:
        training: every trial of every input, and passes for a label map.
        validation: inputs of the validation split, each time it was scored.
    """

    training: int
    validation: int


START = -1
"""`FitResult.best_epoch` where the state before the first step is the best. Cards, which count from 1, say 0."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FitResult:
    """A fitted program and how it got there.

    Attributes:
        program: in its best-validation state.
        history: a row an epoch: loss, train, validation (and, if tracked, test) accuracy, seconds.
        validation: metrics of that state; None without a validation split.
        test: the same on test; None without a test split.
        last_test: test metrics of the last epoch's state, for comparison only.
        best_epoch: from 0; `START` for a search whose start was better than every epoch.
        seconds: spent, over all resumptions, scoring included.
        seed: of the fit.
        out: the program file, if one was asked for.
        recipe: what was done.
        queries: of a fit that took no gradients; None for others.
    """

    program: Program
    history: tuple[dict[str, Any], ...]
    validation: Metrics | None
    test: Metrics | None
    last_test: Metrics | None
    best_epoch: int
    seconds: float
    seed: int
    out: Path | None
    recipe: Recipe
    queries: Queries | None = None

    def card(self) -> dict[str, float | int | str | None]:
        """Flat numbers for the program file's card."""
        best_test = [row["test_accuracy"] for row in self.history if "test_accuracy" in row]
        numbers: dict[str, float | int | str | None] = {
            "val_accuracy": self.validation.accuracy if self.validation else None,
            "test_accuracy": self.test.accuracy if self.test else None,
            "test_inputs": len(self.test) if self.test else 0,
            "last_epoch_test_accuracy": self.last_test.accuracy if self.last_test else None,
            "best_epoch": self.best_epoch + 1,
            "epochs": len(self.history),
            "seconds": round(self.seconds, 3),
        }
        if self.queries is not None:
            numbers |= {"training_queries": self.queries.training, "validation_queries": self.queries.validation}
        return numbers | ({"best_test_epoch_accuracy": max(best_test)} if best_test else {})
