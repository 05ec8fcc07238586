"""Label maps: equal to the plain rules of `slow`, whatever the sizes, ties and gaps; exact sums; typed errors."""

import inspect
import json
import math

import pytest
import torch
from benchmarks import bench_label_maps
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError
from reprogram.outputs import label_maps
from reprogram.outputs.label_maps import (
    SOFT_UNIT,
    bayesian_map,
    bayesian_map_plus,
    count_pairs,
    frequency_map,
    many_to_one_map,
    predicted_classes,
    random_map,
    top_counts,
    top_size,
)
from tests.outputs import slow

often = settings(deadline=None, max_examples=60, derandomize=True)
sizes = st.integers(1, 12)
seeds = st.integers(0, 2**31)
reals = [torch.int64, torch.float32]
kinds = st.sampled_from([torch.int64, torch.int32, torch.int16, torch.uint8])


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels(n: int, classes: int, seed: int) -> Tensor:
    """Skewed, so that some classes are absent and counts tie."""
    return (torch.rand(n, generator=draw(seed)) ** 2 * classes).long().clamp_max(classes - 1)


def scores(n: int, s: int, seed: int) -> Tensor:
    return torch.randn(n, s, generator=draw(seed)) * 2


def table(s: int, t: int, seed: int, top: int) -> Tensor:
    """Counts up to `top`, small for ties, about half of them zero."""
    return (torch.randint(-top, top + 1, (s, t), generator=draw(seed))).clamp_min(0)


def parts(n: int, seed: int) -> list[Tensor]:
    """A random split of a random order of n samples, empty parts included."""
    order = torch.randperm(n, generator=draw(seed))
    cuts = torch.randint(0, n + 1, (3,), generator=draw(seed + 1)).sort().values.tolist()
    return [order[a:b] for a, b in zip([0, *cuts], [*cuts, n], strict=True)]


def bare(function):
    """Without the runtime shape checker, which refuses some wrong arguments before the function itself can."""
    return inspect.unwrap(function)


# Counts


@often
@given(n=st.integers(0, 60), s=sizes, t=sizes, seed=seeds, kind=kinds)
def test_counts_equal_the_plain_rule(n, s, t, seed, kind):
    predicted, target = labels(n, s, seed), labels(n, t, seed + 1)
    found = count_pairs(predicted.to(kind), target.to(kind), s, t)
    assert found.dtype == torch.int64
    assert found.tolist() == slow.counts(predicted.tolist(), target.tolist(), s, t)


@often
@given(n=st.integers(0, 60), s=sizes, t=sizes, seed=seeds)
def test_counts_are_the_same_in_any_batches_and_any_order(n, s, t, seed):
    predicted, target = labels(n, s, seed), labels(n, t, seed + 1)
    whole = count_pairs(predicted, target, s, t)
    streamed = torch.zeros_like(whole)
    for part in parts(n, seed):
        assert count_pairs(predicted[part], target[part], s, t, out=streamed) is streamed
    merged = sum(count_pairs(predicted[part], target[part], s, t) for part in parts(n, seed + 7))
    assert torch.equal(streamed, whole)
    assert torch.equal(merged, whole)


def test_a_class_missing_from_the_sample_keeps_its_column():
    assert count_pairs(torch.tensor([0, 1]), torch.tensor([0, 4]), 2, 5).tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("predicted", "target", "name"),
    [([0, 3], [0, 0], "predicted"), ([0, -1], [0, 0], "predicted"), ([0, 0], [2, 0], "target"), ([0], [-1], "target")],
)
def test_classes_out_of_range_are_refused(predicted, target, name):
    with pytest.raises(DataError, match=f"`{name}` must be from 0 to"):
        count_pairs(torch.tensor(predicted), torch.tensor(target), 3, 2)


def test_labels_that_are_not_whole_numbers_or_not_as_many_are_refused():
    zeros = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(DataError, match="`target` must hold whole numbers"):
        bare(count_pairs)(zeros, zeros.float(), 3, 2)
    with pytest.raises(DataError, match="`predicted` must hold whole numbers"):
        bare(count_pairs)(zeros.bool(), zeros, 3, 2)
    with pytest.raises(DataError, match="`predicted` must be as many as the 2 labels"):
        bare(count_pairs)(zeros[:1], zeros, 3, 2)


@pytest.mark.parametrize("out", [torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int32)])
def test_counts_to_add_to_must_fit(out):
    with pytest.raises(ConfigError, match=r"`out` must be int64 of shape \(3, 2\)"):
        count_pairs(torch.tensor([0]), torch.tensor([0]), 3, 2, out=out)


@pytest.mark.parametrize(("s", "t"), [(0, 2), (2, 0), (-1, 2)])
def test_there_must_be_classes(s, t):
    with pytest.raises(ConfigError, match="must be 1 or more"):
        count_pairs(torch.tensor([0]), torch.tensor([0]), s, t)


# Predictions


