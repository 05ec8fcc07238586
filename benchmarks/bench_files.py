"""(d) `import reprogram` over `import torch`, and (e) saving plus loading a program, milliseconds."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import reprogram as rp
from benchmarks._common import interleaved, ratio, table, write
from reprogram.store import read, restore, save
from reprogram.testing import tiny_task

IMPORTS = {
    "torch": "import torch",
    "reprogram": "import reprogram",
    "reprogram, its API used": "import reprogram as rp; rp.load_source, rp.load_task, rp.build, rp.fit, rp.save",
    "reprogram --help": "import sys; sys.argv = ['reprogram', '--help']; import reprogram.cli as c; c.main()",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args(argv)
    jobs = {
        n: (lambda c=c: subprocess.run([sys.executable, "-c", c], check=True, capture_output=True))
        for n, c in IMPORTS.items()
    }
    seconds = interleaved(jobs, runs=3 if arguments.quick else 7, warmup=1)
    rows = [
        {"process": n, "seconds": sorted(s)[len(s) // 2], "over import torch": ratio(s, seconds["torch"])}
        for n, s in seconds.items()
    ]
    print(table(rows))
    source, task = rp.load_source("bundled/efficientnet-lite0"), tiny_task()
    program = rp.build("blm", source, task, canvas=128, inner=96)
    path = Path(tempfile.mkdtemp()) / "program.safetensors"
    times = {"save": [], "read and restore": []}
    for _ in range(20):
        start = time.perf_counter()
        save(program, path)
        middle = time.perf_counter()
        restore(program, read(path))
        times["save"].append(1e3 * (middle - start))
        times["read and restore"].append(1e3 * (time.perf_counter() - middle))
    files = {name: sorted(t)[len(t) // 2] for name, t in times.items()}
    print({**{k: f"{v:.1f} ms" for k, v in files.items()}, "bytes": path.stat().st_size})
    write("files", {"imports": rows, "program_ms": files, "bytes": path.stat().st_size, "limit": {"import": 1.1}})


if __name__ == "__main__":
    main()
