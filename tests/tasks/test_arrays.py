import numpy as np
import pytest
import torch
from PIL import Image

from reprogram.core.errors import ConfigError, DataError
from reprogram.tasks import Task


def pictures(n=40, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *(shape or (3, 8, 8))), dtype=np.uint8)


def sizes(task):
    return [len(s) for s in task.splits.values()]


Y = np.arange(40) % 4


@pytest.mark.parametrize("shape", [(3, 8, 6), (8, 6, 3), (1, 8, 6), (8, 6, 1), (8, 6)])
@pytest.mark.parametrize("as_torch", [False, True])
@pytest.mark.parametrize("floats", [False, True])
def test_layouts(shape, as_torch, floats):
    x = pictures(40, *shape)
    x = x / 255 if floats else x
    task = Task.from_arrays(torch.from_numpy(x) if as_torch else x, Y)
    assert task.spec.sample.shape == (3, 8, 6) and sizes(task) == [28, 4, 8]
    got = task.test.fetch(torch.tensor([3]))
    assert got.dtype == (torch.float32 if floats else torch.uint8)
    row = int(task.test.names[3].split("/")[1])
    whole = x[row][None] if x[row].ndim == 2 else x[row]
    whole = whole if whole.shape[0] in (1, 3) else whole.transpose(2, 0, 1)
    np.testing.assert_allclose(got[0].numpy(), np.broadcast_to(whole, (3, 8, 6)), rtol=1e-6)


def test_large_arrays_keep_their_size():
    assert Task.from_arrays(pictures(8, 600, 400), [0, 1] * 4).spec.sample.shape == (3, 600, 400)
    task = Task.from_arrays(pictures(8, 60, 40), [0, 1] * 4, size=16, fit="squash")
    assert task.spec.sample.shape == (3, 16, 16) and task.train.fetch(torch.tensor([0])).shape == (1, 3, 16, 16)


def test_the_callers_memory_is_not_kept():
    for x in (pictures(), torch.from_numpy(pictures())):
        task = Task.from_arrays(x, Y)
        digest = task.train.digest()
        x[:] = 0
        assert Task(task.spec, task.splits).train.fetch(torch.arange(28)).max() > 0
        assert task.train.subset(torch.arange(28)).digest() == digest


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y, ("0", "1", "2", "3")),
        (torch.from_numpy(Y), ("0", "1", "2", "3")),
        (Y.tolist(), ("0", "1", "2", "3")),
        (Y.astype(np.float32), ("0", "1", "2", "3")),
        (Y * 5 + 5, ("5", "10", "15", "20")),
        (Y % 2 * 2 - 1, ("-1", "1")),
        (Y % 2 == 0, ("0", "1")),
        ([f"c{v}" for v in Y], ("c0", "c1", "c2", "c3")),
        (np.array([f"c{v}" for v in Y]), ("c0", "c1", "c2", "c3")),
        ([torch.tensor(v) for v in Y], ("0", "1", "2", "3")),
        (np.array([b"x", b"y"] * 20), ("x", "y")),
        (range(40), tuple(str(i) for i in range(40))),
    ],
)
def test_labels(y, classes):
    task = Task.from_arrays(pictures(), y, val=0.01, test=0.01)
    assert task.classes == classes
    for split in task.splits.values():
        rows = [int(name.split("/")[1]) for name in split.names]
        wanted = [y[r].decode() if isinstance(y[r], bytes) else y[r] for r in rows]
        assert [task.classes[c] for c in split.labels] == [str(int(w) if not isinstance(w, str) else w) for w in wanted]


def test_class_names_for_numbers():
    task = Task.from_arrays(pictures(), Y, classes=["w", "x", "y", "z", "none"])
    assert task.classes == ("w", "x", "y", "z", "none")
    assert task.warnings == ("Classes without examples in train: none.",)
    assert Task.from_arrays(pictures(), ["b", "a"] * 20, classes=["b", "a"]).train.labels[0] in (0, 1)


