import logging
import os
import random
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reprogram.core.errors import DataError
from reprogram.tasks import load_task
from reprogram.tasks.folder import read_layout


def test_one_folder_a_class(pets):
    task = load_task(pets)
    assert (task.name, task.classes) == ("pets", ("cat", "dog"))
    assert [len(s) for s in (task.train, task.val, task.test)] == [14, 2, 4]
    assert task.spec.sample.shape == (3, 8, 8) and task.spec.sample.fit == "exact"
    assert task.train.fetch(torch.tensor([0, 3])).shape == (2, 3, 8, 8)
    assert sorted([*task.train.names, *task.val.names, *task.test.names])[:2] == ["cat/0.png", "cat/1.png"]
    assert task.warnings == ()


def test_the_pictures_are_those_of_the_names(pets, save):
    import numpy as np
    from PIL import Image

    task = load_task(str(pets), seed=3)
    for split in task.splits.values():
        for row, name in enumerate(split.names):
            pixels = split.fetch(torch.tensor([row]))[0].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(pixels, np.asarray(Image.open(pets / name)))
            assert task.classes[split.labels[row]] == name.split("/")[0]


def make_splits(root, save, splits, each=4):
    for s, split in enumerate(splits):
        for c, name in enumerate(("cat", "dog")):
            for i in range(each):
                save(root / split / name / f"{i}.jpg", 1000 * s + 100 * c + i)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "VALID", "Test"), ("train", "validation", "test")]
)
def test_one_folder_a_split(names, tmp_path, save):
    make_splits(tmp_path / "x", save, names)
    task = load_task(tmp_path / "x")
    assert [len(s) for s in task.splits.values()] == [8, 8, 8]
    assert task.test.names[0] == f"{names[2]}/cat/0.jpg" and task.warnings == ()


def test_validation_is_taken_from_train(tmp_path, save):
    make_splits(tmp_path / "x", save, ("train", "test"), each=10)
    task = load_task(tmp_path / "x")
    assert [len(s) for s in task.splits.values()] == [18, 2, 20]
    assert all(n.startswith("train/") for n in task.val.names)


def test_train_and_validation_only(tmp_path, save, caplog):
    make_splits(tmp_path / "x", save, ("train", "val"), each=10)
    with caplog.at_level(logging.WARNING, logger="reprogram"):
        task = load_task(tmp_path / "x")
    assert [len(s) for s in task.splits.values()] == [18, 2, 20]
    assert "no test split" in task.warnings[0] and "no test split" in caplog.text
    assert all(n.startswith("val/") for n in task.test.names)


def test_a_single_folder_around_everything(tmp_path, save):
    make_splits(tmp_path / "x" / "data set" / "inner", save, ("train", "test"))
    task = load_task(tmp_path / "x")
    assert task.classes == ("cat", "dog") and len(task.test) == 8
    assert task.test.names[0] == "data set/inner/test/cat/0.jpg"


def test_the_disks_order_does_not_matter(tmp_path, save):
    files = [(f"c{i % 3}/{i:03}.png", i) for i in range(30)]
    tasks = []
    for name in ("x", "y"):
        random.Random(name).shuffle(files)
        for file, seed in files:
            save(tmp_path / name / file, seed)
        tasks.append(load_task(tmp_path / name))
    assert tasks[0].train.names == tasks[1].train.names
    assert tasks[0].train.digest() == tasks[1].train.digest() != tasks[0].test.digest()


def test_odd_names(tmp_path, save):
    decomposed = unicodedata.normalize("NFD", "Bär")
    for i in range(4):
        save(tmp_path / "x" / decomposed / f"größe {i}.PNG", i)
        save(tmp_path / "x" / "日本 語" / "deep" / "er" / f"{i}.JpEg", 10 + i)
    task = load_task(tmp_path / "x")
    assert task.classes == (unicodedata.normalize("NFC", "Bär"), "日本 語")
    os.rename(tmp_path / "x" / decomposed, os.fsencode(tmp_path / "x") + b"/\xe4")
    assert load_task(tmp_path / "x").classes[0] == "?"


