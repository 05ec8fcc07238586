"""Label maps against a plain loop over classes.

    python benchmarks/bench_label_maps.py [--quick] [--threads 1] [--out FILE]

The plain side does what the published rules say, step by step: a one-hot matrix [N, S] and a loop over classes for
counts, T scans of all S x T counts with one `.item()` each for the one-to-one map, a loop over columns for Bayesian
weights, a stored softmax [N, S] with all but the top k set to zero for soft counts. It was written for this file.
Both sides get the same data (random, which makes the greedy scan long), take turns in one process, and must agree.

The bound is the bytes that any implementation must read and write once (arguments, and the result), over the copy
bandwidth measured here. It leaves computing out: the softmax of BLM+ needs N x S exponentials, and a top-k.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reprogram.outputs import label_maps
from reprogram.outputs.label_maps import (
    SOFT_UNIT,
    bayesian_map,
    bayesian_map_plus,
    count_pairs,
    many_to_one_map,
    predicted_classes,
)

RESULTS = Path(__file__).parent / "results" / "label_maps.json"
SMOOTHING, TOP_RATIO = 1.0, 0.15
GOAL = 10.0


@dataclass(frozen=True)
class Row:
    """One comparison: medians and best runs in milliseconds."""

    name: str
    plain_ms: float
    ours_ms: float
    ratio: float
    plain_best_ms: float
    ours_best_ms: float
    ratio_of_best: float
    bound_ms: float


def plain_counts(predicted: Tensor, target: Tensor, sources: int, targets: int) -> Tensor:
    hot = F.one_hot(predicted, sources)
    counts = torch.zeros(sources, targets, dtype=torch.int64)
    for t in range(targets):
        counts[:, t] = hot[target == t].sum(0)
    return counts


def plain_match(counts: Tensor, per_class: int) -> Tensor:
    left, chosen = counts.clone(), [[] for _ in range(counts.shape[1])]
    while any(len(row) < per_class for row in chosen):
        s, t = divmod(int(left.argmax().item()), counts.shape[1])
        chosen[t].append(s)
        left[s, :] = -1
        if len(chosen[t]) == per_class:
            left[:, t] = -1
    return torch.tensor(chosen)


def plain_weights(counts: Tensor) -> Tensor:
    weights = counts / (counts.sum(1, keepdim=True) + SMOOTHING)
    for t in range(counts.shape[1]):
        total = weights[:, t].sum().item()
        if total > 0:
            weights[:, t] = weights[:, t] / total
    return weights


def plain_top(logits: Tensor, top: int) -> tuple[Tensor, Tensor]:
    return logits.softmax(1).topk(top, dim=1)


def plain_soft_counts(value: Tensor, place: Tensor, target: Tensor, sources: int, targets: int) -> Tensor:
    kept = torch.zeros(len(value), sources).scatter_(1, place, value)
    counts = torch.zeros(sources, targets)
    for t in range(targets):
        counts[:, t] = kept[target == t].sum(0)
    return counts


def cases(n: int, s: int, t: int) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor], int]]:
    """Name: the plain side, ours, and the bytes that must move."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(n, s, generator=draw) * 3
    target = torch.randint(t, (n,), generator=draw)
    predicted = logits.argmax(1)
    top = label_maps.top_size(t, TOP_RATIO)
    value, place = plain_top(logits, top)
    pairs, scores, weights, counts = 16 * n, 4 * n * s, 4 * s * t, 8 * s * t

    def our_soft() -> Tensor:
        soft = torch.zeros(s, t, dtype=torch.int64)
        label_maps._add_soft(soft, value, place, target)
        return soft * SOFT_UNIT

    def our_top() -> Tensor:
        rows = max(1, label_maps._CACHED // s)
        return torch.cat([label_maps._top_softmax(part, top, 1.0)[0] for part in logits.split(rows)])

    return {
        "counts": (
            lambda: plain_counts(predicted, target, s, t),
            lambda: count_pairs(predicted, target, s, t),
            pairs + counts,
        ),
        "one-to-one map (FLM, ILM)": (
            lambda: plain_match(plain_counts(predicted, target, s, t), 1),
            lambda: many_to_one_map(count_pairs(predicted, target, s, t), 1),
            pairs + 8 * t,
        ),
        f"many-to-one map, m={min(10, s // t)} (AutoVP)": (
            lambda: plain_match(plain_counts(predicted, target, s, t), min(10, s // t)),
            lambda: many_to_one_map(count_pairs(predicted, target, s, t), min(10, s // t)),
            pairs + 80 * t,
        ),
        "BLM map": (
            lambda: plain_weights(plain_counts(predicted, target, s, t)),
            lambda: bayesian_map(count_pairs(predicted, target, s, t), SMOOTHING),
            pairs + weights,
        ),
        "one-to-one map, from logits": (
            lambda: plain_match(plain_counts(logits.argmax(1), target, s, t), 1),
            lambda: many_to_one_map(count_pairs(predicted_classes(logits), target, s, t), 1),
            scores + 8 * n + 8 * t,
        ),
        "BLM map, from logits": (
            lambda: plain_weights(plain_counts(logits.argmax(1), target, s, t)),
            lambda: bayesian_map(count_pairs(predicted_classes(logits), target, s, t), SMOOTHING),
            scores + 8 * n + weights,
        ),
        "BLM+ map, from logits": (
            lambda: plain_weights(plain_soft_counts(*plain_top(logits, top), target, s, t)),
            lambda: bayesian_map_plus(logits, target, t, SMOOTHING, TOP_RATIO),
            scores + 8 * n + weights,
        ),
        "  of it: softmax and top-k": (
            lambda: plain_top(logits, top)[0],
            our_top,
            scores + 12 * n * top,
        ),
        "  of it: the map, given the top k": (
            lambda: plain_weights(plain_soft_counts(value, place, target, s, t)),
            lambda: bayesian_map(our_soft(), SMOOTHING),
            12 * n * top + 8 * n + weights,
        ),
    }


def measure(plain: Callable[[], Tensor], ours: Callable[[], Tensor], repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of each side, in turns, after one run of each that also compares them."""
    torch.testing.assert_close(ours(), plain(), check_dtype=False, rtol=1e-4, atol=1e-6)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for side, run in zip(times, (plain, ours), strict=True):
            start = time.perf_counter()
            run()
            side.append(time.perf_counter() - start)
    return times


def bandwidth(repeats: int) -> float:
    """Bytes a second, read and written, of copying 128 MiB."""
    a = torch.ones(2**25)
    b = torch.empty_like(a)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        b.copy_(a)
        seconds.append(time.perf_counter() - start)
    return 2 * a.numel() * 4 / min(seconds)


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write JSON. Returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="N = 1,000, S = 100, T = 10, three runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    (n, s, t), repeats = ((1_000, 100, 10), 3) if args.quick else ((10_000, 1_000, 100), 21)
    speed = bandwidth(repeats)
    rows = []
    print(f"N={n:,} S={s:,} T={t}, {args.threads} thread(s), copies {speed / 1e9:.1f} GB/s, median of {repeats}")
    print(f"{'':36}{'plain ms':>10}{'ours ms':>10}{'ratio':>8}{'best/best':>11}{'bound ms':>10}")
    for name, (plain, ours, moved) in cases(n, s, t).items():
        theirs, mine = measure(plain, ours, repeats)
        a, b, a0, b0 = (1e3 * v for v in (statistics.median(theirs), statistics.median(mine), min(theirs), min(mine)))
        row = Row(name.strip(), a, b, a / b, a0, b0, a0 / b0, 1e3 * moved / speed)
        rows.append(row)
        print(f"{name:36}{a:10.2f}{b:10.3f}{row.ratio:8.1f}{row.ratio_of_best:11.1f}{row.bound_ms:10.3f}")
    below = [row.name for row in rows if row.ratio < GOAL]
    print(f"below {GOAL:g} times: {', '.join(below) or 'none'}")
    facts = {"n": n, "sources": s, "targets": t, "repeats": repeats, "threads": args.threads, "quick": args.quick,
             "copy_bytes_per_second": speed, "torch": torch.__version__, "machine": platform.machine()}  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
