"""The examples run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "says"),
    [("own_method.py", "contract kept"), ("quickstart.py", "says ["), ("few_shot.py", '"item":"green tea"')],
)
def test_example(name, says):
    command = [sys.executable, str(EXAMPLES / name), "--small"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # beside the other test processes, threads that wait would spin
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert says in done.stdout


def test_every_example_is_tested():
    assert {p.name for p in EXAMPLES.glob("*.py")} == {"own_method.py", "quickstart.py", "few_shot.py"}
