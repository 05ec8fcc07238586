"""Orders compared: against scipy, with ties, missing scores and scores that say nothing."""

import importlib
import sys

import numpy as np
import pytest
from scipy import stats

from reprogram.core.errors import DataError, MissingExtraError
from reprogram.rank.agreement import agreement

module = importlib.import_module("reprogram.rank.agreement")  # the room may have a function of this name

TRUTH = [0.3, 0.5, 0.52, 0.7, 0.8, 0.81, 0.9]
SCORE = [1.0, 3.0, 2.0, 3.0, 5.0, 4.0, 9.0]


def test_point_values_are_scipys():
    found = agreement("s", SCORE, TRUTH, resamples=100)
    assert found.sources == 7
    assert found.kendall == pytest.approx(stats.kendalltau(SCORE, TRUTH).statistic)
    assert found.weighted == pytest.approx(stats.weightedtau(SCORE, TRUTH).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(SCORE, TRUTH).statistic)
    assert found.regret == 0
    assert not found.reason
    for name, (low, high) in found.intervals.items():
        assert -1 <= low <= getattr(found, name) <= high <= 1


def test_bootstrap_measures_are_scipys_too():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 9).astype(float), rng.normal(size=9)
    rows = rng.integers(9, size=(20, 9))
    found = zip(module._kendalls(x, y, rows), module._weighteds(x, y, rows), module._spearmans(x, y, rows), strict=True)
    for d, (tau, weighted, rho) in zip(rows, found, strict=True):
        assert tau == pytest.approx(stats.kendalltau(x[d], y[d]).statistic, abs=1e-12)
        assert weighted == pytest.approx(stats.weightedtau(x[d], y[d]).statistic, abs=1e-12)
        assert rho == pytest.approx(stats.spearmanr(x[d], y[d]).statistic, abs=1e-12)


def test_a_score_where_less_is_better_is_turned_round():
    up, down = agreement("s", SCORE, TRUTH), agreement("s", [-s for s in SCORE], TRUTH, higher=False)
    assert up == down


def test_the_interval_repeats_and_narrows_with_more_sources():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=40)
    score = truth + rng.normal(size=40)
    few, many = (agreement("s", list(score[:n]), list(truth[:n])) for n in (8, 40))
    assert agreement("s", list(score[:8]), list(truth[:8])).intervals == few.intervals
    assert agreement("s", list(score[:8]), list(truth[:8]), seed=1).intervals != few.intervals
    width = {n: a.intervals["kendall"][1] - a.intervals["kendall"][0] for n, a in ((8, few), (40, many))}
    assert width[40] < width[8]


def test_missing_values_are_left_out_and_counted():
    found = agreement("s", [*SCORE, None, 5.0, float("nan")], [*TRUTH, 0.1, None, 0.2], resamples=20)
    assert found.sources == 7
    assert found.kendall == agreement("s", SCORE, TRUTH, resamples=20).kendall


@pytest.mark.parametrize(
    ("score", "truth", "reason"),
    [
        ([1.0, None, 2.0], [0.1, 0.2, 0.3], "only 2"),
        ([], [], "only 0"),
        ([2.0, 2.0, 2.0], [0.1, 0.2, 0.3], "same for all"),
        ([1.0, 2.0, 3.0], [0.2, 0.2, 0.2], "turned out the same"),
    ],
)
def test_what_cannot_be_had_is_none_with_a_reason(score, truth, reason):
    found = agreement("s", score, truth)
    assert (found.kendall, found.weighted, found.spearman, dict(found.intervals)) == (None, None, None, {})
    assert reason in found.reason


def test_a_few_sources_have_values_but_no_interval():
    found = agreement("s", SCORE[:4], TRUTH[:4])
    assert found.kendall is not None
    assert not found.intervals
    assert "too few for an interval" in found.reason


def test_regret_of_ties_is_their_mean():
    assert agreement("s", [2.0, 2.0, 1.0], [0.5, 0.7, 0.9]).regret == pytest.approx(0.3)
    assert agreement("s", [7.0, 7.0], [0.5, 0.7]).regret == pytest.approx(0.1)


def test_different_lengths():
    with pytest.raises(DataError):
        agreement("s", [1.0], [1.0, 2.0])


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtraError, match=r"reprogram\[rank\]"):
        agreement("s", SCORE, TRUTH)
