import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError, DataError
from reprogram.core.task import Sample, TaskSpec
from reprogram.tasks import Split, Task


def task_of(labels, **more):
    labels = torch.as_tensor(labels)
    x = torch.randint(0, 256, (len(labels), 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Task.from_arrays(x, labels, **more)


TASK = task_of(torch.arange(5).repeat(20))


def test_what_it_is():
    assert (TASK.name, TASK.classes, TASK.spec.classes) == ("arrays", tuple("01234"), tuple("01234"))
    assert TASK.train is TASK.splits["train"] and TASK.val.name == "val" and len(TASK.test) == 20
    assert repr(TASK) == "Task(arrays: 5 classes, 3 x 4 x 4, train 70, val 10, test 20)"
    assert repr(TASK.val) == "Split(val: 10 pictures, 4 x 4, 5 classes)"
    with pytest.raises(AttributeError):
        TASK.spec = None


def test_splits_do_not_share_examples():
    names = [name for split in TASK.splits.values() for name in split.names]
    assert len(names) == len(set(names)) == 100


def test_fetch_and_subset():
    rows = torch.tensor([3, 1, 1])
    part = TASK.train.subset(rows)
    assert torch.equal(part.fetch(torch.arange(3)), TASK.train.fetch(rows))
    assert torch.equal(part.labels, TASK.train.labels[rows])
    assert part.names == [TASK.train.names[i] for i in (3, 1, 1)]
    most = TASK.train.subset(torch.arange(60)).subset(torch.arange(59, -1, -1))
    assert torch.equal(most.fetch(torch.tensor([0])), TASK.train.fetch(torch.tensor([59])))
    assert part.counts().tolist() == torch.bincount(part.labels, minlength=5).tolist()
    none = TASK.train.subset(torch.empty(0, dtype=torch.int64))
    assert len(none) == 0 and none.fetch(torch.empty(0, dtype=torch.int64)).shape == (0, 3, 4, 4)
    for bad in ([70], [-1], [[0]], [0.5]):
        with pytest.raises(DataError, match="indices"):
            TASK.train.subset(torch.tensor(bad))


def test_digest():
    x, y = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8), torch.arange(10) % 2
    digest = Split("train", x, y).digest()
    assert len(digest) == 64 and digest == Split("other", x.clone(), y.clone(), classes=5).digest()
    changed, relabelled = x.clone(), y.clone()
    changed[3, 0, 0, 0] ^= 1
    relabelled[3] ^= 1
    others = [Split("train", changed, y), Split("train", x, relabelled), Split("train", x.flip(0), y.flip(0))]
    others += [Split("train", x[:9], y[:9]), Split("train", x / 255, y), Split("train", x.view(10, 3, 2, 8), y)]
    assert len({digest, *(split.digest() for split in others)}) == 7
    rows = torch.arange(9, -1, -1)
    assert Split("train", x, y).subset(rows).digest() == Split("train", x[rows], y[rows]).digest()


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (torch.zeros(3, dtype=torch.int64), {}),
        (torch.zeros(4, dtype=torch.int32), {}),
        (torch.zeros(4, 1, dtype=torch.int64), {}),
        (torch.tensor([0, 1, 2, 3]), {"classes": 3}),
        (torch.tensor([0, 1, -1, 0]), {}),
        (torch.zeros(4, dtype=torch.int64), {"names": ["a"]}),
    ],
)
def test_splits_that_do_not_fit(labels, more):
    with pytest.raises(DataError):
        Split("train", torch.zeros(4, 3, 2, 2), labels, **more)


def test_tasks_that_do_not_fit():
    spec = TaskSpec(name="x", classes=("a", "b"), sample=Sample(shape=(3, 2, 2)))
    whole = Split("train", torch.zeros(4, 3, 2, 2), torch.tensor([0, 1, 0, 1]), classes=2)
    none = whole.subset(torch.empty(0, dtype=torch.int64))
    half = whole.subset(torch.tensor([0, 2]))
    three = Split("val", torch.zeros(4, 3, 2, 2), torch.tensor([0, 1, 0, 1]), classes=3)
    large = Split("val", torch.zeros(4, 3, 4, 4), torch.tensor([0, 1, 0, 1]), classes=2)
    Task(spec, {"train": whole, "val": none, "test": none, "more": half})
    for splits, match in (
        ({"train": whole, "val": none}, "must have the splits train, val and test"),
        ({"train": none, "val": whole, "test": whole}, "examples in train"),
        ({"train": half, "val": half, "test": whole}, r"`x\.test` must have only classes that train has, too, got 'b'"),
        ({"train": whole, "val": three, "test": none}, r"`x\.val` must have 2 classes"),
        ({"train": whole, "val": large, "test": none}, r"pictures \(3, 2, 2\)"),
    ):
        with pytest.raises(DataError, match=match):
            Task(spec, splits)


@given(st.integers(1, 14), st.integers(0, 50))
def test_few_shot(shots, seed):
    task = TASK.few_shot(shots, seed)
    assert task.train.counts().tolist() == [shots] * 5
    assert all(n <= min(shots, 4) for n in task.val.counts().tolist())
    assert task.test is TASK.test and task.spec == TASK.spec
    assert set(task.train.names) <= set(TASK.train.names)
    assert task.train.digest() == TASK.few_shot(shots, seed).train.digest()
    if shots < 14:
        assert set(task.train.names) < set(TASK.few_shot(shots + 1, seed).train.names)


def test_few_shot_needs_examples():
    task = task_of([0] * 40 + [1] * 4, val=0.01, test=0.01, classes=["cat", "dog"])
    with pytest.raises(DataError, match=r"`shots` must be at most .* got 5\. Too few: dog \(4\)\."):
        task.few_shot(5)
    with pytest.raises(ConfigError, match="`shots` must be 1 or more"):
        task.few_shot(0)
    assert len({tuple(TASK.few_shot(1, seed).train.names) for seed in range(9)}) > 5


@given(st.integers(5, 80), st.integers(1, 30), st.integers(1, 30), st.integers(0, 9))
def test_limit(train, val, test, seed):
    task = TASK.limit(train, val, test, seed)
    assert [len(s) for s in task.splits.values()] == [min(train, 70), min(val, 10), min(test, 20)]
    counts = task.train.counts()
    assert counts.min() >= 1 and counts.max() - counts.min() <= 1


def test_limits():
    assert [len(s) for s in TASK.limit().splits.values()] == [70, 10, 20]
    assert TASK.limit(test=10).train is TASK.train
    uneven = task_of([0] * 90 + [1] * 9 + [2]).limit(train=5)
    assert uneven.train.counts().tolist() == [3, 1, 1]
    for name, value in (("train", 4), ("train", 0), ("val", 0), ("test", -1)):
        with pytest.raises(ConfigError, match=f"`{name}` must be"):
            TASK.limit(**{name: value})


def test_tasks_travel():
    task = pickle.loads(pickle.dumps(TASK.few_shot(2)))  # noqa: S301 (as processes do)
    assert task.train.digest() == TASK.few_shot(2).train.digest()


def test_empty_validation_and_test():
    task = task_of([0, 1] * 5, val=0, test=0)
    assert [len(s) for s in task.splits.values()] == [10, 0, 0]
    assert task.test.digest() and task.test.counts().tolist() == [0, 0]
