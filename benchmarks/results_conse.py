"""Real results: prompts for an image-text source (ConSE, 128 px) on CIFAR-10. Which help, and which overfit?

    python -m benchmarks.results_conse --out benchmarks/results/conse.jsonl           # goes on where it stopped
    python -m benchmarks.results_conse --out benchmarks/results/conse.jsonl --table   # the table of what is there

The test is the same for all: the first 100 pictures of each class of the test folder. Training pictures are drawn by
the seed; validation is what `Task.few_shot` gives (4 a class), and picks the epoch. Descriptions are those in
`texts/cifar10.json`, written by us before anything was run. Nothing was tuned on what is reported.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import reprogram as rp
from benchmarks._common import HERE, data, table
from reprogram.core.source import Source
from reprogram.fit import FitOptions

QUIET = FitOptions(progress=False)
TEXTS, CAUSES = HERE / "texts" / "cifar10.json", HERE / "texts" / "cifar10_causes.json"
WORDS = {"tokens": 4, "words": "a photo of a"}
TEXT_SIDE = {"recipe.optimizer": "adam", "recipe.lr": 2e-3, "recipe.weight_decay": 0.0, "recipe.warmup_steps": 0,
             "recipe.schedule": "cosine", "recipe.epochs": 40, "recipe.batch_size": 100,
             "recipe.augment": "none"}  # fmt: skip
PIXELS = {"recipe.optimizer": "adam", "recipe.lr": 0.01, "recipe.weight_decay": 0.0, "recipe.warmup_steps": 0,
          "recipe.batch_size": 32, "recipe.augment": "none"}  # fmt: skip
Row = dict[str, Any]
Cell = tuple[str, dict[str, Any]]

ZERO_SHOT: dict[str, Cell] = {
    "zero-shot, one prompt": ("no_edit", {}),
    "zero-shot, bare name": ("no_edit", {"templates": ("{class}",)}),
    "zero-shot, 81 templates": ("zpe", {"weighing": "equal"}),
    "zpe": ("zpe", {}),
    "cupl, our descriptions": ("cupl", {"descriptions": str(TEXTS)}),
}
"""Seen once: no labels. (zpe looks at the training pictures without their labels.)"""

TEXT_METHODS: dict[str, Cell] = {
    "coop": ("coop", {**WORDS, "layout": "{class}", **TEXT_SIDE}),
    "coop, random start": ("coop", {"tokens": 4, "layout": "{class}", **TEXT_SIDE}),
    "coop, a context a class": ("coop", {**WORDS, "sharing": "class", "layout": "{class}", **TEXT_SIDE}),
    "linear probe": ("linear_probe", {}),
    "maple-like, words at 6 layers": ("maple", {"vision": "none", "layout": "{class}", **TEXT_SIDE}),
    "argue, 6 attributes": ("argue", {"preset": "cpu", "attributes": str(TEXTS)}),
    "cocoop": ("cocoop", {"preset": "cpu"}),
}

IMAGE_METHODS: dict[str, Cell] = {
    "frame of 16": ("vp_clip", {"width": 16, **PIXELS}),
    "frame of 16, crops and flips": ("vp_clip", {"width": 16, **PIXELS, "recipe.augment": "crop"}),
    "frame of 4": ("vp_clip", {"width": 4, **PIXELS}),
    "frame of 16, rate 0.001": ("vp_clip", {"width": 16, **PIXELS, "recipe.lr": 1e-3}),
    "frame of 16, all 1,000 names": ("vp_clip", {"width": 16, **PIXELS, "source": "bundled/conse?top=1000"}),
    "frame of 16, from zeros": ("vp_clip", {"width": 16, "start": "zeros", **PIXELS}),
    "frame of 16, from zeros, 12 epochs": ("vp_clip", {"width": 16, "start": "zeros", **PIXELS, "recipe.epochs": 12}),
    "frame of 16, from zeros, rate 0.05": ("vp_clip", {"width": 16, "start": "zeros", **PIXELS, "recipe.lr": 0.05}),
    "frame of 16, from zeros, rate 0.001": ("vp_clip", {"width": 16, "start": "zeros", **PIXELS, "recipe.lr": 1e-3}),
    "frame of 16, from zeros, crops": ("vp_clip", {"width": 16, "start": "zeros", **PIXELS, "recipe.augment": "crop"}),
    "frame of 4, from zeros, rate 0.001": ("vp_clip", {"width": 4, "start": "zeros", **PIXELS, "recipe.lr": 1e-3}),
    "frame around the picture, evp": ("evp_pixel", {"preset": "cpu"}),
    "frame and consistency, tvp": ("tvp", {"preset": "cpu"}),
    "attrvr": ("attrvr", {"descriptions": str(TEXTS), "count": 6, **PIXELS}),
    "dvp cls, 2 frames": ("dvp", {"form": "cls", "frames": 2, "descriptions": str(TEXTS), "count": 6, **PIXELS}),
    "dvp cse, 3 frames": ("dvp", {"form": "cse", "frames": 3, "descriptions": str(CAUSES), "count": 4, **PIXELS}),
    "both towers, words and a frame": ("maple", {"vision": "frame", "layout": "{class}", **PIXELS, "recipe.lr": 2e-3}),
    "both towers, reprogrammer": ("reprogrammer", {"preset": "cpu"}),
}
"""They learn in the picture, and cost a pass of the source each step."""


def epochs(shots: int) -> int:
    """Of methods that learn in the picture: about as many steps for few pictures as for many."""
    return {4: 20, 16: 12, 200: 3}.get(shots, 5)


def task_of(shots: int, seed: int) -> rp.Task:
    """`shots` pictures a class, and the common test."""
    task = rp.load_task(data("cifar10_small.zip"), seed=seed)
    test = task.test
    first = torch.cat([(test.labels == c).nonzero()[:100, 0] for c in range(len(task.classes))])
    small = task.few_shot(shots, seed)
    return rp.Task(small.spec, {**small.splits, "test": test.subset(first)})


def run(source: Source, name: str, cell: Cell, shots: int, seed: int) -> Row:
    """One program, fitted and scored."""
    method, config = cell[0], dict(cell[1])
    source = rp.load_source(config.pop("source")) if "source" in config else source
    task = task_of(shots, seed)
    more = {"recipe.epochs": epochs(shots)} if name in IMAGE_METHODS else {}
    start = time.perf_counter()
    program = rp.build(method, source, task, seed=seed, **{**more, **config})
    done = rp.fit(program, task, seed=seed, options=QUIET)
    assert done.test is not None
    assert done.last_test is not None
    train = rp.evaluate(program, task.train)
    counted = program.count()
    return {"program": name, "method": method, "shots": shots, "seed": seed, "test": done.test.accuracy,
            "last": done.last_test.accuracy, "train": train.accuracy, "n": len(done.test),
            "parameters": counted.effective, "best_epoch": done.best_epoch,
            "seconds": round(time.perf_counter() - start, 1)}  # fmt: skip


def cells(arguments: argparse.Namespace) -> list[tuple[str, Cell, int, int]]:
    """What is to be run, cheap ones first."""
    found = [(n, c, 4, 0) for n, c in ZERO_SHOT.items()]
    several = [(k, s) for s in range(arguments.seeds) for k in arguments.shots]
    several.sort(key=lambda one: (one[0] > 100, one[1]))  # many pictures last: they take the longest
    for group in (TEXT_METHODS, IMAGE_METHODS):
        found += [(n, c, k, s) for k, s in several for n, c in group.items()]
    words = arguments.only
    return [one for one in found if not words or any(word in one[0] for word in words)]


def show(rows: list[Row]) -> str:
    """A row for each program, a column for each number of pictures: test (lowest to highest) / training, in %."""
    held: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        held.setdefault((row["program"], row["shots"]), []).append(row)
    shots = sorted({k for _, k in held})
    lines = list[dict[str, object]]()
    for name in [*ZERO_SHOT, *TEXT_METHODS, *IMAGE_METHODS]:
        mine = {k: held[name, k] for k in shots if (name, k) in held}
        if mine:
            learned = next(iter(mine.values()))[0]["parameters"]
            seen = {f"{k} a class": cell(mine[k]) if k in mine else "–" for k in shots}
            same = {f"{k} a class": "the same" for k in shots[1:]} if name in ZERO_SHOT else {}
            lines.append({"program": name, "learned": f"{learned:,}", **seen, **same})
    return table(lines)


def cell(rows: list[Row]) -> str:
    """Mean, range and accuracy in training; a star for a single seed."""
    tests, train = [100 * r["test"] for r in rows], statistics.fmean(100 * r["train"] for r in rows)
    spread = f"({min(tests):.1f}–{max(tests):.1f})" if len(tests) > 1 else "*"
    return f"{statistics.fmean(tests):.1f} {spread} / {train:.0f}"


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shots", type=int, nargs="*", default=[4, 16, 200])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[Row] = [json.loads(line) for line in arguments.out.read_text().splitlines()] \
        if arguments.out.exists() else []  # fmt: skip
    if not arguments.table:
        known = {(r["program"], r["shots"], r["seed"]) for r in rows}
        source = rp.load_source("bundled/conse")
        for name, cell, shots, seed in cells(arguments):
            if (name, shots, seed) in known:
                continue
            rows.append(run(source, name, cell, shots, seed))
            with arguments.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + os.linesep)
            print(rows[-1], flush=True)
    print(show(rows))


if __name__ == "__main__":
    main()
