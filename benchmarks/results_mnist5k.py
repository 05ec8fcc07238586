"""Real results 2: the frozen CIFAR-10 ResNet-20 of ../shared/data reprogrammed to read digits (mnist5k), three seeds.

    python -m benchmarks.results_mnist5k --seeds 3

The digit (28 px) sits in the network's 32 pixels, so "pad" leaves a frame of 2 pixels; "watermark" scales it to all 32.
"""

import argparse
import time

import torch

import reprogram as rp
from benchmarks._common import data, interval, table, write
from reprogram.fit import FitOptions

RECIPE = {"batch_size": 50, "schedule": "cosine"}
PROGRAMS = {
    "no input, frequency": ("no_edit", {"mapping": "frequency"}),
    "no input, blm": ("no_edit", {"mapping": "blm"}),
    "linear_probe": ("linear_probe", {}),
    "vp": ("vp", {"width": 16, "optimizer": "adam", "lr": 0.05, "warmup_steps": 0, **RECIPE}),
    "ilm_vp watermark": ("ilm_vp", {"prompt": "watermark", "lr": 0.02, **RECIPE}),
    "blm watermark": ("blm", {"prompt": "watermark", "lr": 0.02, **RECIPE}),
    "smm blm": ("smm", {"lr": 0.01, "mapping": "blm", **RECIPE}),
}


def resnet(depth: int = 20):
    """A CIFAR-10 ResNet with its published weights as a source."""
    return rp.load_source(f"cifar-resnet/{data(f'resnet_cifar10/resnet{depth}.safetensors')}")


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source, rows = resnet(), []
    twin = source.randomised(0)
    for seed in range(arguments.seeds):
        task = rp.load_task("bundled/mnist5k", seed=seed).limit(train=arguments.limit, seed=seed)
        for name, (method, config) in PROGRAMS.items():
            for f, mark in ((source, ""), (twin, ", random f")):
                if mark and name not in ("no input, blm", "blm watermark", "linear_probe"):
                    continue
                start = time.perf_counter()
                learned = method not in ("no_edit", "linear_probe")
                settings = {**config, "epochs": arguments.epochs} if learned else config
                program = rp.build(method, f, task, seed=seed, **settings)
                result = rp.fit(program, task, seed=seed, options=FitOptions(progress=False))
                row = {"program": name + mark, "seed": seed, "test": result.test.accuracy}
                row |= {"parameters": program.count().effective, "seconds": round(time.perf_counter() - start, 1)}
                rows.append(row)
                print(rows[-1], flush=True)
    names = list(dict.fromkeys(r["program"] for r in rows))
    print(table([{"program": n, **interval([r["test"] for r in rows if r["program"] == n]),
                  "parameters": next(r["parameters"] for r in rows if r["program"] == n)} for n in names]))  # fmt: skip
    write("results_mnist5k", {"rows": rows, "arguments": vars(arguments)})


if __name__ == "__main__":
    main()
