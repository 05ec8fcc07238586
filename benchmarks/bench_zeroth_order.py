"""(i) Black boxes: a BlackVIP step with its codes kept over one that encodes anew, and accuracy by number of queries.

    python -m benchmarks.bench_zeroth_order                                  # the step
    python -m benchmarks.bench_zeroth_order --budget 10000 50000 200000 --seeds 3

The step: EfficientNet-Lite0 behind a wall at 64 px, its own features at 128 px as the frozen encoder's codes, batches
of 32, ten trials. "anew" runs the encoder for every trial, as the published code does; "kept" remembers a code once
made, in the first epoch (every picture is new) and in later ones. All do the same arithmetic, and the learned numbers
that come out are compared.

Accuracy: EfficientNet-Lite0 (logits only, no gradients) -> mnist5k at 64 px, 3,500 training and 500 validation images,
and the 1,000 test images for the program that was best on validation. Beside the methods stands what they must beat:
label maps alone, each of which takes one query for each training image. Of these the many-to-one map is the best on
validation, and it is what the methods but BAR (which has its own) read their outputs by. It is made once, before the
first step, and paid for. "cma_es" is CMA-ES on the frame of "vp_spsa". Rates and radii were chosen on validation, with
10,000 queries of one seed, among two to four each. Rows go to `benchmarks/results/zeroth_order.jsonl` as they are
done; rows that are there are not run again.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import reprogram as rp
from benchmarks._common import HERE, interleaved, ratio, table, write
from reprogram.fit import FitOptions
from reprogram.fit.feed import feed_for
from reprogram.fit.zeroth_order_step import Searcher

CANVAS, BATCH = 64, 32
QUIET = FitOptions(progress=False)
SHARED = {"canvas": CANVAS, "epochs": 1000, "batch_size": BATCH, "refresh": "once"}
MAPS = ("frequency", "many_to_one", "blm", "blm_plus")
BAR = {**SHARED, "inner": 56, "lr": 0.5, "end_lr": 0.05, "recipe.search": {"radius": 1.0, "draws": 9}}
RUNS: dict[str, tuple[str, dict[str, object]]] = {
    **{f"{name} map alone": ("no_edit", {"canvas": CANVAS, "mapping": name}) for name in MAPS},
    "vp_spsa": ("vp_spsa", {**SHARED, "width": 8, "mapping": "many_to_one", "lr": 0.005,
                            "recipe.search": {"radius": 0.05, "decay": 0.5}}),
    "cma_es": ("vp_spsa", {**SHARED, "width": 8, "mapping": "many_to_one", "optimizer": "cma_es",
                           "recipe.search": {"radius": 0.1, "draws": 20}}),
    "blackvip": ("blackvip", {**SHARED, "mapping": "many_to_one", "start": "zero", "epsilon": 0.2, "lr": 0.003,
                              "recipe.search": {"radius": 0.03}}),
    "bar": ("bar", BAR),
    "bar, from zeros": ("bar", BAR | {"start": "zeros"}),
}  # fmt: skip


def step(runs: int) -> dict[str, object]:
    """Seconds of a step with and without codes kept."""
    box, task = rp.query_only(rp.load_source("bundled/efficientnet-lite0")), rp.load_task("bundled/mnist5k")
    searchers, turn = {}, {}
    for name, remember in (("kept, later epochs", 64), ("kept, first epoch", 64), ("anew", 0)):
        program = rp.build("blackvip", box, task, canvas=CANVAS, batch_size=BATCH, remember=remember).train()
        searchers[name] = Searcher(program, program.origin.recipe, QUIET, 0, feed_for(program))
        turn[name] = 0

    def job(name):
        def one() -> None:
            batch = turn[name] % 2 if "later" in name else turn[name]
            rows = (torch.arange(BATCH) + BATCH * batch) % len(task.train)
            searchers[name].step(task.train, rows, seed=turn[name], observe=None, factor=1.0)
            turn[name] += 1

        return one

    seconds = interleaved({name: job(name) for name in searchers}, runs=runs, warmup=2)
    new, anew = searchers["kept, first epoch"].optimizer.values, searchers["anew"].optimizer.values
    return {
        "canvas": CANVAS, "batch": BATCH, "trials": 10,
        **{f"{name}, ms": 1e3 * sorted(times)[runs // 2] for name, times in seconds.items()},
        "anew/kept later": ratio(seconds["anew"], seconds["kept, later epochs"]),
        "anew/kept first": ratio(seconds["anew"], seconds["kept, first epoch"]), "aim": 2.0,
        "largest_difference": float((new - anew).abs().max()),
    }  # fmt: skip


def curve(name: str, budget: int, seed: int) -> dict[str, object]:
    """One fit of one method."""
    inside, task = rp.load_source("bundled/efficientnet-lite0"), rp.load_task("bundled/mnist5k")
    box, (method, settings) = rp.query_only(inside), RUNS[name]
    if method != "no_edit":
        settings = settings | {"queries": budget} | _as_long(name, budget, len(task.train))
    start = time.perf_counter()
    program = rp.build(method, box, task, seed=seed, **settings)
    done = rp.fit(program, task, seed=seed, options=QUIET)
    spent = done.queries or None
    return {
        "program": name, "budget": budget, "seed": seed, "test": done.test.accuracy, "val": done.validation.accuracy,
        "first_val": done.history[0].get("val_accuracy"), "epochs": len(done.history),
        "training_queries": spent.training if spent else len(task.train),
        "validation_queries": spent.validation if spent else len(task.val),
        "learned": program.count().effective, "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def _as_long(name: str, budget: int, train: int) -> dict[str, object]:
    """BAR's rate falls over the epochs that the budget pays for."""
    trials = 10
    return {"epochs": max(1, -(-(budget - train) // (trials * train)))} if name.startswith("bar") else {}


def curves(budgets: Sequence[int], seeds: int, out: Path, only: Sequence[str]) -> list[dict[str, object]]:
    """All runs that are not there yet, then all that are."""
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {(r["program"], r["budget"], r["seed"]) for r in rows}
    for seed in range(seeds):
        for budget in budgets:
            for name in only or RUNS:
                if (name, budget, seed) in done:
                    continue
                rows.append(curve(name, budget, seed))
                print(json.dumps(rows[-1]), flush=True)
                with out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    return rows


def summary(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Mean, least and most of the test accuracies of each method and budget."""
    found = []
    for budget, name in sorted({(r["budget"], r["program"]) for r in rows}):
        tests = [float(r["test"]) for r in rows if (r["budget"], r["program"]) == (budget, name)]
        found.append({"budget": budget, "program": name, "test": sum(tests) / len(tests), "min": min(tests),
                      "max": max(tests), "seeds": len(tests)})  # fmt: skip
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--budget", type=int, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], choices=list(RUNS))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "zeroth_order.jsonl")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.budget:
        rows = curves(arguments.budget, arguments.seeds, arguments.out, arguments.only)
        print(table(summary(rows)))
        return
    result = step(3 if arguments.quick else 9)
    print(table([result]))
    write("zeroth_order_step", result)


if __name__ == "__main__":
    main()
