"""From measured rows to verdicts: one number a design, rank agreement with an interval, thresholds with their luck."""

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from reprogram.rank.agreement import Agreement, agreement

Row = Mapping[str, Any]
Verdict = Literal["supported", "not supported", "cannot be told"]

RESAMPLES = 500
LUCK = 0.05
FEWEST = 5
"""Designs below which no order is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A statement about two columns, and what the rows say of it.

    Attributes:
        statement: what is claimed, in words.
        where: the rows it was asked of.
        score: one column.
        truth: the other.
        designs: how many designs have both.
        spearman: rank correlation, signed so that above 0 speaks for the statement.
        kendall: the same by pairs.
        interval: 90 % bootstrap interval over designs of `spearman`.
        chance: share of shuffles of one column that give a `spearman` at least as far from 0 on the same side.
        verdict: "supported" if the interval is above 0 and chance below 5 %, "not supported" if the interval is below
            0 and chance likewise, else "cannot be told". The bootstrap alone is too sure of five designs.
        reason: why it cannot be told, where that is not the interval.
    """

    statement: str
    where: str
    score: str
    truth: str
    designs: int
    spearman: float | None
    kendall: float | None
    interval: tuple[float, float] | None
    chance: float | None
    verdict: Verdict
    reason: str = ""

    def sentence(self) -> str:
        """One line for notes and pages."""
        if self.spearman is None:
            return f"{self.statement} ({self.where}): {self.reason}"
        span = f", 90 % interval {self.interval[0]:+.2f} to {self.interval[1]:+.2f}" if self.interval else ""
        luck = f", by chance {self.chance:.3f}" if self.chance is not None else ""
        why = f"; {self.reason}" if self.reason else ""
        return (
            f"{self.statement} ({self.where}): Spearman {self.spearman:+.2f}{span}{luck}, Kendall "
            f"{self.kendall or 0:+.2f}, {self.designs} designs{why}"
        )


def by_design(rows: Iterable[Row], columns: Sequence[str]) -> list[dict[str, Any]]:
    """One row a design and method: the median over seeds of each column, None where a seed has none.

    Seeds are no designs: four seeds of one network are one observation of what a network of that kind is like.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["design"], row["method"]), []).append(row)
    made: list[dict[str, Any]] = []
    for (design, method), members in groups.items():
        first = members[0]
        facts = {k: first.get(k) for k in ("family", "depth", "width", "variant")}
        values = {c: _median([m.get(c) for m in members]) for c in columns}
        made.append({"design": design, "method": method, "seeds": len(members), **facts, **values})
    return made


def ask(
    statement: str, rows: Iterable[Row], where: str, score: str, truth: str = "accuracy", *, higher: bool = True
) -> Claim:  # fmt: skip
    """Does the order of one column follow the other's, over designs?

    Args:
        statement: the claim in words.
        rows: measured rows, all of one method.
        where: what to call them.
        score: a column.
        truth: another.
        higher: whether the statement says that more goes with more.
    """
    means = by_design(rows, [score, truth])
    found = _agreement(score, tuple(m[score] for m in means), tuple(m[truth] for m in means), higher)
    span = found.intervals.get("spearman")
    known = [(m[score], m[truth]) for m in means if m[score] is not None and m[truth] is not None]
    chance = None if found.spearman is None else _chance(tuple(known), abs(found.spearman))
    verdict, reason = _judge(found, span, chance)
    return Claim(
        statement=statement, where=where, score=score, truth=truth, designs=found.sources, spearman=found.spearman,
        kendall=found.kendall, interval=span, chance=chance, verdict=verdict, reason=reason,
    )  # fmt: skip


@functools.lru_cache(4096)
def _chance(pairs: tuple[tuple[float, float], ...], reached: float, shuffles: int = 4000) -> float:
    x, y = (_ranks([p[i] for p in pairs]) for i in (0, 1))
    generator = np.random.default_rng(0)
    shuffled = np.stack([generator.permutation(y) for _ in range(shuffles)]) @ x
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(1 + (shuffled / size >= reached - 1e-9).sum()) / (1 + shuffles)


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Centred ranks, ties sharing the mean."""
    given = np.array(values, dtype=float)
    return np.sign(given[:, None] - given[None, :]).sum(1)


