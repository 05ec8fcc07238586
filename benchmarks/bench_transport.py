"""Optimal transport of 100 classes in one batch against a loop over classes.

    python -m benchmarks.bench_transport [--quick]

The plain side was written for this file after the published description: the kernel exp(-cost / 0.1), rows and columns
scaled in turn up to 100 times, until the mean change is below 0.01, which is read back every time. It goes through the
classes one after the other with all pictures at once ("classes"), or through pictures and classes ("pairs"), as
published code does on the level of tokens. Both sides get the same cosines, take turns in one process, and must agree
with all iterations; ours is measured with logarithms ("log") and, as PLOT's cosines allow, without ("ours"). Times are
of the processor, on one thread, so that other work on the machine does not count.

What a loop over classes costs beyond its arithmetic does not grow with the batch: the gain is largest for few pictures.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._common import ratio, table, write
from reprogram.outputs import Transport, sinkhorn, transported

CLASSES, WIDTH, EPSILON = 100, 512, 0.1
SIZES = {
    "PLOT, one picture": (1, 49, 4),
    "PLOT, 7 x 7 parts": (32, 49, 4),
    "PLOT, 14 x 14 parts": (8, 196, 4),
    "PLOT++": (32, 4, 4),
    "ALIGN, prompts": (4, 4, 4),
}
"""Pictures B, and vectors of the picture M and of the class N."""

GOAL = 10.0


def plain_plan(close: Tensor, tolerance: float | None) -> Tensor:
    """[B, M, N] of one class."""
    kernel = torch.exp((close - 1) / EPSILON)
    rows, columns = (close.new_full((*close.shape[:1], n), 1 / n) for n in close.shape[1:])
    r, c = torch.ones_like(rows), torch.ones_like(columns)
    for _ in range(100):
        before = r
        r = rows / torch.matmul(kernel, c.unsqueeze(-1)).squeeze(-1)
        c = columns / torch.matmul(kernel.transpose(1, 2), r.unsqueeze(-1)).squeeze(-1)
        if tolerance is not None and (r - before).abs().mean().item() < tolerance:
            break
    return r.unsqueeze(-1) * c.unsqueeze(-2) * kernel


def by_class(close: Tensor, tolerance: float | None = 1e-2) -> Tensor:
    """[B, T] from cosines [B, T, M, N], a class at a time."""
    scores = list[Tensor]()
    for t in range(close.shape[1]):
        one = close[:, t]
        with torch.no_grad():
            plan = plain_plan(one, tolerance)
        scores.append((plan * one).sum((1, 2)))
    return torch.stack(scores, 1)


def by_pair(close: Tensor) -> Tensor:
    """The same, a picture and a class at a time."""
    return torch.cat([by_class(one[None]) for one in close])


def logarithmic(close: Tensor) -> Tensor:
    """Ours, made to take logarithms."""
    with torch.no_grad():
        plan = sinkhorn(1 - close, EPSILON, 100, 1e-2)
    return (plan * close).sum((-2, -1))


def cosines(pictures: int, m: int, n: int) -> Tensor:
    """[B, T, M, N] between vectors that lean to one side, as those of CLIP do."""
    draw = torch.Generator().manual_seed(0)
    lean = torch.randn(WIDTH, generator=draw)
    seen = F.normalize(torch.randn(pictures, m, WIDTH, generator=draw) + 0.5 * lean, dim=-1)
    texts = F.normalize(torch.randn(CLASSES, n, WIDTH, generator=draw) + 0.5 * lean, dim=-1)
    return torch.einsum("bmd,tnd->btmn", seen, texts).contiguous()


def learning(job: Callable[[Tensor], Tensor], close: Tensor) -> Callable[[], None]:
    """The same with gradients of the cosines."""
    own = close.clone().requires_grad_()

    def step() -> None:
        own.grad = None
        F.cross_entropy(job(own), torch.zeros(len(own), dtype=torch.int64)).backward()

    return step


def in_turns(jobs: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Processor seconds of every job, one after the other in every turn, after a turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(runs + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    runs, rows = 3 if arguments.quick else 13, list[dict[str, object]]()
    every = Transport(tolerance=None)
    sides = {"classes": by_class, "pairs": by_pair, "log": logarithmic, "ours": lambda c: transported(c, Transport())}
    for name, size in SIZES.items():
        close = cosines(*size)
        torch.testing.assert_close(transported(close, every), by_class(close, None), rtol=1e-4, atol=1e-5)
        for what, made in (("forward", lambda job, c: lambda: job(c)), ("and backward", learning)):
            seconds = in_turns({side: made(job, close) for side, job in sides.items()}, runs)
            middle = {f"{side}_ms": 1e3 * statistics.median(s) for side, s in seconds.items()}
            rows.append({"transport": name, "B x M x N": " x ".join(map(str, size)), "what": what, **middle,
                         "classes/ours": ratio(seconds["classes"], seconds["ours"]),
                         "pairs/ours": ratio(seconds["pairs"], seconds["ours"])})  # fmt: skip
    print(table(rows))
    for side in ("classes/ours", "pairs/ours"):
        below = [f"{row['transport']} ({row['what']})" for row in rows if float(str(row[side])) < GOAL]
        print(f"{side} below {GOAL:g}: {', '.join(below) or 'none'}")
    write("transport", {"classes": CLASSES, "rows": rows, "goal": {"pairs/ours": GOAL, "classes/ours": GOAL}})


if __name__ == "__main__":
    main()
