"""From rows to verdicts."""

import random

import pytest

from reprogram.experiments.claims import ask, best_split, by_design, thresholds


def rows(pairs, method="vp", seeds=1):
    return [
        {"design": f"d{i}", "method": method, "family": "mlp", "depth": i, "seed": s, "score": a, "accuracy": b}
        for i, (a, b) in enumerate(pairs)
        for s in range(seeds)
    ]


def test_seeds_are_no_designs():
    some = [
        {"design": "a", "method": "vp", "seed": s, "score": v, "accuracy": 0.1} for s, v in enumerate([1.0, 9.0, 2.0])
    ]
    (row,) = by_design(some, ["score"])
    assert (row["score"], row["seeds"]) == (2.0, 3)
    some[0]["score"] = None
    assert by_design(some, ["score"])[0]["score"] is None
    some[0]["score"] = float("nan")
    assert by_design(some, ["score"])[0]["score"] is None
    assert ask("x", rows([(1, 1), (2, 2), (3, 3)], seeds=4), "", "score").designs == 3


def test_verdicts():
    rising = [(i, i / 10) for i in range(8)]
    found = ask("More is better", rows(rising), "here", "score")
    assert (found.verdict, found.spearman) == ("supported", pytest.approx(1))
    assert "Spearman +1.00" in found.sentence()
    assert ask("Less is better", rows(rising), "here", "score", higher=False).verdict == "not supported"
    assert found.chance < 0.001
    shaky = [(0, 0.1), (1, 0.3), (2, 0.2), (3, 0.5), (4, 0.4)]  # 0.8 with an interval above 0, but 1 in 15 by chance
    found = ask("More is better", rows(shaky), "here", "score")
    assert found.spearman == pytest.approx(0.8)
    assert found.chance == pytest.approx(8 / 120, abs=0.015)
    assert found.verdict == "cannot be told"
    mixed = [(0, 0.4), (1, 0.1), (2, 0.5), (3, 0.2), (4, 0.3), (5, 0.35)]
    assert ask("More is better", rows(mixed), "here", "score").verdict == "cannot be told"


def test_few_designs_and_missing_scores_tell_nothing():
    few = ask("x", rows([(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]), "here", "score")
    assert few.verdict == "cannot be told"
    assert "few" in few.reason
    none = ask("x", rows([(None, 0.1), (None, 0.2)]), "here", "score")
    assert (none.verdict, none.spearman) == ("cannot be told", None)
    assert none.reason in none.sentence()
    same = ask("x", rows([(1, i / 10) for i in range(6)]), "here", "score")
    assert "same for all" in same.sentence()


def test_thresholds_cut_between_neighbours():
    cuts = thresholds(rows([(1, 0.2), (4, 0.3), (4, 0.5), (16, 0.9)]), "score")
    assert [c.value for c in cuts] == [2, 8]
    assert [(c.below, c.above) for c in cuts] == [(1, 3), (3, 1)]
    assert cuts[1].accuracy_below == pytest.approx(1 / 3)
    assert all(c.separates for c in cuts)
    assert not thresholds(rows([(1, 0.4), (2, 0.3)]), "score")[0].separates
    assert thresholds(rows([(1, 0.4), (1, 0.3)]), "score") == []


def test_the_best_cut_is_judged_against_luck():
    random.seed(0)
    clear = [(i, 0.2 + 0.6 * (i > 5) + random.random() / 50) for i in range(12)]
    found = best_split(rows(clear), "score")
    assert found.best.value == pytest.approx(30**0.5)
    assert found.gap == pytest.approx(0.6, abs=0.02)
    assert found.chance < 0.01
    chances = [best_split(rows([(i, random.random()) for i in range(10)]), "score", shuffles=200).chance
               for _ in range(60)]  # fmt: skip
    assert 0 <= sum(c < 0.1 for c in chances) <= 14  # 6 are expected; the maximum over cuts is accounted for
    assert 0.3 < sum(chances) / 60 < 0.7
    assert best_split(rows([(1, 0.1), (2, 0.2)]), "score") is None