@pytest.mark.parametrize(
    ("x", "y", "more", "match"),
    [
        (pictures(), Y[:-1], {}, "`y of train` must have one label for each of the 40 pictures"),
        (pictures(), ["a"] * 39, {}, "one label for each of the 40"),
        (pictures(), np.eye(40), {}, "argmax"),
        (pictures(), Y + 0.5, {}, "whole numbers"),
        (pictures(), np.full(40, np.nan), {}, "whole numbers"),
        (pictures(), ["a", 1] * 20, {}, "class numbers or class names, got 'both in one list'"),
        (pictures(), [[1], [1, 2]] * 20, {}, "rows of different length"),
        (pictures(), ["", "a"] * 20, {}, "class names, got ''"),
        (pictures(), [None, "a"] * 20, {}, "class names"),
        (pictures(), [{}, {}] * 20, {}, "class names"),
        (pictures(), "ab" * 20, {}, "class names, got 'str'"),
        (pictures(), 7, {}, "class names, got 'int'"),
        (pictures(), np.zeros(40, complex), {}, "dtype complex"),
        (pictures(), np.zeros(40, int), {}, r"at least two classes, got \['0'\]"),
        (pictures(), Y, {"classes": ["a", "b"]}, "from 0 to 1, got '0..3'"),
        (pictures(), Y - 1, {"classes": ["a", "b", "c", "d"]}, "from 0 to 3, got '-1..2'"),
        (pictures(), ["a", "b"] * 20, {"classes": ["a", "c"]}, r"among the 2 classes, got \['b'\]"),
        (pictures(), Y % 2, {"classes": ["a", "a"]}, "must be distinct"),
        (pictures(40, 5, 8, 8), Y, {}, "1 or 3 channels"),
        (pictures(40, 8), Y, {}, r"must be pictures \[N, C, H, W\]"),
        (pictures(40, 3, 8, 8) * 2.0, Y, {}, "from 0 to 1"),
        (pictures(1)[0, 0], Y, {}, r"must be pictures \[N, C, H, W\]"),
        ([], [], {}, "at least one picture"),
        (np.zeros((0, 3, 8, 8)), [], {}, "at least one pixel"),
        (pictures(), Y, {"val": (pictures(5, 3, 9, 9), Y[:5]), "test": 0}, None),
        (pictures(), Y, {"test": (pictures(4), ["0", "1", "2", "3"])}, "numbers in all splits or names in all"),
        (pictures(), Y % 2, {"test": (pictures(4), [0, 1, 2, 2])}, "only classes that train has, too, got '2'"),
    ],
)
def test_faults(x, y, more, match):
    if match is None:  # these are fine
        assert Task.from_arrays(x, y, **more).spec.sample.shape[0] == 3
        return
    with pytest.raises(DataError, match=match):
        Task.from_arrays(x, y, **more)


def test_given_splits():
    task = Task.from_arrays(pictures(), Y, test=(pictures(8, seed=1), Y[:8]))
    assert sizes(task) == [36, 4, 8] and task.test.names[0] == "test/0"
    task = Task.from_arrays(pictures(), Y, val=(pictures(8, seed=1) / 255, Y[:8]), test=(pictures(4, seed=2), Y[:4]))
    assert sizes(task) == [40, 8, 4]
    whole = task.train.fetch(torch.arange(40))
    assert whole.dtype == torch.float32 and 0.9 < whole.max() <= 1
    task = Task.from_arrays(pictures(), Y, val=(pictures(8, seed=1), Y[:8]))
    assert sizes(task) == [36, 4, 8] and "no test split" in task.warnings[0]


def test_lists_of_pictures(tmp_path, save):
    files = [save(tmp_path / f"{i}.png", i, 20 + i, 30) for i in range(10)]
    opened = [Image.open(f).convert("RGB") for f in files]
    arrays = [np.asarray(image) for image in opened]
    y = [0, 1] * 5
    tasks = [Task.from_arrays(x, y) for x in (files, opened, arrays)]
    assert {t.spec.sample.shape for t in tasks} == {(3, 24, 24)}
    assert len({t.train.digest() for t in tasks}) == 1


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"siz": 3}, "Did you mean `size`"),
        ({"size": 0}, "sample.shape"),
        ({"fit": "stretch"}, "`fit`"),
        ({"val": -0.1}, "`val` must be a fraction"),
        ({"test": 1.0}, "`test` must be a fraction"),
        ({"val": 0.5, "test": 0.5}, "must leave something to train on"),
        ({"val": float("nan")}, "`val`"),
        ({"on_error": "ignore"}, "`on_error` must be 'raise' or 'skip'"),
        ({"workers": 0}, "`workers` must be 1 or more"),
    ],
)
def test_options(more, match):
    with pytest.raises(ConfigError, match=match):
        Task.from_arrays(pictures(), Y, **more)
