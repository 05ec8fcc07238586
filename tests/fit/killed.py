"""A fit in a process of its own, to be killed: forked from a server that has already imported torch."""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from reprogram.catalogue import build
from reprogram.fit import FitOptions, fit
from reprogram.testing import tiny_source, tiny_task

METHODS = {"blm": {}, "smm": {"patch": 4}, "ilm_vp": {"refresh": "exact"}, "linear_probe": {"patience": 3}}


def run(out: Path, method: str, *, resume: bool) -> None:
    """The fit that is killed again and again."""
    task = tiny_task(per_class=24)
    settings = {"epochs": 8, "batch_size": 8, "augment": "crop", "schedule": "cosine", **METHODS[method]}
    program = build(method, tiny_source(), task, **settings)
    fit(program, task, out=out, seed=2, resume=resume, options=FitOptions(progress=False, checkpoint_seconds=0.0))


def child(out: Path, method: str) -> int:
    """Fork and fit with resume; returns the child's process number."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            torch.set_num_threads(1)
            run(out, method, resume=True)
            code = 0
        finally:
            os._exit(code)
    return number


def kill_until_done(out: Path, method: str, kills: int, longest: float) -> int:
    """Kill at ever other moments, at most `kills` times, then let it finish. Returns the kills that hit a live fit."""
    hit = 0
    for turn in range(kills):
        number = child(out, method)
        time.sleep(longest * ((turn * 0.618034) % 1))
        done, _ = os.waitpid(number, os.WNOHANG)
        if not done:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            hit += 1
        elif out.exists():
            break
    _, status = os.waitpid(child(out, method), 0)
    if status:
        raise SystemExit(f"the last resumption failed with status {status}")
    return hit


def main() -> None:
    """`python -m tests.fit.killed FOLDER KILLS`: prints a line a method."""
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    for method in METHODS:
        whole, cut = folder / f"{method}-whole.safetensors", folder / f"{method}-cut.safetensors"
        start = time.perf_counter()
        _, status = os.waitpid(child(whole, method), 0)
        if status:
            raise SystemExit(f"{method}: the uninterrupted fit failed with status {status}")
        took = time.perf_counter() - start
        hit = kill_until_done(cut, method, kills, longest=min(1.0, took / 3))
        sys.stdout.write(f"{method} {hit}\n")


if __name__ == "__main__":
    main()
