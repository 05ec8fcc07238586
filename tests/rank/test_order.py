"""The rule of the recommended order."""

import pytest

from reprogram.rank.order import Evidence, ranks, recommend


def seen(name, *, chance=False, **scores):
    return Evidence(name=name, scores=scores, at_chance=chance)


def test_gradient_flow_and_neighbours_decide():
    """A random network had the largest eigenvalues of all, so neither source nor program lambda_min is asked."""
    order, reason = recommend([
        seen("a", knn=0.4, gf_loss=0.1, source_lambda_min=9.0, probe_accuracy=0.1),
        seen("b", knn=0.6, gf_loss=0.2, source_lambda_min=1.0, probe_accuracy=0.2),
        seen("c", knn=0.5, gf_loss=0.5, source_lambda_min=5.0, probe_accuracy=0.9),
    ])  # fmt: skip
    assert order == ["b", "a", "c"]  # mean ranks 1.5, 2, 2.5
    assert "gradient-flow loss and kNN" in reason


def test_equal_mean_ranks_go_by_the_probe():
    order, _ = recommend([seen("a", knn=0.4, gf_loss=0.1, probe_accuracy=0.5),
                          seen("b", knn=0.5, gf_loss=0.2, probe_accuracy=0.6)])  # fmt: skip
    assert order == ["b", "a"]


def test_without_features_the_probe_stands_in():
    order, reason = recommend([
        seen("a", gf_loss=0.1, probe_accuracy=0.6),
        seen("b", gf_loss=0.2, probe_accuracy=0.5),
    ])  # fmt: skip
    assert order == ["a", "b"]
    assert "gradient-flow loss and probe accuracy" in reason


def test_sources_at_chance_do_not_count_among_the_others():
    """A twin with a flow loss of zero must not push a trained source's rank down."""
    twins = [seen(f"twin {i}", knn=0.55, gf_loss=0.0, probe_accuracy=0.1, chance=True) for i in range(5)]
    real = [seen("a", knn=0.6, gf_loss=0.2, probe_accuracy=0.5), seen("b", knn=0.5, gf_loss=0.1, probe_accuracy=0.4)]
    assert recommend(twins + real)[0][:2] == recommend(real)[0] == ["a", "b"]


def test_a_probe_at_chance_never_stands_above_one_that_is_not():
    order, reason = recommend([
        seen("twin", gf_loss=0.0, probe_accuracy=0.12, chance=True),
        seen("real", gf_loss=9.0, probe_accuracy=0.5),
    ])  # fmt: skip
    assert order == ["real", "twin"]
    assert reason.endswith("at chance: twin.")


def test_missing_scores_come_last_and_are_said():
    order, reason = recommend([
        seen("a", knn=None, probe_accuracy=0.5),
        seen("b", knn=None, probe_accuracy=0.6),
    ])  # fmt: skip
    assert order == ["b", "a"]
    assert "No source has a gradient-flow loss" in reason
    order, _ = recommend([
        seen("a", knn=None, probe_accuracy=0.5),
        seen("b", knn=0.1, probe_accuracy=0.5),
    ])  # fmt: skip
    assert order == ["b", "a"]


def test_nothing_at_all():
    assert recommend([]) == ([], "In the order given, because no source has a score that could decide.")
    assert recommend([seen("a"), seen("b")])[0] == ["a", "b"]


@pytest.mark.parametrize("higher", [True, False])
def test_places_add_up(higher):
    values = [0.3, 0.1, None, 0.3, 2.0]
    assert sum(ranks(values, higher=higher)) == 15
    assert ranks(values, higher=higher)[2] == 5
