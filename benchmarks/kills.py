"""The long form of the kill -9 test: `python -m benchmarks.kills --kills 250` does so to a fit of each of 4 methods.

Every resumed fit must end in the very bits of the uninterrupted one.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks._common import write
from reprogram.store import read


def main() -> None:
    """Run, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    total: dict[str, int] = {}
    for _ in range(arguments.rounds):
        folder = Path(tempfile.mkdtemp())
        command = [sys.executable, "-m", "tests.fit.killed", str(folder), str(arguments.kills)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for method, hit in (line.split() for line in done.stdout.splitlines()):
            whole, cut = (read(folder / f"{method}-{kind}.safetensors") for kind in ("whole", "cut"))
            assert all(torch.equal(whole.tensors[k], cut.tensors[k]) for k in whole.tensors), method
            total[method] = total.get(method, 0) + int(hit)
    print(f"killed and resumed to the same bits: {total}, {sum(total.values())} kills in all")
    write("kills", total)


if __name__ == "__main__":
    main()
