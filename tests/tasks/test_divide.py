import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError, DataError
from reprogram.tasks import stratified
from reprogram.tasks.divide import allocate, complete, pick
from reprogram.tasks.options import Options

labels_of = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(torch.tensor)
fractions_of = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45)).map(lambda f: (1 - sum(f), *f))


@given(labels_of, fractions_of, st.integers(-(2**40), 2**40))
def test_parts_are_disjoint_and_cover(labels, fractions, seed):
    parts = stratified(labels, fractions, seed)
    assert len(parts) == len(fractions)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)


@given(labels_of, fractions_of, st.integers(0, 1000))
def test_parts_have_the_mix_of_the_whole(labels, fractions, seed):
    whole = torch.bincount(labels, minlength=7).tolist()
    parts = [torch.bincount(labels[p], minlength=7).tolist() for p in stratified(labels, fractions, seed)]
    for c, count in enumerate(whole):
        assert parts[0][c] >= min(1, count)
        for fraction, part in zip(fractions[1:], parts[1:], strict=True):
            assert part[c] <= math.ceil(count * fraction + 0.5 * count / len(labels))
    for fraction, part in zip(fractions[1:], parts[1:], strict=True):
        assert sum(part) <= round(len(labels) * fraction)


@given(st.integers(2, 8), st.integers(10, 40), st.integers(0, 99))
def test_large_classes_get_their_share(classes, each, seed):
    labels = torch.arange(classes).repeat_interleave(each)
    for part, fraction in zip(stratified(labels, (0.7, 0.1, 0.2), seed)[1:], (0.1, 0.2), strict=True):
        counts = torch.bincount(labels[part], minlength=classes)
        assert len(part) == round(classes * each * fraction)
        assert all(math.floor(each * fraction) <= n <= math.ceil(each * fraction) for n in counts.tolist())


@given(labels_of, st.integers(0, 5))
def test_the_seed_decides(labels, seed):
    once, again = (stratified(labels, (0.5, 0.5), seed) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_other_seeds_give_other_parts():
    labels = torch.arange(3).repeat(50)
    assert len({tuple(stratified(labels, (0.8, 0.2), seed)[1].tolist()) for seed in range(20)}) == 20


def test_small_classes_do_not_all_miss_validation():
    """Five of each: half an example a class for validation means every other class has one."""
    val = stratified(torch.arange(10).repeat(5), (0.7, 0.1, 0.2), 0)[1]
    assert len(val) == 5


def test_a_single_example_is_for_training():
    labels = torch.tensor([0] * 10 + [1])
    for seed in range(10):
        assert 10 in stratified(labels, (0.5, 0.25, 0.25), seed)[0]


def test_a_first_part_of_nothing_is_empty():
    assert [len(p) for p in stratified(torch.tensor([0, 0, 1, 1]), (0, 0.5, 0.5), 0)] == [0, 2, 2]


@pytest.mark.parametrize("fractions", [(), (0.5,), (0.5, 0.6), (1.5, -0.5), (float("nan"), 0.5)])
def test_senseless_fractions(fractions):
    with pytest.raises(ConfigError, match="fractions"):
        stratified(torch.tensor([0, 1]), fractions, 0)


def test_more_of_one_class_does_not_reshuffle_the_others():
    few, many = torch.tensor([0] * 20 + [1] * 20), torch.tensor([0] * 20 + [1] * 40)
    test = [set(stratified(labels, (0.5, 0.5), 3)[1].tolist()) & set(range(20)) for labels in (few, many)]
    assert test[0] == test[1]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 300), st.integers(0, 9))
def test_allocate(counts, total, seed):
    total = min(total, sum(counts))
    shares = allocate(counts, total, counts, seed)
    assert sum(shares) == total
    for share, count in zip(shares, counts, strict=True):
        ideal = count * total / max(1, sum(counts))
        assert math.floor(ideal) <= share <= math.ceil(ideal)


@given(labels_of, st.integers(1, 10), st.integers(0, 9))
def test_picks_are_nested(labels, k, seed):
    small, large = (set(pick(labels, [n] * 7, seed).tolist()) for n in (k, k + 3))
    assert small <= large
    assert all((labels[list(small)] == c).sum() <= k for c in range(7)) if small else True


def rows(*ranges):
    return {name: torch.arange(*ends) for name, ends in zip(("train", "val", "test"), ranges, strict=False) if ends}


LABELS = torch.arange(2).repeat(50)


@pytest.mark.parametrize(
    ("given_", "sizes", "warned"),
    [
        (rows((0, 100)), (70, 10, 20), False),
        (rows((0, 80), None, (80, 100)), (72, 8, 20), False),
        (rows((0, 60), (60, 80), (80, 100)), (60, 20, 20), False),
        (rows((0, 80), (80, 100)), (72, 8, 20), True),
    ],
)
def test_missing_splits_are_made(given_, sizes, warned):
    done, notes, _ = complete(given_, LABELS, Options())
    assert tuple(len(done[n]) for n in ("train", "val", "test")) == sizes
    assert len(set(torch.cat(list(done.values())).tolist())) == 100
    assert bool(notes) == warned
    if "test" in given_:
        assert torch.equal(done["test"], given_["test"])
    elif warned:
        assert torch.equal(done["test"], given_["val"]) and "no test split" in notes[0]


@pytest.mark.parametrize("given_", [{}, {"test": torch.arange(5)}, {"train": torch.arange(0)}])
def test_nothing_to_train_on(given_):
    with pytest.raises(DataError, match="`train` must be among the splits"):
        complete(given_, LABELS, Options())
