"""Results as tables and as plain numbers: a program and what it is compared with."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from reprogram.cli._run import grid

if TYPE_CHECKING:
    from rich.table import Table

    from reprogram.core.result import Parameters
    from reprogram.fit import FitResult, Metrics
    from reprogram.report import Control

NUMBERS = ("accuracy", "95 % interval", "learned", "effective", "fitted", "seconds")


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.8625)
    '86.2 %'
    """
    return f"{100 * share:.1f} %"


def interval(metrics: "Metrics") -> str:
    """The 95 % interval of an accuracy, short."""
    low, high = metrics.interval()
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def row(name: str, test: "Metrics | None", count: "Parameters", seconds: float) -> list[str]:
    """A line of `scores`."""
    score = ["-", "-"] if test is None else [percent(test.accuracy), interval(test)]
    return [name, *score, f"{count.allocated:,}", f"{count.effective:,}", f"{count.fitted:,}", f"{seconds:.1f}"]


def scores(rows: Sequence[Sequence[str]], title: str = "program", split: str = "test") -> "Table":
    """Accuracies with their intervals, sizes and times, side by side."""
    names = {"accuracy": split, "95 % interval": "95 % interval"}
    heads = [names.get(n, n) for n in NUMBERS]
    return grid([title, *heads], rows, right=heads)


def facts(test: "Metrics | None", count: "Parameters", seconds: float) -> dict[str, Any]:
    """The same for `--json`."""
    found: dict[str, Any] = {"test": None, "parameters": asdict(count), "seconds": round(seconds, 3)}
    if test is not None:
        found["test"] = {"inputs": len(test), **test.brief(), "interval": list(test.interval())}
    return found


def comparison(result: "FitResult", controls: "Sequence[Control]") -> list[list[str]]:
    """A program's line and its controls'."""
    name = result.program.origin.method if result.program.origin else "program"
    return [
        row(name, result.test, result.program.count(), result.seconds),
        *(row(c.name, c.test, c.parameters, c.seconds) for c in controls),
    ]
