import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from reprogram.core.errors import DataError
from reprogram.tasks import Task


def picture(seed, size=8):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


class Pets(Dataset):
    classes = ("cat", "dog")

    def __init__(self, n=20, make=picture, start=0):
        self.n, self.make, self.start = n, make, start

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError
        return self.make(self.start + i), i % 2


def sizes(task):
    return [len(s) for s in task.splits.values()]


def test_torch():
    task = Task.from_dataset(Pets())
    assert (task.name, task.classes, sizes(task)) == ("dataset", ("cat", "dog"), [14, 2, 4])
    row = int(task.train.names[0].split("/")[1])
    np.testing.assert_array_equal(task.train.fetch(torch.tensor([0]))[0].permute(1, 2, 0), np.asarray(picture(row)))


@pytest.mark.parametrize(
    "make",
    [
        lambda i: np.asarray(picture(i)),
        lambda i: torch.from_numpy(np.array(picture(i))).permute(2, 0, 1),
        lambda i: torch.from_numpy(np.array(picture(i))).permute(2, 0, 1) / 255,
        lambda i: picture(i).convert("RGBA"),
    ],
)
def test_torch_kinds(make):
    task = Task.from_dataset(Pets(make=make), name="pets")
    reference = Task.from_dataset(Pets())
    got, wanted = (t.train.fetch(torch.arange(14)) for t in (task, reference))
    torch.testing.assert_close(got.float() * (255 if got.is_floating_point() else 1), wanted.float())


def test_mapping_of_splits():
    task = Task.from_dataset(
        {"train": Pets(), "Validation": Pets(6, start=50), "test": Pets(4, start=90), "extra": Pets()}
    )
    assert sizes(task) == [20, 6, 4]
    assert task.warnings == ("Splits that are not train, val or test are left out: extra.",)


def test_other_torch_datasets():
    assert sizes(Task.from_dataset(Subset(Pets(), range(10)))) == [7, 1, 2]
    data = TensorDataset(torch.rand(10, 1, 8, 8), torch.arange(10) % 2)
    assert Task.from_dataset(data).classes == ("0", "1")
    assert Task.from_dataset([(picture(i), "ab"[i % 2]) for i in range(10)]).classes == ("a", "b")


def test_sizes_differ():
    def make(i):
        return picture(i, 10 + i)

    assert Task.from_dataset(Pets(make=make)).spec.sample.shape == (3, 19, 19)
    assert Task.from_dataset(Pets(make=make), size=12).spec.sample.shape == (3, 12, 12)


def test_progress_and_memory():
    seen = []
    Task.from_dataset(Pets(), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20)
    with pytest.raises(DataError, match=r"must fit into 1000 bytes as pictures.*Give a `size`"):
        Task.from_dataset(Pets(), memory=1000)
    assert sizes(Task.from_dataset(Pets(), memory=1000, size=4)) == [14, 2, 4]


class Stream(IterableDataset):
    def __iter__(self):
        yield picture(0), 0


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (Stream(), "must be a data set with a length"),
        (Pets(0), "got 'an empty one'"),
        (7, "must be a data set with a length and rows by number, got 'int'"),
        ({"test": Pets()}, r"must have a split called train, got \['test'\]"),
        ({"val": Pets(), "valid": Pets(), "train": Pets()}, "must have one split for val"),
        ([1, 2, 3], r"`train\[0\]` must be a pair of picture and label, got 'int'"),
        ([(picture(0), 0), (None, 1)], r"inputs\[1\]. must be a path"),
        ([(picture(0), 0), (picture(1), None)], "class names"),
        ([(picture(0).convert("F"), 0)], r"`train\[0\]` must be 8-bit"),
    ],
)
def test_faults(data, match):
    with pytest.raises(DataError, match=match):
        Task.from_dataset(data)


@pytest.fixture(scope="module")
def hf():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its many imports warn about is not ours
        return pytest.importorskip("datasets")


def table(hf, n=20, start=0, **columns):
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["cat", "dog"])} | columns)
    rows = {"image": [picture(start + i) for i in range(n)], "label": [i % 2 for i in range(n)]}
    rows |= {name: [i % 3 for i in range(n)] for name in columns}
    return hf.Dataset.from_dict(rows, features=features)


