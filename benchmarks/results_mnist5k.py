"""Real results 2: the frozen CIFAR-10 ResNet-20 of ../shared/data reprogrammed to read digits (mnist5k), three seeds.

    python -m benchmarks.results_mnist5k --seeds 3

The digit (28 px) sits in the network's 32 pixels, so "pad" leaves a frame of 2 pixels; "watermark" scales it to all 32.
"""

import argparse
import time

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import reprogram as rp
from benchmarks._common import data, interval, table, write
from reprogram.fit import FitOptions

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
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


class Block(nn.Module):
    """Two 3x3 convolutions; the shortcut subsamples by two and pads channels with zeros (option A)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.extra = stride, width - before

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(h + nn.functional.pad(short, (0, 0, 0, 0, self.extra // 2, self.extra // 2)))


class ResNet(nn.Module):
    """ResNet of He et al. 2016, section 4.2: 6n + 2 layers."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for i in (1, 2, 3):
            blocks = [
                Block(widths[i - 1] if k == 0 else widths[i], widths[i], 2 if i > 1 and k == 0 else 1) for k in range(n)
            ]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def resnet(depth: int = 20):
    """A CIFAR-10 ResNet with its published weights as a source."""
    net = ResNet((depth - 2) // 6)
    net.load_state_dict(load_file(data(f"resnet_cifar10/resnet{depth}.safetensors")))
    pixels = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return rp.wrap(net, input_shape=(3, 32, 32), labels=LABELS, preprocess=pixels, sites="layer?.*",
                   ref=f"module:resnet{depth}-cifar10", width=64)  # fmt: skip


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
