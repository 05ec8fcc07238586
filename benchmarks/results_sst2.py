"""Real results: SST-2 with frozen SmolLM2-135M-Instruct and MiniLM-L6. What do learned prompts gain, and at what price?

    python -m benchmarks.results_sst2 --out sst2.jsonl            # all cells; goes on where it stopped
    python -m benchmarks.results_sst2 --out sst2.jsonl --table    # the table of what is there

A cell is a source, a method, a number of training examples and a seed. Both numbers of examples hold validation: of the
1,000, 100 are kept for it; of 16 a class, 4 a class. The 872 sentences of SST-2's dev split are the test, scored once.
Every language model method has one template and one pair of label words, so that only what is learned differs.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import reprogram as rp
from benchmarks._common import data, table
from reprogram.core.source import Source
from reprogram.fit import FitOptions
from reprogram.sources import load_source

TEMPLATE = "Review: {text}\nSentiment:"
WORDS = ("negative", "positive")
ASKED = {"template": TEMPLATE, "words": WORDS}
SMOL, MINI = "bundled/smollm2-135m", "bundled/minilm-l6"
FEW = {"epochs": 8, "batch_size": 8}
MANY = {"epochs": 2, "batch_size": 16}

METHODS = {
    SMOL: {
        "no_edit": ASKED,
        "linear_probe": {"template": TEMPLATE},
        "prompt_tuning": {**ASKED, "tokens": 20, "start": "text", "lr": 0.005, "schedule": "cosine"},
        "prefix_tuning": {**ASKED, "tokens": 20, "hidden": None, "start": "text", "lr": 0.008},
    },
    MINI: {
        "no_edit": {},
        "linear_probe": {},
        "prompt_tuning": {"tokens": 20, "lr": 0.003, "schedule": "cosine"},
        "p_tuning_v2": {"tokens": 20, "lr": 0.003, "schedule": "cosine"},
    },
}
LEARNED = ("prompt_tuning", "prefix_tuning", "p_tuning_v2")


def task_of(shots: int, seed: int) -> rp.Task:
    """16 examples a class, or 1,000 in all; the test is SST-2's dev split."""
    whole = rp.load_task(data("sst2"))
    parts = {**whole.splits, "test": whole.val, "val": whole.train}
    whole = rp.Task(whole.spec, parts)
    if shots == 16:
        return cut(whole, 16, 4, seed)
    return cut(whole, 450, 50, seed)


def cut(whole: rp.Task, train: int, val: int, seed: int) -> rp.Task:
    """So many of each class for training and for validation, none of them in both."""
    draw = torch.Generator().manual_seed(seed)
    labels = whole.train.labels
    rows = [(labels == c).nonzero()[:, 0] for c in range(2)]
    rows = [r[torch.randperm(len(r), generator=draw)] for r in rows]
    parts = {"train": torch.cat([r[:train] for r in rows]), "val": torch.cat([r[train : train + val] for r in rows])}
    splits = {name: whole.train.subset(index.sort().values) for name, index in parts.items()}
    return rp.Task(whole.spec, {**whole.splits, **splits})


def cell(source: Source, name: str, method: str, shots: int, seed: int) -> dict[str, object]:
    """One fit, scored."""
    task = task_of(shots, seed)
    settings = dict(METHODS[name][method])
    if method in LEARNED:
        settings |= FEW if shots == 16 else MANY
    start = time.perf_counter()
    program = rp.build(method, source, task, seed=seed, **settings)
    with sdpa_kernel(SDPBackend.MATH):  # in bf16 on a CPU a third faster for short sequences than the fused kernel
        done = rp.fit(program, task, seed=seed, options=FitOptions(progress=False))
    count = program.count()
    return {"source": name, "method": method, "shots": shots, "seed": seed, "test": done.test.accuracy,
            "last": done.last_test.accuracy, "val": done.validation.accuracy, "best_epoch": done.best_epoch + 1,
            "learned": count.effective, "fitted": count.fitted, "seconds": round(time.perf_counter() - start, 1),
            "losses": [round(row["loss"], 4) for row in done.history if "loss" in row]}  # fmt: skip


def cells(seeds: int) -> list[tuple[str, str, int, int]]:
    """In the order in which they tell most: all controls, then one seed of everything, then the rest."""
    found = [(n, m, k, s) for s in range(seeds) for k in (16, 1000) for n in METHODS for m in METHODS[n]]
    return sorted(found, key=lambda c: (c[1] in LEARNED and c[0] == SMOL, c[3], -c[2]))


def rows_of(path: Path) -> list[dict[str, object]]:
    """What is there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Mean and range over seeds."""
    groups: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for row in rows:
        groups.setdefault((row["source"], row["method"], row["shots"]), []).append(row)
    found: list[dict[str, object]] = []
    for (name, method, shots), many in groups.items():
        scores = [100 * float(r["test"]) for r in many]
        found.append({"source": name, "method": method, "examples": "16 a class" if shots == 16 else "1,000",
                      "test %": f"{statistics.fmean(scores):.1f}", "range": f"{min(scores):.1f}-{max(scores):.1f}",
                      "seeds": len(many), "learned": many[0]["learned"],
                      "seconds": f"{statistics.median(float(r['seconds']) for r in many):.0f}"})  # fmt: skip
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", default="bfloat16", help="of SmolLM2's weights")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        torch.set_num_threads(arguments.threads)
        done = {(r["source"], r["method"], r["shots"], r["seed"]) for r in rows_of(arguments.out)}
        loaded: dict[str, Source] = {}
        for one in cells(arguments.seeds):
            if one in done:
                continue
            options = {"dtype": arguments.dtype} if one[0] == SMOL else {}
            source = loaded.get(one[0]) or loaded.setdefault(one[0], load_source(one[0], **options))
            with arguments.out.open("a") as file:
                file.write(json.dumps(cell(source, *one)) + "\n")
    print(table(summary(rows_of(arguments.out))))


if __name__ == "__main__":
    main()
