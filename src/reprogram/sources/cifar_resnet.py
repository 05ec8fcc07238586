"""CIFAR-10 ResNets from a weight file on disk: `cifar-resnet/<path of a .safetensors file>`.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2016, section 4.2: 6n + 2 layers, shortcuts that
subsample and pad channels with zeros (option A). The number of layers is read off the file; whatever does not fit the
architecture to the last number is refused before a tensor is made.
"""

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from reprogram.core.errors import SourceError, say
from reprogram.sources.module import ModuleSource, wrap

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PUBLISHED_ERROR = {20: 0.0827, 32: 0.0737, 44: 0.0690, 56: 0.0661}
"""Test errors that the authors of the usual weight files state for them, by depth."""
PIXELS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

FILE_BYTES = 128 << 20
HEADER_BYTES = 1 << 20
MOST_BLOCKS = 200
"""Blocks a stage: 1,202 layers, the paper's deepest."""

_REMEDY = "It must be the state dict of a CIFAR-10 ResNet of He et al. 2016 (20, 32, 44, 56, ... layers)."


@final
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
        """[B, before, h, w] -> [B, width, h / stride, w / stride]."""
        h = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(h + nn.functional.pad(short, (0, 0, 0, 0, self.extra // 2, self.extra // 2)))


@final
class ResNet(nn.Module):
    """6n + 2 layers in three stages of widths 16, 32 and 64: [B, 3, 32, 32] -> [B, 10]."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = _stage(16, 16, n, 1), _stage(16, 32, n, 2), _stage(32, 64, n, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def _stage(before: int, width: int, n: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width if k else before, width, 1 if k else stride) for k in range(n)))


def load_cifar_resnet(path: str) -> ModuleSource:
    """A CIFAR-10 ResNet with the weights of a file.

    Args:
        path: a .safetensors file whose tensors are `conv1`, `bn1`, `layer{1,2,3}.N.{conv1,bn1,conv2,bn2}`, `linear`.

    Raises:
        SourceError: the file cannot be read, or is not such a network's state dict.
    """
    n = _blocks(path, _header(path))
    network = ResNet(n)
    network.load_state_dict(_weights(path))
    depth = 6 * n + 2
    error = PUBLISHED_ERROR.get(depth)
    return wrap(network, input_shape=(3, 32, 32), labels=LABELS, preprocess=PIXELS, sites="layer?.*", width=64,
                ref=f"cifar-resnet/{path}", accuracy=None if error is None else round(1 - error, 4))  # fmt: skip


def _header(path: str) -> dict[str, Any]:
    """Names, types and shapes, read without touching a tensor; sizes are bounded before any memory is taken."""
    try:
        about = Path(path).stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > FILE_BYTES:
            got = f"{about.st_size} bytes"
            raise SourceError(say(path, f"must be an ordinary file of at most {FILE_BYTES} bytes", got, _REMEDY))
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(HEADER_BYTES, about.st_size - 8):
                raise SourceError(say(path, f"must have a header of at most {HEADER_BYTES} bytes", length, _REMEDY))
            found = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError) as problem:
        raise SourceError(say(path, "must be a safetensors file that can be read", str(problem), _REMEDY)) from problem
    if not isinstance(found, dict):
        raise SourceError(say(path, "must have an object as its header", found, _REMEDY))
    return {name: entry for name, entry in found.items() if name != "__metadata__"}


def _blocks(path: str, header: Mapping[str, Any]) -> int:
    """n, once the file holds exactly the tensors of the network with n blocks a stage."""
    n = len([name for name in header if name.startswith("layer1.") and name.endswith(".conv1.weight")])
    if not 1 <= n <= MOST_BLOCKS:
        raise SourceError(say(path, f"must have 1 to {MOST_BLOCKS} blocks a stage", n, _REMEDY))
    with torch.device("meta"):
        state = ResNet(n).state_dict()
    shapes = {name: list(t.shape) for name, t in state.items() if not name.endswith("num_batches_tracked")}
    missing, strange = sorted(shapes.keys() - header.keys()), sorted(header.keys() - state.keys())
    if missing or strange:
        got = f"{len(missing)} missing {missing[:3]}, {len(strange)} unknown {strange[:3]}"
        raise SourceError(say(path, f"must hold the {len(shapes)} tensors of a ResNet-{6 * n + 2}", got, _REMEDY))
    for name, shape in shapes.items():
        entry = header[name] if isinstance(header[name], dict) else {}
        if entry.get("shape") != shape or entry.get("dtype") != "F32":
            got = (entry.get("shape"), entry.get("dtype"))
            raise SourceError(say(f"{path}: {name}", f"must have shape {shape} and type F32", got, _REMEDY))
    return n


def _weights(path: str) -> dict[str, Tensor]:
    try:
        state = safetensors.torch.load_file(path)
    except (OSError, SafetensorError, ValueError) as problem:
        raise SourceError(say(path, "must be an undamaged safetensors file", str(problem), _REMEDY)) from problem
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    for name, value in state.items():
        total = float(value.double().sum())
        if not math.isfinite(total) or (name.endswith("running_var") and bool((value < 0).any())):
            raise SourceError(say(f"{path}: {name}", "must hold finite numbers, variances of 0 or more", total))
    return state
