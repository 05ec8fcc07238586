"""The rule of the recommended order."""

import pytest

from reprogram.rank.order import Evidence, ranks, recommend


def seen(name, *, full=True, chance=False, **scores):
    return Evidence(name=name, scores=scores, full_rank=full, at_chance=chance)


def test_full_rank_on_all_goes_by_gradient_flow_and_probe():
    order, reason = recommend([
        seen("a", gf_loss=0.3, probe_accuracy=0.6, source_lambda_min=9.0),
        seen("b", gf_loss=0.1, probe_accuracy=0.7, source_lambda_min=1.0),
        seen("c", gf_loss=0.2, probe_accuracy=0.5, source_lambda_min=5.0),
    ])  # fmt: skip
    assert order == ["b", "a", "c"]  # a and c: mean ranks 2.5
    assert "gradient-flow loss and probe accuracy" in reason
    assert "full rank" in reason


def test_one_deficient_kernel_turns_the_rule_to_the_sources_own_spectrum():
    order, reason = recommend([
        seen("a", gf_loss=0.1, probe_accuracy=0.6, source_lambda_min=1.0),
        seen("b", gf_loss=0.9, probe_accuracy=0.7, source_lambda_min=5.0, full=False),
    ])  # fmt: skip
    assert order == ["b", "a"]
    assert "source λ_min and probe accuracy" in reason


def test_a_probe_at_chance_never_stands_above_one_that_is_not():
    order, reason = recommend([
        seen("twin", gf_loss=0.0, probe_accuracy=0.12, chance=True),
        seen("real", gf_loss=9.0, probe_accuracy=0.5),
    ])  # fmt: skip
    assert order == ["real", "twin"]
    assert reason.endswith("at chance: twin.")


def test_missing_scores_come_last_and_are_said():
    order, reason = recommend([
        seen("a", full=False, source_lambda_min=None, probe_accuracy=0.5),
        seen("b", full=False, source_lambda_min=None, probe_accuracy=0.6),
    ])  # fmt: skip
    assert order == ["b", "a"]
    assert "No source has a source λ_min" in reason
    order, _ = recommend([
        seen("a", full=False, source_lambda_min=None, probe_accuracy=0.5),
        seen("b", full=False, source_lambda_min=1e-6, probe_accuracy=0.5),
    ])  # fmt: skip
    assert order == ["b", "a"]


def test_nothing_at_all():
    assert recommend([]) == ([], "In the order given, because no source has a score that could decide.")
    assert recommend([seen("a", full=None), seen("b", full=None)])[0] == ["a", "b"]


@pytest.mark.parametrize("higher", [True, False])
def test_places_add_up(higher):
    values = [0.3, 0.1, None, 0.3, 2.0]
    assert sum(ranks(values, higher=higher)) == 15
    assert ranks(values, higher=higher)[2] == 5
