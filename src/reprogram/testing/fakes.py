"""Tiny frozen models and tasks that make tests fast: real modules, real gradients, no downloads."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reprogram.sources import ModuleSource
from reprogram.sources.module import wrap
from reprogram.tasks import Task


@final
class TinyNet(nn.Module):
    """Two residual convolution blocks with batch norm, mean pooling and a linear head: [B, 3, h, w] -> [B, S].

    Args:
        classes: S.
        width: channels.
        checkpointed: run the blocks under activation checkpointing while gradients are on.
    """

    def __init__(self, classes: int = 12, width: int = 16, *, checkpointed: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.1))
            for _ in range(2)
        )
        self.head = nn.Linear(width, classes)
        self.checkpointed = checkpointed

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = self.stem(x)
        for block in self.blocks:
            if self.checkpointed and torch.is_grad_enabled():
                x = x + checkpoint(block, x, use_reentrant=False)  # type: ignore[operator]
            else:
                x = x + block(x)
        return self.head(F.relu(x).mean((2, 3)))


def tiny_source(
    *, classes: int = 12, size: int = 16, seed: int = 0, checkpointed: bool = False, resizable: bool = True
) -> ModuleSource:
    """A frozen `TinyNet` with sites "hidden.0" and "hidden.1"; batch norm statistics are not at their start values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TinyNet(classes, checkpointed=checkpointed)
        net.train()
        with torch.no_grad():
            for _ in range(3):
                net(torch.rand(8, 3, size, size))
    labels = [f"source {i}" for i in range(classes)]
    pixels = ((0.5,) * 3, (0.25,) * 3)
    return wrap(
        net, input_shape=(3, size, size), sites="blocks.*", labels=labels, preprocess=pixels,
        ref="module:TinyNet", resizable=resizable, width=16,
    )  # fmt: skip


def tiny_task(*, classes: int = 3, per_class: int = 16, size: int = 8, seed: int = 0) -> Task:
    """Small pictures of one bright bar a class, at noisy places: easy, but not linearly trivial."""
    generator = torch.Generator().manual_seed(seed)
    n = classes * per_class
    labels = torch.arange(n) % classes
    images = torch.rand(n, 3, size, size, generator=generator) * 0.4
    for i, label in enumerate(labels.tolist()):
        row = label * size // classes
        images[i, label % 3, row : row + 2] += 0.5
    names = tuple(f"class {i}" for i in range(classes))
    return Task.from_arrays((images.clamp(0, 1) * 255).to(torch.uint8), labels, classes=names, name="tiny")