@often
@given(n=st.integers(0, 20), s=sizes, seed=seeds, kind=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_predictions_are_the_first_of_the_highest(n, s, seed, kind):
    logits = scores(n, s, seed).round().to(kind)
    assert predicted_classes(logits).tolist() == [row.index(max(row)) for row in logits.tolist()]


def test_masked_classes_are_fine():
    logits = torch.tensor([[-math.inf, 1.0, 0.0]])
    assert predicted_classes(logits).tolist() == [1]
    assert torch.isfinite(bayesian_map_plus(logits, torch.tensor([0]), 2)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_numbers_are_refused(bad):
    logits, target = torch.tensor([[0.0, 1.0], [bad, 0.0]]), torch.tensor([0, 1])
    with pytest.raises(DataError, match="`logits` must be finite"):
        predicted_classes(logits)
    with pytest.raises(DataError, match="`logits` must be finite"):
        bayesian_map_plus(logits, target, 2)
    with pytest.raises(DataError, match="`logits` must be finite"):
        predicted_classes(torch.full((1, 2), -math.inf))


# One-to-one and many-to-one maps


@often
@given(
    s=sizes,
    t=sizes,
    seed=seeds,
    top=st.sampled_from([1, 2, 5, 1000]),
    kind=st.sampled_from([torch.int64, torch.float32]),
)
def test_frequency_map_equals_the_plain_rule(s, t, seed, top, kind):
    s, t = max(s, t), min(s, t)
    counted = table(s, t, seed, top)
    assert frequency_map(counted.to(kind)).tolist() == slow.one_to_one(counted.tolist())


@often
@given(s=st.integers(1, 20), t=sizes, m=st.integers(1, 6), seed=seeds, top=st.sampled_from([0, 1, 2, 50]))
def test_many_to_one_map_equals_the_plain_rule(s, t, m, seed, top):
    s = max(s, m * t)
    counted = table(s, t, seed, top)
    found = many_to_one_map(counted, m)
    assert found.shape == (t, m)
    assert found.tolist() == slow.many_to_one(counted.tolist(), m)
    assert found.flatten().unique().numel() == m * t


def test_maps_at_full_size_equal_the_published_loop():
    counted = table(300, 40, 3, 4)
    assert torch.equal(frequency_map(counted), bench_label_maps.plain_match(counted, 1)[:, 0])
    assert torch.equal(many_to_one_map(counted, 5), bench_label_maps.plain_match(counted, 5))


def test_nothing_counted_gives_the_first_classes():
    assert frequency_map(torch.zeros(5, 3)).tolist() == [0, 1, 2]
    assert many_to_one_map(torch.zeros(7, 3), 2).tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("make", [lambda: frequency_map(torch.zeros(3, 5)), lambda: random_map(3, 5, 0)])
def test_more_targets_than_sources_is_an_error(make):
    with pytest.raises(ConfigError, match=r"`targets` must be at most 3, .* got 5"):
        make()


def test_more_slots_than_sources_is_an_error():
    with pytest.raises(ConfigError, match=r"`per_class \* targets` must be at most 5"):
        many_to_one_map(torch.zeros(5, 3), 2)
    with pytest.raises(ConfigError, match="`per_class` must be 1 or more"):
        many_to_one_map(torch.zeros(5, 3), 0)


@pytest.mark.parametrize("bad", [-1.0, math.nan])
@pytest.mark.parametrize("make", [frequency_map, bayesian_map])
def test_counts_are_never_negative(make, bad):
    with pytest.raises(DataError, match="`counts` must be 0 or more"):
        make(torch.tensor([[1.0, bad]]).T)


@often
@given(s=sizes, t=sizes, seed=seeds)
def test_random_map_is_the_start_of_a_permutation(s, t, seed):
    s, t = max(s, t), min(s, t)
    before = torch.random.get_rng_state()
    found, whole = random_map(s, t, seed), random_map(s, s, seed)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(found, whole[:t])
    assert whole.sort().values.tolist() == list(range(s))


def test_random_map_depends_on_the_seed():
    assert not torch.equal(random_map(100, 10, 0), random_map(100, 10, 1))


# Bayesian maps


@often
@given(
    s=sizes, t=sizes, seed=seeds, top=st.sampled_from([0, 1, 3, 1000]), smoothing=st.sampled_from([0.0, 0.1, 1.0, 50.0])
)
def test_bayesian_map_equals_the_plain_rule(s, t, seed, top, smoothing):
    counted = table(s, t, seed, top)
    found = bayesian_map(counted, smoothing)
    torch.testing.assert_close(found, torch.tensor(slow.bayesian(counted.tolist(), smoothing)), rtol=1e-5, atol=1e-7)
    total = found.sum(0)
    assert torch.equal(total.round(), (counted.sum(0) > 0).float())
    torch.testing.assert_close(total, total.round(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("smoothing", [-1.0, math.nan, math.inf])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ConfigError, match="`smoothing` must be a finite number, 0 or more"):
        bayesian_map(torch.ones(2, 2), smoothing)


@often
@given(
    n=st.integers(0, 30),
    s=sizes,
    t=st.integers(1, 30),
    seed=seeds,
    smoothing=st.sampled_from([0.0, 1.0]),
    ratio=st.sampled_from([0.01, 0.15, 0.5, 1.0]),
    heat=st.sampled_from([1.0, 0.5, 4.0]),
)
def test_bayesian_map_plus_equals_the_plain_rule(*, n, s, t, seed, smoothing, ratio, heat):
    logits, target = scores(n, s, seed), labels(n, t, seed + 1)
    found = bayesian_map_plus(logits, target, t, smoothing, ratio, heat)
    top = max(1, math.floor(ratio * t))
    soft = slow.soft_counts(logits.double().tolist(), target.tolist(), s, t, top, heat)
    torch.testing.assert_close(found, torch.tensor(slow.bayesian(soft, smoothing)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize("t", range(1, 8))
def test_few_classes_still_count(t, smoothing):
    found = bayesian_map_plus(scores(20, 10, t), torch.arange(20) % t, t, smoothing)
    torch.testing.assert_close(found.sum(0), torch.ones(t))


@often
@given(n=st.integers(0, 40), s=sizes, t=sizes, top=st.integers(1, 15), seed=seeds)
def test_soft_counts_are_the_same_bit_for_bit_in_any_batches_and_any_order(n, s, t, top, seed):
    logits, target = scores(n, s, seed), labels(n, t, seed + 1)
    whole = top_counts(logits, target, t, top)
    streamed = torch.zeros_like(whole)
    for part in parts(n, seed):
        assert top_counts(logits[part], target[part], t, top, out=streamed) is streamed
    assert torch.equal(streamed, whole)


@pytest.mark.parametrize(("cached", "few"), [(30, 32), (1, 32), (30, 0), (2**17, 0)])
def test_soft_counts_do_not_depend_on_how_they_are_worked_out(monkeypatch, cached, few):
    logits, target = scores(50, 10, 0), labels(50, 4, 1)
    whole = top_counts(logits, target, 4, 3)
    monkeypatch.setattr(label_maps, "_CACHED", cached)
    monkeypatch.setattr(label_maps, "_FEW", few)
    torch.testing.assert_close(top_counts(logits, target, 4, 3), whole, rtol=0, atol=2**36 * 1e-6)


def test_all_chances_of_a_sample_are_counted_if_asked_for():
    soft = top_counts(scores(50, 10, 0), labels(50, 4, 1), 4, 1000)
    torch.testing.assert_close((soft * SOFT_UNIT).sum(0), torch.bincount(labels(50, 4, 1), minlength=4).float())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_soft_counts_of_half_precision_logits_are_worked_out_in_float32(kind):
    logits, target = scores(30, 8, 0).to(kind), labels(30, 3, 1)
    assert torch.equal(top_counts(logits, target, 3, 2), top_counts(logits.float(), target, 3, 2))


def test_large_logits_do_not_overflow():
    found = bayesian_map_plus(torch.tensor([[3e4, 0.0]]), torch.tensor([1]), 2)
    assert found.tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_labels_of_soft_counts_are_checked():
    logits = scores(2, 3, 0)
    with pytest.raises(DataError, match="`target` must be from 0 to 1"):
        top_counts(logits, torch.tensor([0, 2]), 2, 1)
    with pytest.raises(DataError, match="`target` must be one label for each of the 2 rows"):
        bare(top_counts)(logits, torch.tensor([0]), 2, 1)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_settings_of_soft_counts_are_checked(bad):
    logits, target = scores(2, 3, 0), torch.tensor([0, 1])
    with pytest.raises(ConfigError, match="`temperature` must be a finite number above 0"):
        bayesian_map_plus(logits, target, 2, temperature=bad)
    with pytest.raises(ConfigError, match="`top_ratio` must be a finite number above 0"):
        bayesian_map_plus(logits, target, 2, top_ratio=bad)
    with pytest.raises(ConfigError, match="`top` must be 1 or more"):
        top_counts(logits, target, 2, 0)


def test_k_is_the_published_floor_but_never_0():
    assert [top_size(t, 0.15) for t in (1, 6, 7, 13, 14, 20, 100, 102, 397)] == [1, 1, 1, 1, 2, 3, 15, 15, 59]


def test_maps_are_not_differentiated():
    logits = scores(4, 3, 0).requires_grad_()
    assert not bayesian_map_plus(logits, torch.tensor([0, 1, 0, 1]), 2).requires_grad
    assert not predicted_classes(logits).requires_grad


# The benchmark


def test_the_benchmark_runs_and_its_two_sides_agree(tmp_path, capsys):
    threads = torch.get_num_threads()
    try:
        assert bench_label_maps.main(["--quick", "--out", str(tmp_path / "out.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert len(rows) == len(capsys.readouterr().out.splitlines()) - 3
