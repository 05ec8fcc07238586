"""A folder of small pictures with odd names, a program fitted on them once, and the command in a real process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reprogram.cli import main

SOURCE = "bundled/efficientnet-lite0"
SMALL = ["--set", "canvas=32", "--set", "inner=16", "--set", "epochs=1", "--set", "batch_size=20"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Dark and bright noise, 20 each, names with spaces, umlauts and brackets."""
    root = tmp_path_factory.mktemp("bilder") / "Über [bold]alles"
    rng = np.random.default_rng(0)
    for name, low in (("dunkel ü", 0), ("hell 你好", 170)):
        (root / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(low, low + 80, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"bild [red]{i}.png")
    return root


@pytest.fixture(scope="session")
def program(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("programs") / "mein programm.safetensors"
    code = main(["fit", "-s", SOURCE, "-t", str(pictures), "-m", "blm", "-o", str(out), *SMALL, "-q",
                 "--no-report", "--controls", "none"])  # fmt: skip
    assert code == 0
    return out


@pytest.fixture
def cli(capsys):
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*args):
        capsys.readouterr()
        code = main([str(a) for a in args])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def process(*args, folder: Path | None = None, text: str | None = None, **environment):
    """Run the command in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "reprogram", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, input=text, env=env, check=False)