def test_hugging_face(hf):
    task = Task.from_dataset(table(hf), name="pets")
    assert (task.classes, sizes(task), task.warnings) == (("cat", "dog"), [14, 2, 4], ())
    assert task.train.digest() == Task.from_dataset(Pets()).train.digest()
    lazy = Task.from_dataset(table(hf), memory=10)
    assert lazy.train.digest() == task.train.digest()
    assert torch.equal(lazy.train.fetch(torch.arange(14)), task.train.fetch(torch.arange(14)))


def test_hugging_face_dict(hf):
    splits = hf.DatasetDict(train=table(hf), validation=table(hf, 6, 50), test=table(hf, 4, 90))
    assert sizes(Task.from_dataset(splits)) == [20, 6, 4]
    del splits["test"]
    task = Task.from_dataset(splits)
    assert sizes(task) == [18, 2, 6] and "no test split" in task.warnings[0]


def test_hugging_face_columns(hf):
    data = table(hf, coarse=hf.ClassLabel(names=["x", "y", "z"]))
    with pytest.raises(DataError, match=r"`label` must be one of the columns .*Say which with `label=`"):
        Task.from_dataset(data)
    assert Task.from_dataset(data, label="coarse").classes == ("x", "y", "z")
    with pytest.raises(DataError, match="`image` must be a column"):
        Task.from_dataset(data, label="coarse", image="nope")
    renamed = table(hf).rename_columns({"image": "a", "label": "b"})
    assert Task.from_dataset(renamed).classes == ("cat", "dog")
    plain = table(hf).cast_column("label", hf.Value("int64"))
    assert Task.from_dataset(plain).classes == ("0", "1")
    with pytest.raises(DataError, match="no likely one"):
        Task.from_dataset(hf.Dataset.from_dict({"x": ["a"], "label": [1]}))


def test_hugging_face_arrays_and_formats(hf):
    rows = {"img": [np.asarray(picture(i)).tolist() for i in range(10)], "label": ["ab"[i % 2] for i in range(10)]}
    data = hf.Dataset.from_dict(
        rows, features=hf.Features(img=hf.Array3D((8, 8, 3), "uint8"), label=hf.Value("string"))
    )
    assert Task.from_dataset(data.with_format("numpy")).classes == ("a", "b")
    assert sizes(Task.from_dataset(data.with_format("torch"))) == [7, 1, 2]
    torchy = table(hf).with_format("torch")
    assert Task.from_dataset(torchy).train.digest() == Task.from_dataset(table(hf)).train.digest()


def test_hugging_face_faults(hf):
    features = hf.Features(image=hf.Image(), label=hf.ClassLabel(names=["cat", "dog"]))
    good = io.BytesIO()
    picture(0).save(good, "PNG")
    cells = [{"bytes": good.getvalue(), "path": None}, {"bytes": b"GIF89a", "path": None}]
    data = hf.Dataset.from_dict({"image": cells * 5, "label": [0, 1] * 5}, features=features)
    with pytest.raises(DataError, match=r"`dataset\[train\]\[1\]` must be a PNG, JPEG or WEBP"):
        Task.from_dataset(data)
    missing = hf.Dataset.from_dict({"image": cells, "label": [0, None]}, features=features)
    with pytest.raises(DataError, match=r"`train\.label` must have a label in every row, got 'none in row 1'"):
        Task.from_dataset(missing)
    hidden = hf.Dataset.from_dict({"image": cells, "label": [0, -1]}, features=features)
    with pytest.raises(DataError, match="none in row 1"):
        Task.from_dataset(hidden)
    empty = hf.Dataset.from_dict({"image": [cells[0], None], "label": [0, 1]}, features=features)
    with pytest.raises(DataError, match=r"`dataset\[train\]\[1\]` must hold a picture"):
        Task.from_dataset(empty)
    with pytest.raises(DataError, match="Streams must be collected first"):
        Task.from_dataset(data.to_iterable_dataset())
    outside = hf.Dataset.from_dict(
        {"image": [{"bytes": None, "path": "gone.png"}] * 2, "label": [0, 1]}, features=features
    )
    with pytest.raises(DataError, match=r"`dataset\[train\]\[0\] \(gone\.png\)` must be a readable file"):
        Task.from_dataset(outside)
