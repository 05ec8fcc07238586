"""(a) Our training step over the bare frozen forward plus input-gradient backward of the same batch, and peak memory.

Bare: the module alone, on pixels already placed, normalised and in channels_last; no program, no loss over classes, no
optimizer. Ours: everything `fit` does in a step: fetch, place, pattern, source, statistics, mapping, loss, Adam.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

import torch

import reprogram as rp
from benchmarks._common import interleaved, ratio, table, write
from reprogram.fit import FitOptions
from reprogram.fit.engine import _Run

CANVAS, INNER, BATCH = 128, 96, 32


def setup(method: str = "blm"):
    """A run about to make its first step, and a batch of rows."""
    source = rp.load_source("bundled/efficientnet-lite0")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (200, 3, 32, 32), generator=generator, dtype=torch.uint8)
    task = rp.Task.from_arrays(images, torch.arange(200) % 10, classes=[f"c{i}" for i in range(10)])
    config = {"canvas": CANVAS} if method == "smm" else {"canvas": CANVAS, "inner": INNER}
    program = rp.build(method, source, task, batch_size=BATCH, **config)
    run = _Run(program, task, 0, FitOptions(progress=False), None)
    run.program.train()
    run.progress.epoch = 1  # past the first, in which the mapping is made at every step
    run.program.output.refresh()
    return run, torch.arange(BATCH)


def bare_step(run, index):
    """Only what cannot be avoided."""
    source = run.program.source
    with torch.no_grad():
        x = source._shift + source._scale * run.program.input.edits[0](run.task.train.fetch(index).float() / 255)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()

    def step() -> None:
        x.grad = None
        source.module(x).sum().backward()

    return step


def peak(kind: str) -> int:
    """Peak memory, KiB, of a process that makes three steps of one kind."""
    code = (
        "import torch, resource, benchmarks.bench_step as b; torch.set_num_threads(2); run, i = b.setup()\n"
        f"job = b.bare_step(run, i) if {kind!r} == 'bare' else (lambda: run._step(i))\n"
        "for _ in range(3): job()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args(argv)
    runs = 3 if arguments.quick else 13
    rows = []
    for method in ("blm", "ilm_vp", "blm_plus", "smm"):
        run, index = setup(method)
        jobs = {"bare": bare_step(run, index), "ours": lambda run=run, index=index: run._step(index)}
        seconds = interleaved(jobs, runs=runs)
        rows.append({"step": method, "bare_ms": 1e3 * sorted(seconds["bare"])[runs // 2],
                     "ours_ms": 1e3 * sorted(seconds["ours"])[runs // 2],
                     "ours/bare": ratio(seconds["ours"], seconds["bare"])})  # fmt: skip
    memory = {kind: min(peak(kind) for _ in range(1 if arguments.quick else 3)) for kind in ("bare", "ours")}
    print(table(rows))
    print(f"peak memory: bare {memory['bare'] >> 10} MiB, ours {memory['ours'] >> 10} MiB, "
          f"ratio {memory['ours'] / memory['bare']:.3f}")  # fmt: skip
    write("step", {"rows": rows, "peak_kib": memory, "limit": {"ours/bare": 1.05, "memory": 1.05}})


if __name__ == "__main__":
    main()
