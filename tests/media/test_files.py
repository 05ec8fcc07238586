import os

import pytest

from reprogram.core.errors import DataError
from reprogram.media import files
from reprogram.media.files import find


def test_walk(tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    for name in ["root/b/2.PNG", "root/b/1.jpeg", "root/a.b/x/3.webp", "root/t.txt", "root/.x/4.png", "away/5.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (root / "empty").mkdir()
    (root / "__MACOSX").mkdir()
    (root / "in.png").symlink_to("b/2.PNG")
    (root / "dir").symlink_to("b")
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "b" / "loop").symlink_to("..")
    (root / "self.png").symlink_to("self.png")
    (root / "out").symlink_to(away)
    os.mkfifo(root / "pipe.png")
    found = find(root)
    assert found.pictures == ["a.b/x/3.webp", "b/1.jpeg", "b/2.PNG", "dir/1.jpeg", "dir/2.PNG", "in.png"]
    assert found.folders == ["a.b", "a.b/x", "b", "dir", "empty"]
    assert found.others == ["pipe.png", "t.txt"]
    assert found.broken == ["b/loop", "dir/loop", "gone.png", "self.png"]
    assert found.outside == ["out"]
    assert "out/5.png" in find(root, allow_outside=True).pictures


def test_the_walk_ends(tmp_path, monkeypatch):
    for i in range(4):
        (tmp_path / f"d{i}").mkdir()
    for i in range(4):
        for j in range(4):
            (tmp_path / f"d{i}" / f"to{j}").symlink_to(f"../d{j}")
    assert len(find(tmp_path).folders) < 1_000
    monkeypatch.setattr(files, "MAX_ENTRIES", 30)
    with pytest.raises(DataError, match="must hold at most 30 files"):
        find(tmp_path)


def test_unreadable(tmp_path):
    with pytest.raises(DataError, match="must be a readable folder"):
        find(tmp_path / "missing")
