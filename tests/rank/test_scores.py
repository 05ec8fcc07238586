"""Scores against hand-worked tables, exact evidence, and what must hold for any input."""

import math

import pytest
import torch

from reprogram.core.errors import ConfigError, DataError
from reprogram.rank import scores
from reprogram.rank.scores import h_score, knn, leep, log_evidence, logme, nce

ALL = [leep, nce, h_score, logme]


def features(n, d, rank=None, seed=0):
    g = torch.Generator().manual_seed(seed)
    r = rank or min(n, d)
    return (torch.randn(n, r, generator=g) @ torch.randn(r, d, generator=g)).double()


def labelled(n=40, d=6, classes=3, gap=2.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    return torch.randn(n, d, generator=g) + gap * torch.nn.functional.one_hot(y, d), y


def test_leep_and_nce_of_a_table_worked_by_hand():
    # joint of soft predictions: z0: y0 .8+.6=1.4, y1 .3; z1: y0 .2+.4=.6, y1 .7; divided by 3
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    y = torch.tensor([0, 0, 1])
    a0, a1 = 1.4 / 1.7, 0.6 / 1.3
    by_hand = [0.8 * a0 + 0.2 * a1, 0.6 * a0 + 0.4 * a1, 0.3 * (1 - a0) + 0.7 * (1 - a1)]
    assert leep(p, y, 2) == pytest.approx(sum(map(math.log, by_hand)) / 3, rel=1e-6)
    # hard predictions 0, 0, 1: the label is certain
    assert nce(p, y, 2) == 0.0
    # hard predictions 0, 0, 0, 1 with labels 0, 1, 1, 1: H = 3/4 * H(1/3)
    q = torch.tensor([[0.7, 0.3]] * 3 + [[0.1, 0.9]])
    h = -(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))
    assert nce(q, torch.tensor([0, 1, 1, 1]), 2) == pytest.approx(-0.75 * h, rel=1e-12)


def test_h_score_of_a_table_worked_by_hand():
    # two independent features of variance 1; the first is the class, the second tells nothing
    f = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    assert h_score(f, torch.tensor([0, 0, 1, 1]), 2, ridge=1e-4) == pytest.approx(1 / 1.0001, rel=1e-9)
    # scaling a feature changes nothing but the ridge
    assert h_score(f * torch.tensor([1.0, 3.0]), torch.tensor([0, 0, 1, 1]), 2, ridge=1e-9) == pytest.approx(
        1, rel=1e-6
    )


@pytest.mark.parametrize(("n", "d", "rank"), [(50, 200, None), (200, 50, None), (60, 40, 7), (40, 60, 7)])
@pytest.mark.parametrize(("alpha", "beta"), [(3.0, 2.0), (0.05, 40.0)])
def test_evidence_is_exact_at_the_same_precisions(n, d, rank, alpha, beta):
    f = features(n, d, rank)
    t = (torch.arange(n) % 4 == 0).double()
    found = scores._Regression(f, t[:, None])
    fast = found.evidence(torch.tensor([alpha], dtype=torch.float64), torch.tensor([beta], dtype=torch.float64))
    assert float(fast) == pytest.approx(log_evidence(f, t, alpha, beta) / n, rel=1e-9)


def test_counting_all_columns_instead_of_the_rank_is_not_the_evidence():
    f, t = features(50, 200), (torch.arange(50) % 2).double()
    exact = log_evidence(f, t, 3.0, 2.0) / 50
    wrong = exact + (200 - 50) * math.log(3.0) / (2 * 50)
    fast = scores._Regression(f, t[:, None]).evidence(torch.tensor([3.0]).double(), torch.tensor([2.0]).double())
    assert float(fast) == pytest.approx(exact, abs=1e-9)
    assert abs(float(fast) - wrong) > 1


@pytest.mark.parametrize(("n", "d", "rank"), [(60, 8, None), (200, 50, None), (60, 40, 7), (50, 200, 20)])
def test_the_fixed_point_is_a_maximum_of_the_exact_evidence(n, d, rank):
    f = features(n, d, rank)
    g = torch.Generator().manual_seed(1)
    t = ((f[:, 0] / f[:, 0].std() + torch.randn(n, generator=g).double()) > 0).double()
    alpha, beta = scores._Regression(f, t[:, None]).precisions(1e-10, 5000)
    best = log_evidence(f, t, float(alpha), float(beta))
    for up, down in [(1.05, 1), (1 / 1.05, 1), (1, 1.05), (1, 1 / 1.05)]:
        assert log_evidence(f, t, float(alpha) * up, float(beta) * down) < best + 1e-9
    assert logme(f, t.long(), 2) == pytest.approx(
        (best + _best(f, 1 - t)) / 2 / n, rel=1e-6
    )  # the mean over both classes


