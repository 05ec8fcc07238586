"""Real results: examples in the prompt of a frozen SmolLM2-135M-Instruct. How many, which, calibrated? And reasoning.

    python -m benchmarks.results_icl --out icl.jsonl            # all cells; goes on where it stopped
    python -m benchmarks.results_icl --out icl.jsonl --table    # the tables of what is there

SST-2: the 872 sentences of the dev split are the test; examples and texts for batch calibration come from 1,000 of the
train split, drawn by the seed. Template and words are those of `results_sst2`. The calibrations of a draw share their
source outputs. GSM8K and AQuA: the first questions of the test split, drawn by seed 0, answers read by rule. Nothing
was tuned on what is reported.
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import reprogram as rp
from benchmarks._common import data, table
from benchmarks.results_sst2 import rows_of, task_of
from reprogram.core.source import Source
from reprogram.fit import FitOptions
from reprogram.sources import load_source

TEMPLATE, WORDS = "Review: {text}\nSentiment:", ("negative", "positive")
QUIET = FitOptions(progress=False)
SAMPLES = 10
Row = dict[str, Any]


def sst2(source: Source, select: str, shots: int, seed: int) -> list[Row]:
    """One draw of examples, scored plain and calibrated."""
    task = task_of(1000, seed)
    task = rp.Task(task.spec, {**task.splits, "val": task.val.subset(torch.arange(0))})  # nothing is chosen on it
    found: list[Row] = []
    for calibration in ("none", "contextual", "batch"):
        if calibration == "contextual" and select != "balanced":
            continue
        start = time.perf_counter()
        program = rp.build("few_shot", source, task, seed=seed, shots=shots, select=select, calibration=calibration,
                           template=TEMPLATE, words=WORDS)  # fmt: skip
        done = rp.fit(program, task, seed=seed, options=QUIET)
        assert done.test is not None
        assert done.test.confusion is not None
        said = done.test.confusion.sum(0)
        found.append({"task": "sst2", "method": select, "shots": shots, "seed": seed, "calibration": calibration,
                      "test": done.test.accuracy, "said positive": float(said[1] / said.sum()), "n": len(done.test),
                      "seconds": round(time.perf_counter() - start, 1)})  # fmt: skip
    return found


def questions(name: str, count: int) -> rp.Task:
    """Word problems and what is to be written after them: a number, or a letter."""
    draw = random.Random(0)
    if name == "gsm8k":
        rows = [json.loads(line) for line in (data("gsm8k") / "test.jsonl").read_text().splitlines()]
        more = [json.loads(line) for line in (data("gsm8k") / "train.jsonl").read_text().splitlines()]
        pairs = [[(r["question"], r["answer"].split("####")[1].strip()) for r in part] for part in (rows, more)]
        draw.shuffle(pairs[0])
        test, train = pairs[0][:count], pairs[1][:200]
        return rp.Task.from_texts([q for q, _ in train], targets=[a for _, a in train],
                                  test=([q for q, _ in test], [a for _, a in test]), name=name)  # fmt: skip
    parts = [
        [json.loads(line) for line in (data("aqua") / f).read_text().splitlines()] for f in ("test.json", "dev.json")
    ]
    made = [[(r["question"] + "\n" + "\n".join(r["options"]), r["correct"]) for r in part] for part in parts]
    draw.shuffle(made[0])
    test = made[0][:count]
    return rp.Task.from_texts([q for q, _ in made[1]], [a for _, a in made[1]], classes=list("ABCDE"),
                              test=([q for q, _ in test], [a for _, a in test]), name=name)  # fmt: skip


def reasoning(source: Source, name: str, method: str, count: int) -> list[Row]:
    """Direct answers, a chain of thought, a vote."""
    task, start = questions(name, count), time.perf_counter()
    settings: dict[str, Any] = {"tokens": 160}
    if method == "few_shot":
        settings = {"shots": 8 if name == "gsm8k" else 4, "select": "first", "template": "Q: {text}\nA:"}
        settings |= {"answer": "number", "new_tokens": 8, "stop": ("\n",)} if name == "gsm8k" else {}
    elif method == "self_consistency":
        settings |= {"samples": SAMPLES}
    elif method == "zero_shot_cot":
        settings = {}
    program = rp.build(method, source, task, **settings)
    metrics = rp.evaluate(program, task.test)
    low, high = metrics.interval()
    return [{"task": name, "method": method, "shots": 0, "seed": 0, "calibration": "none", "test": metrics.accuracy,
             "low": low, "high": high, "unparsable": metrics.unparsable, "n": len(metrics),
             "seconds": round(time.perf_counter() - start, 1)}]  # fmt: skip


def cells(draws: int, count: int) -> list[tuple[Any, ...]]:
    """In the order in which they tell most."""
    found: list[tuple[Any, ...]] = [("sst2", "balanced", 0, 0)]
    found += [("sst2", "balanced", k, s) for s in range(draws) for k in (4, 8, 16)]
    found += [(n, m, count, 0) for n in ("gsm8k", "aqua") for m in ("few_shot", "chain_of_thought", "zero_shot_cot")]
    found += [("sst2", "nearest", k, 0) for k in (4, 8)]
    return [*found, ("gsm8k", "self_consistency", count, 0), ("aqua", "self_consistency", count, 0)]


def tables(rows: list[Row]) -> str:
    """Means over draws, and one line for each way to reason."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["task"] == "sst2":
            groups.setdefault((row["method"], row["shots"], row["calibration"]), []).append(row)
    first: list[dict[str, object]] = []
    for (select, shots, calibration), many in sorted(groups.items()):
        scores = [100 * r["test"] for r in many]
        positive = 100 * statistics.fmean(r["said positive"] for r in many)
        first.append({"examples": select, "shots": shots, "calibration": calibration,
                      "test %": f"{statistics.fmean(scores):.1f}", "range": f"{min(scores):.1f}-{max(scores):.1f}",
                      "draws": len(many), "said positive %": f"{positive:.0f}",
                      "seconds": f"{statistics.median(r['seconds'] for r in many):.0f}"})  # fmt: skip
    second: list[dict[str, object]] = [
        {"task": r["task"], "method": r["method"], "questions": r["n"], "right %": f"{100 * r['test']:.1f}",
         "95 % interval": f"{100 * r['low']:.1f}-{100 * r['high']:.1f}",
         "unparsable %": "-" if r["unparsable"] is None else f"{100 * r['unparsable']:.1f}",
         "seconds": f"{r['seconds']:.0f}"}
        for r in rows if r["task"] != "sst2"
    ]  # fmt: skip
    return "\n\n".join(table(part) for part in (first, second) if part)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--questions", type=int, default=100, help="of GSM8K and of AQuA")
    parser.add_argument("--tasks", nargs="*", default=["sst2", "gsm8k", "aqua"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        torch.set_num_threads(arguments.threads)
        source = load_source("bundled/smollm2-135m")
        done = {tuple(r["cell"]) for r in rows_of(arguments.out)}
        for one in cells(arguments.draws, arguments.questions):
            if one in done or one[0] not in arguments.tasks:
                continue
            name, method, size, seed = one
            rows = sst2(source, method, size, seed) if name == "sst2" else reasoning(source, name, method, size)
            with arguments.out.open("a") as file:
                file.writelines(json.dumps({"cell": one, **row}) + "\n" for row in rows)
    print(tables(rows_of(arguments.out)))


if __name__ == "__main__":
    main()
