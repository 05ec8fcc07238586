"""Folders that are made once: by one of several, whole or not at all, whatever happens half-way."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from reprogram.core.errors import SourceError
from reprogram.sources.cache import cache_folder, make_once


def is_whole(folder):
    return (folder / "b").is_file()


def fill(folder):
    (folder / "a").write_text("1")
    (folder / "b").write_text("2")


def nothing(_):
    raise AssertionError


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REPROGRAM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "reprogram"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert cache_folder() == tmp_path / ".cache" / "reprogram"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "reprogram"
    monkeypatch.setenv("REPROGRAM_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"


def test_is_made_once(tmp_path):
    target = tmp_path / "deep" / "model"
    assert make_once(target, fill, is_whole, nothing)
    assert (target / "a").read_text() == "1"
    assert not make_once(target, nothing, is_whole, nothing)


def test_what_is_not_whole_is_made_anew(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("old")
    (target / "c").write_text("old")
    assert make_once(target, fill, is_whole, nothing)
    assert sorted(p.name for p in target.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), SourceError("no"), OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing(tmp_path, problem):
    target = tmp_path / "model"

    def fail(folder):
        (folder / "a").write_text("1")
        raise problem

    with pytest.raises(SourceError if isinstance(problem, OSError) else type(problem)) as raised:
        make_once(target, fail, is_whole, nothing)
    if isinstance(problem, OSError):
        assert "No space left" in str(raised.value)
        assert "REPROGRAM_CACHE" in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == [".model.lock"]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="written to"):
        make_once(tmp_path / "file" / "model", fill, is_whole, nothing)


def test_others_wait_and_find_it_done(tmp_path):
    target, filled, told = tmp_path / "model", [], []
    started, go = threading.Event(), threading.Event()

    def slowly(folder):
        filled.append(folder)
        started.set()
        go.wait(30)
        fill(folder)

    results = []
    first = threading.Thread(target=lambda: results.append(make_once(target, slowly, is_whole, nothing)))
    first.start()
    assert started.wait(30)

    def tell(line):
        told.append(line)
        go.set()  # the first goes on only once the second has said that it waits

    assert not make_once(target, slowly, is_whole, tell)
    first.join()
    assert results == [True]
    assert len(filled) == 1
    assert len(told) == 1
    assert str(target) in told[0]


def test_a_killed_process_leaves_nothing_that_looks_whole(tmp_path):
    target = tmp_path / "model"
    code = (
        "import sys, time, pathlib\n"
        "from reprogram.sources.cache import make_once\n"
        "def fill(folder):\n"
        "    (folder / 'a').write_text('1'); print('started', flush=True); time.sleep(60)\n"
        f"make_once(pathlib.Path({str(target)!r}), fill, lambda f: (f / 'b').is_file(), print)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    assert (tmp_path / ".model.part" / "a").is_file()
    begun = time.monotonic()
    assert make_once(target, fill, is_whole, nothing)  # the lock went with the process
    assert time.monotonic() - begun < 30
    assert sorted(p.name for p in tmp_path.iterdir()) == [".model.lock", "model"]
