"""Real results 1: frozen EfficientNet-Lite0 -> CIFAR-10 at 128 px. Does a learned I beat the same O without it?

    python -m benchmarks.results_cifar10 --seeds 3 --epochs 6

For every output O the table has the program without I (same O, image scaled to the canvas), and the learned programs.
Selection is on a validation split of the training data (10 %); test is scored once. Needs ../shared/data.
"""

import argparse
import time

import torch

import reprogram as rp
from benchmarks._common import data, interval, table, write
from reprogram.fit import FitOptions, FitResult
from reprogram.inputs import Place
from reprogram.outputs import BayesianMap, BayesianMapPlus, FrequencyMap

CANVAS = 128
SOFT = {"top_ratio": 3.0}  # the 30 most probable source classes of a picture count; the paper's 0.15 is 1 here
RECIPE = {"batch_size": 50, "schedule": "cosine", "augment": "flip", "lr": 0.003}
GENTLE = {"canvas": CANVAS, "prompt": "watermark", **RECIPE}

LEARNED = {
    "blm_plus watermark lr 0.003": ("blm_plus", {**GENTLE, **SOFT}),
    "blm watermark lr 0.003": ("blm", GENTLE),
    "blm_plus pad 112 lr 0.05": ("blm_plus", {**GENTLE, **SOFT, "prompt": "pad", "inner": 112, "lr": 0.05}),
    "ilm_vp watermark lr 0.003": ("ilm_vp", GENTLE),
    "flm watermark lr 0.001": ("flm", {**GENTLE, "lr": 0.001}),
    "smm lr 0.003": ("smm", {**{k: v for k, v in GENTLE.items() if k != "prompt"}, "lr": 0.003, "mapping": "blm"}),
}
OUTPUTS = {
    "blm_plus": lambda: BayesianMapPlus(1000, 10, **SOFT),
    "blm": lambda: BayesianMap(1000, 10),
    "ilm_vp": lambda: FrequencyMap(1000, 10),
}
QUIET = FitOptions(progress=False)


def without_input(source, task, method: str, seed: int) -> FitResult:
    """The same O on the image scaled to the whole canvas."""
    program = rp.Program([Place(CANVAS, CANVAS)], source, OUTPUTS[method]())
    options = FitOptions(progress=False, recipe=rp.Recipe(refresh="once", epochs=1))
    return rp.fit(program, task, seed=seed, options=options)


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row a program and seed."""
    source = rp.load_source("bundled/efficientnet-lite0")
    rows: list[dict[str, object]] = []

    def keep(name: str, seed: int, result: FitResult, start: float) -> None:
        rows.append({"program": name, "seed": seed, "test": result.test.accuracy, "val": result.validation.accuracy,
                     "best_epoch": result.best_epoch + 1, "seconds": round(time.perf_counter() - start, 1),
                     "parameters": result.program.count().effective})  # fmt: skip
        print(rows[-1], flush=True)

    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        task = rp.load_task(data("cifar10_small.zip"), seed=seed)
        task = task.limit(train=arguments.limit, seed=seed) if arguments.limit else task
        for method in OUTPUTS:
            start = time.perf_counter()
            keep(f"no input, {method}", seed, without_input(source, task, method, seed), start)
        start = time.perf_counter()
        probe = rp.build("linear_probe", source, task, canvas=CANVAS)
        keep("linear_probe", seed, rp.fit(probe, task, seed=seed, options=QUIET), start)
        for name, (method, config) in LEARNED.items():
            if arguments.only and not any(word in name for word in arguments.only):
                continue
            start = time.perf_counter()
            program = rp.build(method, source, task, seed=seed, **{**config, "epochs": arguments.epochs})
            keep(name, seed, rp.fit(program, task, seed=seed, options=QUIET), start)
    return rows


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--name", default="results_cifar10")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = run(arguments)
    names = list(dict.fromkeys(r["program"] for r in rows))
    print(table([{"program": n, **interval([r["test"] for r in rows if r["program"] == n]),
                  "parameters": next(r["parameters"] for r in rows if r["program"] == n)} for n in names]))  # fmt: skip
    write(arguments.name, {"rows": rows, "arguments": vars(arguments)})


if __name__ == "__main__":
    main()