def test_numbers_are_sorted_as_numbers(tmp_path, save):
    for c in range(12):
        for i in range(2):
            save(tmp_path / "x" / str(c) / f"{i}.png", 10 * c + i)
    assert load_task(tmp_path / "x").classes == tuple(str(c) for c in range(12))


def test_what_is_left_out_is_named(pets, save):
    (pets / "cat" / "notes.txt").write_text("x")
    (pets / "dog" / "old.bmp").write_text("x")
    (pets / "dog" / ".DS_Store").write_text("x")
    (pets / "empty").mkdir()
    save(pets / "stray.png")
    (pets / "cat" / "gone.png").symlink_to("nowhere")
    (pets / "cat" / "away.png").symlink_to(save(pets.parent / "other" / "1.png", 99))
    task = load_task(pets)
    told = "\n".join(task.warnings)
    assert "2 files that are no PNG, JPEG or WEBP are left out: cat/notes.txt, dog/old.bmp." in told
    assert "1 empty class folders are left out: empty." in told
    assert "1 pictures outside the folders of classes are left out: stray.png." in told
    assert "1 links that lead nowhere are left out: cat/gone.png." in told
    assert "1 links out of the folder are left out" in told and "cat/away.png" in told
    assert ".DS_Store" not in told and len(task.warnings) == 5
    assert sum(map(len, task.splits.values())) == 20
    assert sum(map(len, load_task(pets, allow_outside=True).splits.values())) == 21


def test_links_inside_are_followed(pets):
    (pets / "wolf").symlink_to("dog")
    task = load_task(pets)
    assert task.classes == ("cat", "dog", "wolf")
    assert any("two labels" in w and "wolf/" in w for w in task.warnings)


def test_the_same_file_in_two_splits(tmp_path, save):
    make_splits(tmp_path / "x", save, ("train", "test"), each=10)
    for i in range(3):
        save(tmp_path / "x" / "test" / "cat" / f"copy{i}.jpg", i)
    (warning,) = load_task(tmp_path / "x", val=0).warnings
    assert "in test and in train" in warning and "and 2 more" in warning
    assert "test/cat/copy0.jpg is train/cat/0.jpg" in warning


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_unreadable_pictures(content, pets, caplog):
    bad = pets / "cat" / "3.png"
    bad.write_bytes(content)
    with pytest.raises(DataError, match=r"cat/3\.png` must .*on_error=\"skip\""):
        load_task(pets)
    task = load_task(pets, on_error="skip")
    assert sum(map(len, task.splits.values())) == 19
    assert task.warnings == (f"1 unreadable pictures are left out: {bad}.",)


def test_damage_that_only_decoding_finds(pets):
    """The header is fine; all the same it is found before training, in memory or not."""
    bad = pets / "dog" / "7.png"
    bad.write_bytes(bad.read_bytes()[:-40])
    for memory in (2**31, 1):
        with pytest.raises(DataError, match=r"dog/7\.png` must be a whole, undamaged picture"):
            load_task(pets, memory=memory)
        assert sum(map(len, load_task(pets, memory=memory, on_error="skip").splits.values())) == 19


def test_a_class_with_one_example(pets, save):
    save(pets / "newt" / "1.png", 77)
    task = load_task(pets)
    assert task.train.counts().tolist()[2] == 1
    assert task.warnings == ("Classes with a single example, which goes to train: newt.",)


def test_classes_that_only_the_test_has(tmp_path, save):
    make_splits(tmp_path / "x", save, ("train", "test"))
    save(tmp_path / "x" / "test" / "newt" / "1.png", 5)
    with pytest.raises(DataError, match=r"`x\.test` must have only classes that train has, too, got 'newt'"):
        load_task(tmp_path / "x")


def test_too_few_classes(tmp_path, save):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="`none` must hold at least one readable picture"):
        load_task(tmp_path / "none")
    for i in range(4):
        save(tmp_path / "one" / "cat" / f"{i}.png", i)
    with pytest.raises(DataError, match=r"`one` must have pictures of at least two classes, got \['cat'\]"):
        load_task(tmp_path / "one")
    save(tmp_path / "test only" / "test" / "cat" / "1.png")
    save(tmp_path / "test only" / "val" / "dog" / "1.png", 1)
    assert load_task(tmp_path / "test only").classes == ("test", "val")  # without a train, they are classes


