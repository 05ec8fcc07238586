"""kill -9 in a loop: the program file is the old one or the new one, and the resumed fit equals the uninterrupted."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reprogram.store import read

ROOT = Path(__file__).parents[2]
KILLS = 12  # a method; `python -m benchmarks.kills` does a thousand


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    command = [sys.executable, "-m", "tests.fit.killed", str(tmp_path), str(KILLS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    hits = dict(line.split() for line in done.stdout.splitlines())
    assert sum(map(int, hits.values())) >= 20, hits
    for method in hits:
        whole, cut = (read(tmp_path / f"{method}-{kind}.safetensors") for kind in ("whole", "cut"))
        assert whole.tensors.keys() == cut.tensors.keys()
        assert all(torch.equal(whole.tensors[k], cut.tensors[k]) for k in whole.tensors), method
        drop = {"seconds"}
        assert {k: v for k, v in whole.card.metrics.items() if k not in drop} == {
            k: v for k, v in cut.card.metrics.items() if k not in drop
        }
        left = [p.name for p in tmp_path.rglob("*.tmp")]
        assert not left, left
