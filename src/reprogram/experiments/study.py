"""A study: an experiment on a mechanism, whose cells are its own instead of sources times methods.

What it shares with the other experiments: cells on disk, a table, all numbers, a page, and a note with verdicts.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from reprogram.core.errors import ConfigError, say
from reprogram.experiments.cells import Ledger
from reprogram.experiments.claims import FEWEST, Row, Verdict
from reprogram.experiments.options import Options
from reprogram.report.experiment import Chart, Sheet

Cell = Mapping[str, Any]
"""All that the rows of a cell depend on, as plain values; "name" is what a progress line calls it."""

Measure = Callable[[Cell], Sequence[Row]]
Tell = Callable[[str], None]

CONFIDENCE = 0.9
SEEDS = 5
"""With fewer no interval of the median has 90 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A statement about a number, and what was measured of it.

    Attributes:
        statement: what is claimed, in words.
        where: the rows it was asked of.
        values: what was measured, one number a seed (or a layer, for `within`).
        limit: what the number is claimed to be above, or at most.
        middle: the median; the largest for `within`.
        interval: of the median, at least 90 %; None for `within`, and with too few seeds.
        verdict: of `compared` and `within`.
        reason: why it cannot be told, or does not hold.
        unit: "%" for shares, else nothing.
    """

    statement: str
    where: str
    values: tuple[float, ...]
    limit: float
    middle: float | None
    interval: tuple[float, float] | None
    verdict: Verdict
    reason: str = ""
    unit: str = ""

    def sentence(self) -> str:
        """One line for notes and pages."""
        if self.middle is None:
            return f"{self.statement} ({self.where}): {self.reason}"
        what = "largest" if not self.unit else "median"
        span = ""
        if self.interval is not None:
            span = f", 90 % interval {self._text(self.interval[0])} to {self._text(self.interval[1])}"
        why = f"; {self.reason}" if self.reason else ""
        return (
            f"{self.statement} ({self.where}): {what} {self._text(self.middle)}{span}, {len(self.values)} values{why}"
        )

    def _text(self, value: float) -> str:
        return f"{value:.1%}" if self.unit else f"{value:.2g}"


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The narrowest pair of order statistics that holds the median with 90 %, whatever the distribution.

    The k-th smallest and k-th largest of n independent values hold it with ``1 - 2^(1-n) sum_{i<k} C(n, i)``. None
    where even the smallest and the largest do not: below five values.

    >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0]), median_interval([1.0, 2.0, 3.0, 4.0])
    ((1.0, 5.0), None)
    >>> median_interval([float(i) for i in range(8)])
    (1.0, 6.0)
    """
    n, best, tail = len(values), 0, 0
    for k in range(1, n // 2 + 1):
        tail += comb(n, k - 1)
        if 1 - 2 * tail / 2**n >= CONFIDENCE:
            best = k
    ordered = sorted(values)
    return (ordered[best - 1], ordered[-best]) if best else None


def mean(numbers: Sequence[float]) -> float:
    """Their mean.

    >>> mean([1.0, 2.0])
    1.5
    """
    return sum(numbers) / len(numbers)


def median(numbers: Sequence[float]) -> float:
    """Their median.

    >>> median([3.0, 1.0]), median([3.0, 1.0, 0.0])
    (2.0, 1.0)
    """
    return float(np.median(numbers))


def compared(statement: str, where: str, values: Sequence[float], above: float = 0.0) -> Finding:
    """Is the median of a share, or of a difference of shares, above a limit?

    Args:
        statement: the claim in words.
        where: what the rows are.
        values: one a seed.
        above: the limit. "supported" if the interval of the median is above it, "not supported" if all of it is at or
            below it, else "cannot be told".
    """
    span = median_interval(values)
    middle = median(values) if values else None
    verdict: Verdict = "cannot be told"
    reason = f"fewer than {FEWEST} seeds" if values else "nothing was measured"
    if span is not None:
        reason = f"the interval contains {above:.0%}"
        if span[0] > above:
            verdict, reason = "supported", ""
        elif span[1] <= above:
            verdict, reason = "not supported", f"it is not above {above:.0%}"
    return Finding(statement=statement, where=where, values=tuple(values), limit=above, middle=middle, interval=span,
                   verdict=verdict, reason=reason, unit="%")  # fmt: skip


def within(statement: str, where: str, values: Sequence[float], most: float) -> Finding:
    """Is every number at most a limit? For statements that hold exactly, up to rounding.

    Args:
        statement: the claim in words.
        where: what the rows are.
        values: all that were measured.
        most: the limit.
    """
    if not values:
        return Finding(statement=statement, where=where, values=(), limit=most, middle=None, interval=None,
                       verdict="cannot be told", reason="nothing was measured")  # fmt: skip
    holds = max(values) <= most
    return Finding(
        statement=statement, where=where, values=tuple(values), limit=most, middle=max(values), interval=None,
        verdict="supported" if holds else "not supported", reason="" if holds else f"more than {most:.2g}",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study.

    Attributes:
        name: what users type.
        title: of its page.
        question: one or two sentences.
        cells: what is to be measured, in the order in which it is.
        bench: makes what measures a cell, once a run; what cells share is loaded there, when it is first needed.
        judge: the rows' verdicts.
        charts: of all rows.
        sheets: tables.
        remarks: further sentences that follow from the rows.
        protocol: how it was done, line by line.
        caveats: how far to trust it.
        ready: whether `options.sources` may name the source.
        takes: further options that it has a use for, by name.
    """

    name: str
    title: str
    question: str
    cells: Callable[[Options], Sequence[Cell]]
    bench: Callable[[Options], Measure]
    judge: Callable[[Sequence[Row]], Sequence[Finding]]
    charts: Callable[[Sequence[Row]], Sequence[Chart]]
    sheets: Callable[[Sequence[Row]], Sequence[Sheet]]
    protocol: Callable[[Options], Sequence[str]]
    remarks: Callable[[Sequence[Row]], Sequence[str]] = lambda _: ()
    caveats: Sequence[str] = ()
    ready: bool = False
    takes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFindings:
    """All that came out of a study: as for an experiment, with `Finding`s for claims."""

    study: Study
    options: Options
    rows: Sequence[Row]
    claims: Sequence[Finding]
    seconds: float


def conduct(study: Study, options: Options, tell: Tell) -> StudyFindings:
    """Measure the cells of a study that have not been measured, and judge all rows.

    Args:
        study: which.
        options: `out`, `seeds`, `quick`, `command`, and `sources` where the study is `ready`.
        tell: is given a line after each cell.

    Raises:
        ConfigError: an option is set that means nothing here, or there are several sources.
        SourceError, MissingExtraError: the source cannot be loaded.
    """
    _check(study, options)
    start = time.perf_counter()
    ledger, measure = Ledger(options.out / "cells"), study.bench(options)
    todo = [{"study": study.name, **cell} for cell in study.cells(options)]
    there = sum(ledger.has(cell) for cell in todo)
    if there:
        tell(f"{there} of {len(todo)} cells are there already.")
    rows: list[Row] = []
    for i, cell in enumerate(todo, start=1):
        new = not ledger.has(cell)
        rows += ledger.row(cell, lambda cell=cell: {"rows": [dict(row) for row in measure(cell)]})["rows"]
        if new:
            tell(f"{i}/{len(todo)} {cell['name']}: {time.perf_counter() - start:.0f} s so far")
    return StudyFindings(
        study=study, options=options, rows=rows, claims=study.judge(rows), seconds=time.perf_counter() - start
    )


def _check(study: Study, options: Options) -> None:
    known = {f.name: f.default for f in fields(Options)}
    names = ("source_task", "task", "methods", "samples", "epochs", "size", "train")
    foreign = [n for n in names if n not in study.takes and getattr(options, n) != known[n]]
    if foreign:
        raise ConfigError(say("options", f"must leave out what {study.name} has no use for", foreign))
    if options.sources and (not study.ready or len(options.sources) > 1):
        need = "must name one at most" if study.ready else f"must be left out for {study.name}"
        raise ConfigError(say("sources", need, list(options.sources)))


def plain_options(options: Options) -> dict[str, Any]:
    """The options as plain values, for `result.json`."""
    known, found = ("out", "sources", "seeds", "quick", "command"), dict[str, Any]()
    for f in fields(Options):
        value = getattr(options, f.name)
        if f.name in known or (f.name in ("task", "epochs", "size", "train") and value != f.default):
            found[f.name] = str(value) if isinstance(value, Path) else value
    return found
