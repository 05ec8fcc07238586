"""What a search found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from reprogram.core.plain import plain
from reprogram.core.program import Program
from reprogram.fit import Metrics

State = Literal["complete", "pruned", "failed", "cut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One try.

    Attributes:
        number: from 0, in the order in which they began.
        source: reference of the source.
        settings: that were tried, by full name.
        state: "complete"; "pruned", it fell behind; "failed", an error of ours; "cut", it was interrupted.
        accuracy: on validation, of the best epoch so far; None if it got to none.
        loss: validation loss of that epoch, for ties.
        learned: numbers that are learned and can reach the output.
        epochs: that were gone through.
        seconds: spent.
        reason: of a failure.
        same_as: the earlier trial with the same settings whose outcome this is; fits repeat exactly.
    """

    number: int
    source: str
    settings: Mapping[str, Any]
    state: State
    accuracy: float | None = None
    loss: float | None = None
    learned: int | None = None
    epochs: int = 0
    seconds: float = 0.0
    reason: str = ""
    same_as: int | None = None

    @property
    def order(self) -> tuple[float, float, int]:
        """For sorting: the best first. By validation accuracy, then validation loss, then by age."""
        accuracy = -1.0 if self.accuracy is None else self.accuracy
        return (-accuracy, float("inf") if self.loss is None else self.loss, self.number)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SearchResult:
    """All that came out of a search.

    Attributes:
        method: name.
        task: name.
        trials: complete ones from the best on, by validation; then the others in the order in which they began.
        program: of the first trial, as it was fitted.
        validation: its metrics.
        test: the same on test, scored this once; None without a test split.
        space: what was searched, by setting.
        pinned: what was not.
        importance: share of the differences between trials that a setting explains; empty where it cannot be told.
        seed: of everything.
        seconds: this run took.
        out: the winner's program file.
        folder: where trials are kept; None for memory.
    """

    method: str
    task: str
    trials: tuple[Trial, ...]
    program: Program
    validation: Metrics
    test: Metrics | None
    space: Mapping[str, str]
    pinned: Mapping[str, Any]
    importance: Mapping[str, float]
    seed: int
    seconds: float
    out: Path | None
    folder: Path | None

    @property
    def best(self) -> Trial:
        """The winner."""
        return self.trials[0]

    def count(self, state: State) -> int:
        """How many trials ended so."""
        return sum(one.state == state for one in self.trials)

    def table(self) -> list[dict[str, Any]]:
        """A flat row a trial, for printing and CSV."""
        names = [*self.space]
        return [
            {"trial": one.number, "state": one.state, "val_accuracy": one.accuracy, "val_loss": one.loss}
            | {name: one.source if name == "source" else one.settings.get(name) for name in names}
            | {"learned": one.learned, "epochs": one.epochs, "seconds": one.seconds, "reason": one.reason}
            for one in self.trials
        ]

    def card(self) -> dict[str, Any]:
        """All of it, as JSON knows it."""
        return plain({
            "method": self.method, "task": self.task, "seed": self.seed, "best": asdict(self.best),
            "val_accuracy": self.validation.accuracy, "val_interval": self.validation.interval(),
            "test_accuracy": self.test.accuracy if self.test else None,
            "test_interval": self.test.interval() if self.test else None,
            "space": dict(self.space), "pinned": dict(self.pinned), "importance": dict(self.importance),
            "states": {s: self.count(s) for s in ("complete", "pruned", "failed", "cut")},
            "trials": [asdict(one) for one in self.trials], "seconds": self.seconds,
            "out": self.out and str(self.out), "folder": self.folder and str(self.folder),
        })  # fmt: skip
