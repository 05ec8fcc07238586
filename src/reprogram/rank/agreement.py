"""How well the order that a score gives agrees with how the sources really turned out."""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np

from reprogram.core.errors import DataError, missing_extra, say

LEVEL = 0.9
"""Of the bootstrap intervals."""

ENOUGH = 5
"""Sources that an interval needs: resamples of fewer are mostly the same few."""

_MEASURES = ("kendall", "weighted", "spearman")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of one score with the truth, over the sources that have both.

    Attributes:
        score: its name.
        sources: how many have it.
        kendall: tau-b, ties counted as ties: 1 for the same order, -1 for the opposite, about 0 for none.
        weighted: Kendall's tau in which the best sources weigh most (hyperbolic, additive), as the literature uses it.
        spearman: correlation of ranks.
        intervals: 90 % bootstrap interval over sources of each of the three, where one can be had.
        regret: accuracy that is lost by taking the score's first choice, against the best of these sources; the mean
            over first choices that tie.
        reason: why a number is missing, else empty.
    """

    score: str
    sources: int
    kendall: float | None = None
    weighted: float | None = None
    spearman: float | None = None
    intervals: Mapping[str, tuple[float, float]]
    regret: float | None = None
    reason: str = ""

    def card(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self) | {"intervals": {name: list(pair) for name, pair in self.intervals.items()}}


def agreement(
    name: str,
    score: Sequence[float | None],
    truth: Sequence[float | None],
    *,
    higher: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Compare a score's order with the truth's.

    Args:
        name: of the score.
        score: one a source; None for a source that has no such score, which is left out.
        truth: what they reached, such as test accuracy; None leaves a source out, too.
        higher: whether more of the score means better.
        resamples: bootstrap samples of the sources.
        seed: of the bootstrap.

    Returns:
        Numbers that cannot be had (fewer than 3 sources, or no differences to order by) are None, with the reason.

    Raises:
        DataError: the two are of different length.
        MissingExtraError: scipy is not installed.

    >>> found = agreement("probe", [0.1, 0.5, None, 0.7], [0.2, 0.4, 0.9, 0.6], resamples=50)
    >>> found.sources, found.kendall, found.regret
    (3, 1.0, 0.0)
    >>> agreement("depth", [3, 3, 3], [0.2, 0.4, 0.6]).reason
    'the score is the same for all'
    """
    if len(score) != len(truth):
        raise DataError(say(name, "must have a value or None for every source", (len(score), len(truth))))
    both = [(s, t) for s, t in zip(score, truth, strict=True) if _known(s) and _known(t)]
    x = np.array([s for s, _ in both], dtype=float) * (1 if higher else -1)
    y = np.array([t for _, t in both], dtype=float)
    reason = _why_not(x, y)
    lost = regret(x, y) if len(x) >= 2 else None
    if reason:
        return Agreement(score=name, sources=len(x), intervals={}, regret=lost, reason=reason)
    kendall, weighted, spearman = (_of(measure)(x, y) for measure in _MEASURES)
    intervals, reason = _intervals(x, y, resamples, seed)
    return Agreement(score=name, sources=len(x), kendall=kendall, weighted=weighted, spearman=spearman,
                     intervals=intervals, regret=lost, reason=reason)  # fmt: skip


def regret(score: np.ndarray, truth: np.ndarray) -> float:
    """The best truth minus the truth of the source with the highest score (the mean of those that share it).

    >>> regret(np.array([3.0, 1.0, 3.0]), np.array([0.5, 0.9, 0.7]))
    0.3
    """
    return round(float(truth.max() - truth[score == score.max()].mean()), 12)


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _why_not(x: np.ndarray, y: np.ndarray) -> str:
    if len(x) < 3:
        return f"only {len(x)} of the sources have it, and an order needs 3"
    if np.ptp(x) == 0:
        return "the score is the same for all"
    return "all sources turned out the same" if np.ptp(y) == 0 else ""


def _intervals(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> tuple[dict[str, tuple[float, float]], str]:
    """Percentile intervals; a resample without differences to order by is drawn again, if that is rare."""
    if len(x) < ENOUGH:
        return {}, f"{len(x)} sources are too few for an interval"
    draws = np.random.default_rng(seed).integers(len(x), size=(2 * resamples, len(x)))
    useful = [d for d in draws if np.ptp(x[d]) > 0 and np.ptp(y[d]) > 0][:resamples]
    if resamples < 1 or len(useful) < resamples:
        return {}, "too few differences between the sources for an interval"
    rows = np.stack(useful)
    values = {"kendall": _kendalls(x, y, rows), "weighted": _weighteds(x, y, rows), "spearman": _spearmans(x, y, rows)}
    ends = (1 - LEVEL) / 2
    found = {name: np.quantile(values[name], [ends, 1 - ends]) for name in _MEASURES}
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}, ""


def _kendalls(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Tau-b of each resample, from the signs of all differences."""
    a, b = _signs(x, rows), _signs(y, rows)
    return (a * b).sum((1, 2)) / np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))


def _weighteds(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weighted tau of each resample: a pair weighs 1/place + 1/place, by places in x and in y, and the mean of both."""
    a, b = _signs(x, rows), _signs(y, rows)
    taus = []
    for first, second in ((x, y), (y, x)):
        order = np.lexsort((second[rows], first[rows]), axis=1)[:, ::-1]
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(1, rows.shape[1] + 1)[None, :], axis=1)
        weight = 1 / place[:, :, None] + 1 / place[:, None, :]
        sums = [(weight * signs).sum((1, 2)) for signs in (a * b, a * a, b * b)]
        taus.append(sums[0] / np.sqrt(sums[1] * sums[2]))
    return (taus[0] + taus[1]) / 2


def _spearmans(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Spearman of each resample: a sum of signs is twice a centred rank, ties sharing the mean."""
    a, b = _signs(x, rows).sum(2), _signs(y, rows).sum(2)
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def _signs(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[resamples, n, n]."""
    return np.sign(values[:, None] - values[None, :])[rows[:, :, None], rows[:, None, :]]


def _of(measure: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """One of scipy's measures as a plain function of score and truth."""
    stats = _scipy()
    found = {"kendall": stats.kendalltau, "weighted": stats.weightedtau, "spearman": stats.spearmanr}[measure]
    return lambda x, y: float(cast("Any", found(x, y)).statistic)


def _scipy() -> ModuleType:
    try:
        return importlib.import_module("scipy.stats")
    except ImportError as problem:
        raise missing_extra("scipy", "rank", "Comparing scores with the truth") from problem