def test_a_class_may_be_called_train(tmp_path, save):
    for c, name in enumerate(("bus", "car", "train")):
        for i in range(5):
            save(tmp_path / "x" / name / f"{i}.png", 10 * c + i)
    assert load_task(tmp_path / "x").classes == ("bus", "car", "train")


def test_folders_beside_the_splits_are_left_out(tmp_path, save):
    make_splits(tmp_path / "x", save, ("train", "test"), each=10)
    save(tmp_path / "x" / "extra" / "cat" / "1.png")
    save(tmp_path / "x" / "test" / "unsorted.png")
    task = load_task(tmp_path / "x", val=0)
    assert task.classes == ("cat", "dog") and "extra/cat/1.png, test/unsorted.png" in task.warnings[0]
    save(tmp_path / "x" / "val" / "cat" / "1.png")
    save(tmp_path / "x" / "valid" / "cat" / "1.png")
    with pytest.raises(DataError, match=r"must be one for each split, got \['test', 'train', 'val', 'valid'\]"):
        load_task(tmp_path / "x")


def test_sizes(tmp_path, save):
    for c, name in enumerate(("cat", "dog")):
        for i in range(5):
            save(tmp_path / "x" / name / f"{i}.png", 10 * c + i, 40 + i, 30 + 2 * i)
    sample = load_task(tmp_path / "x").spec.sample
    assert (sample.shape, sample.fit) == ((3, 34, 34), "crop")
    task = load_task(tmp_path / "x", size=(20, 10), fit="squash", interpolation="nearest")
    assert task.train.fetch(torch.tensor([0])).shape == (1, 3, 20, 10)
    assert task.spec.sample.fit == "squash"
    for c, name in enumerate(("cat", "dog")):
        for i in range(3):
            save(tmp_path / "large" / name / f"{i}.png", 10 * c + i, 600, 300)
    task = load_task(tmp_path / "large")
    assert task.spec.sample.shape == (3, 224, 224) and "600 x 300" in task.warnings[0]


def test_files_are_read_again_where_memory_lacks(pets):
    kept, lazy = load_task(pets), load_task(pets, memory=100)
    for name in kept.splits:
        a, b = kept.splits[name], lazy.splits[name]
        assert torch.equal(a.fetch(torch.arange(len(a))), b.fetch(torch.arange(len(b))))
        assert a.digest() == b.digest() and list(a.names) == list(b.names)
    assert lazy.train.fetch(torch.empty(0, dtype=torch.int64)).shape == (0, 3, 8, 8)
    assert lazy.few_shot(2).train.digest() == kept.few_shot(2).train.digest()
    for name in lazy.train.names:
        (pets / name).unlink()
    with pytest.raises(DataError, match="must be a readable file"):
        lazy.train.fetch(torch.tensor([0]))
    kept.train.fetch(torch.tensor([0]))


def test_progress(pets):
    seen = []
    load_task(pets, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 40) for i in range(1, 41)]


def test_many_classes(tmp_path, save):
    first = save(tmp_path / "x" / "c0" / "0.png").read_bytes()
    for c in range(1100):
        for i in range(2):
            path = tmp_path / "x" / f"c{c}" / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(first)
    task = load_task(tmp_path / "x")
    assert len(task.classes) == 1100 and len(task.train.counts().nonzero()) == 1100


paths_of = st.lists(
    st.lists(st.sampled_from(["train", "test", "val", "a", "b", "1.png"]), min_size=1, max_size=5).map("/".join),
    max_size=12,
    unique=True,
)


@given(paths_of, paths_of)
def test_any_layout_is_read(files, folders):
    try:
        layout = read_layout(sorted(files), sorted(folders))
    except DataError:
        return
    assert {path for path, _, _ in layout.placed} <= set(files)
    for path, split, label in layout.placed:
        assert split in ("", "train", "val", "test") and label in path.split("/")[:-1]
