"""A long evaluation over HTTP is killed half-way: the next run asks only for what nobody had answered, same result."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest

from reprogram.sources.endpoint_cache import SCHEMA
from reprogram.testing.fake_model import FakeModel
from reprogram.testing.fake_server import FakeServer

CHILD = """
import json, sys
import torch
import reprogram as rp
from reprogram.testing import tiny_text_task

torch.set_num_threads(1)
source = rp.load_source(sys.argv[1], concurrency=3)
task = tiny_text_task(per_class=12)
program = rp.build("few_shot", source, task, shots=0, words={"bad": "bad", "good": "good", "fun": "fun"})
measured = rp.evaluate(program, task.train)
used = source.usage
print(json.dumps({"accuracy": measured.accuracy, "scores": measured.scores.tolist(), "hits": used.hits}))
"""
ANSWERS = 9


class Half:
    """Answers so many questions of the task, and holds all others back."""

    def __init__(self, most):
        self.most, self.given = most, 0

    def __call__(self, number, body):
        if "\nLabel:" not in str(body.get("prompt")):
            return None
        self.given += 1
        return "hold" if self.most is not None and self.given > self.most else None


def asked(server):
    return Counter(json.dumps(b, sort_keys=True) for b in server.answered() if "\nLabel:" in str(b.get("prompt")))


def kept(folder):
    """Answers in the cache, apart from what was found out about the server."""
    path = folder / "replies.sqlite3"
    if not path.exists():
        return 0
    db = sqlite3.connect(path, timeout=30)
    try:
        found = db.execute(f"SELECT count(*) FROM replies_{SCHEMA} WHERE value LIKE '%\"choices\"%'").fetchone()
    except sqlite3.OperationalError:  # no table yet
        return 0
    finally:
        db.close()
    return found[0]


def child(server, folder):
    folder.mkdir(exist_ok=True)
    env = os.environ | {"REPROGRAM_CACHE": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, f"endpoint/{server.url}"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.fixture
def model():
    return FakeModel(
        [" bad", " good", " fun"], [(r"(awful|sad)[a-z ]*\n", " bad"), (r"(great|best)[a-z ]*\n", " good")]
    )


@pytest.mark.slow
def test_killed_half_way_and_run_again(model, tmp_path):
    with FakeServer(model) as whole:
        reference = ended(child(whole, tmp_path / "whole"))
        everything = asked(whole)
    assert reference["hits"] == 0 and set(everything.values()) == {1}
    assert 0 < reference["accuracy"] < 1

    with FakeServer(model, trouble=Half(ANSWERS)) as server:
        folder = tmp_path / "killed"
        first = child(server, folder)
        end = time.monotonic() + 60
        while kept(folder) < ANSWERS and time.monotonic() < end and first.poll() is None:
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=30)
        assert first.returncode == -signal.SIGKILL
        before = asked(server)
        assert sum(before.values()) == ANSWERS < len(everything)

        server.trouble = None
        again = ended(child(server, folder))
        after = asked(server)

    assert set(after.values()) == {1}  # nothing that had been answered was asked again
    assert set(after) == set(everything) and before.keys() < after.keys()
    assert again.pop("hits") == ANSWERS and reference.pop("hits") == 0
    assert again == reference