def _best(f, t):
    alpha, beta = scores._Regression(f, t[:, None]).precisions(1e-10, 5000)
    return log_evidence(f, t, float(alpha), float(beta))


def test_logme_does_not_depend_on_scale_or_rotation():
    f, y = labelled()
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)).double())[0]
    for other in (f.double() @ turn, f * 1000, f * 1e-4):
        assert logme(other, y, 3) == pytest.approx(logme(f, y, 3), rel=1e-5)


def test_logme_of_degenerate_features_is_finite():
    y = torch.arange(12) % 3
    exact_fit = torch.nn.functional.one_hot(y, 3).double()
    values = [logme(f, y, 3) for f in (torch.zeros(12, 4), torch.ones(12, 4), exact_fit)]
    assert all(math.isfinite(v) for v in values)
    assert values[0] < values[1] < values[2]
    assert math.isfinite(logme(features(8, 30), torch.arange(8) % 2, 5))  # classes 2 to 4 do not occur, N < D
    # noise alone: evidence of N(0, 1/3) at its best precision
    assert values[0] == pytest.approx(-0.5 * math.log(2 * math.pi / 3) - 0.5, rel=1e-9)


def test_h_score_and_knn_of_constant_features():
    y = torch.arange(12) % 3
    assert h_score(torch.ones(12, 4), y, 3) == 0.0
    assert 0 <= knn(torch.ones(12, 4), y) <= 1
    assert 0 <= knn(torch.zeros(12, 4), y) <= 1


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_knn_against_a_loop(metric):
    f, y = labelled(gap=1.0)
    far = torch.cdist(f, f) if metric == "euclidean" else 1 - torch.cosine_similarity(f[:, None], f[None], dim=2)
    right = 0
    for i in range(len(f)):
        near = [int(y[j]) for j in sorted((j for j in range(len(f)) if j != i), key=lambda j: float(far[i, j]))[:5]]
        votes = [sum(1 + 1e-3 / (place + 1) for place, one in enumerate(near) if one == c) for c in range(3)]
        right += votes.index(max(votes)) == int(y[i])
    assert knn(f, y, metric=metric) == pytest.approx(right / len(f))


@pytest.mark.parametrize("score", ALL)
def test_order_of_pictures_and_names_of_classes_do_not_matter(score):
    f, y = labelled()
    value = f.softmax(1) if score in (leep, nce) else f
    order, names = torch.randperm(40, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0, 1])
    assert score(value[order], y[order], 3) == pytest.approx(score(value, y, 3), rel=1e-9)
    assert score(value, names[y], 3) == pytest.approx(score(value, y, 3), rel=1e-9)


@pytest.mark.parametrize("score", [*ALL, lambda f, y, _: knn(f, y)])
def test_more_signal_scores_higher(score):
    def at(gap):
        f, y = labelled(n=90, gap=gap)
        return score(f.softmax(1) if score in (leep, nce) else f, y, 3)

    assert at(0.0) < at(1.5) < at(6.0)


def test_bounds():
    f, y = labelled(gap=0.5)
    assert leep(f.softmax(1), y, 3) <= 0
    assert nce(f.softmax(1), y, 3) <= 0
    assert 0 <= h_score(f, y, 3) <= 2
    assert leep(torch.full((40, 6), 1 / 6), y, 3) == pytest.approx(
        sum(c / 40 * math.log(c / 40) for c in torch.bincount(y).tolist())
    )  # nothing known: minus the entropy of the labels
    assert nce(torch.full((40, 6), 1 / 6), y, 3) == pytest.approx(leep(torch.full((40, 6), 1 / 6), y, 3))


@pytest.mark.parametrize("score", ALL)
def test_bad_input_is_an_error(score):
    f, y = labelled()
    good = f.softmax(1)
    broken = good.clone()
    broken[3, 2] = float("nan")
    for value, labels, classes, words in [
        (good, torch.zeros(40, dtype=torch.int64), 3, "two classes"),
        (broken, y, 3, "finite"),
        (good, y[:-1], 3, r"labels \[N\]"),
        (good[:, 0], y, 3, r"\[N, D\]"),
        (good, y, 2, "class numbers"),
        (good, y.float(), 3, "class numbers"),
        (good[:0], y[:0], 3, "two classes"),
    ]:
        with pytest.raises(DataError, match=words):
            score(value, labels, classes)


def test_more_bad_input():
    f, y = labelled()
    with pytest.raises(DataError, match="softmax"):
        leep(f, y, 3)
    with pytest.raises(ConfigError, match="ridge"):
        h_score(f, y, 3, ridge=0)
    with pytest.raises(ConfigError, match="cosine"):
        knn(f, y, metric="manhattan")
    with pytest.raises(DataError):
        knn(f, torch.zeros(40, dtype=torch.int64))
    with pytest.raises(DataError):
        log_evidence(f, torch.zeros(3), 1.0, 1.0)