@functools.lru_cache(4096)
def _agreement(
    name: str, score: tuple[float | None, ...], truth: tuple[float | None, ...], higher: bool
) -> Agreement:  # fmt: skip
    return agreement(name, score, truth, higher=higher, resamples=RESAMPLES)  # tables and notes ask again and again


def _judge(found: Agreement, span: tuple[float, float] | None, chance: float | None) -> tuple[Verdict, str]:
    if span is None or chance is None:
        return "cannot be told", found.reason
    if found.sources < FEWEST:
        return "cannot be told", f"fewer than {FEWEST} designs"
    if span[0] <= 0 <= span[1]:
        return "cannot be told", "the interval contains 0"
    if chance >= LUCK:
        return "cannot be told", "chance alone does as well too often"
    return ("supported", "") if span[0] > 0 else ("not supported", "the order is the opposite one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Designs on both sides of a value of a score; `separates` if the worst above is no worse than the best below."""

    value: float
    above: int
    below: int
    accuracy_above: float
    accuracy_below: float
    separates: bool


def thresholds(rows: Iterable[Row], score: str, truth: str = "accuracy") -> list[Threshold]:
    """Every way to cut the designs in two by a score, at the geometric middle between neighbours.

    >>> rows = [{"design": d, "method": "vp", "s": s, "accuracy": a} for d, s, a in
    ...         (("a", 1.0, 0.2), ("b", 100.0, 0.6))]
    >>> thresholds(rows, "s")
    [Threshold(value=10.0, above=1, below=1, accuracy_above=0.6, accuracy_below=0.2, separates=True)]
    """
    pairs = sorted(_pairs(rows, score, truth))
    made: list[Threshold] = []
    for (low, _), (high, _) in itertools.pairwise(pairs):
        if low == high:
            continue
        cut = math.sqrt(low * high) if low > 0 else (low + high) / 2
        above, below = [t for s, t in pairs if s > cut], [t for s, t in pairs if s <= cut]
        if above and below:
            made.append(Threshold(
                value=cut, above=len(above), below=len(below), accuracy_above=float(np.mean(above)),
                accuracy_below=float(np.mean(below)), separates=min(above) >= max(below),
            ))  # fmt: skip
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The cut with the largest gap in standard errors, and how often shuffled accuracies give as large a one."""

    best: Threshold
    gap: float
    chance: float


def best_split(rows: Iterable[Row], score: str, truth: str = "accuracy", *, shuffles: int = 2000) -> Split | None:
    """The best of all cuts, judged against the best of all cuts of shuffled data; None with fewer than 5 designs.

    The cut is chosen after seeing the data; the shuffles choose theirs the same way, so `chance` is fair.
    """
    kept = list(rows)
    pairs = sorted(_pairs(kept, score, truth))
    cuts = thresholds(kept, score, truth)
    if len(pairs) < FEWEST or not cuts:
        return None
    values = np.array([t for _, t in pairs])
    sizes = np.array([c.below for c in cuts])
    gaps = _gaps(values, sizes)
    generator = np.random.default_rng(0)
    luck = [float(_gaps(generator.permutation(values), sizes).max()) for _ in range(shuffles)]
    best = int(gaps.argmax())
    chance = (1 + sum(one >= gaps[best] - 1e-12 for one in luck)) / (1 + shuffles)
    return Split(best=cuts[best], gap=cuts[best].accuracy_above - cuts[best].accuracy_below, chance=chance)


def _gaps(values: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Mean above minus mean below for each size of the lower part, over its standard error up to a common factor."""
    total, count = np.cumsum(values), len(values)
    low, high = total[below - 1], total[-1] - total[below - 1]
    return (high / (count - below) - low / below) / np.sqrt(1 / below + 1 / (count - below))


def _pairs(rows: Iterable[Row], score: str, truth: str) -> list[tuple[float, float]]:
    means = by_design(rows, [score, truth])
    return [(m[score], m[truth]) for m in means if m[score] is not None and m[truth] is not None]


def _median(values: Sequence[Any]) -> float | None:
    if any(v is None or (isinstance(v, float) and not math.isfinite(v)) for v in values):
        return None
    return float(np.median([float(v) for v in values]))
