"""Small sources and programs that are easy to reason about."""

import torch
from torch import nn

from reprogram.core.program import Program
from reprogram.inputs import Additive, Patch, Place, full_mask
from reprogram.outputs import FirstClasses
from reprogram.sources import wrap
from reprogram.testing import tiny_task
from tests.ntk.oracle import Flat

PIXELS = 3 * 8 * 8


def source_of(*layers, dtype=None):
    """A source of pictures of 8 pixels."""
    return wrap(Flat(*layers).to(dtype), input_shape=(3, 8, 8))


def additive(source, targets=3, site="input"):
    """A pattern on all pixels, no mapping to fit."""
    outputs = source.spec.outputs
    return Program([Place(8), Additive(full_mask(8), site=site)], source, FirstClasses(outputs, targets))


def patch(source, size=1, targets=3):
    """A program of 3 * size^2 numbers."""
    return Program([Place(8), Patch(8, size)], source, FirstClasses(source.spec.outputs, targets))


def samples(n=12, classes=3, seed=0):
    """Pictures and labels of the tiny task."""
    task = tiny_task(classes=classes, per_class=max(16, n), seed=seed)
    return task.train.fetch(torch.arange(n)), task.train.labels[:n]


def linear(outputs=3, seed=0):
    torch.manual_seed(seed)
    return source_of(nn.Linear(PIXELS, outputs))


def mlp(outputs=4, width=48, seed=0):
    torch.manual_seed(seed)
    return source_of(nn.Linear(PIXELS, width), nn.Tanh(), nn.Linear(width, outputs))


def healthy(seed=0, scale=3.0):
    """Random hidden units under a head fitted to the tiny task: knows its classes, and is not too sure."""
    torch.manual_seed(seed)
    x, y = samples(60)
    x = x / 255
    below = nn.Sequential(nn.Linear(PIXELS, 96), nn.ReLU())
    head = nn.Linear(96, 3)
    with torch.no_grad():
        hidden = torch.cat([below(x.flatten(1)), torch.ones(len(x), 1)], 1).double()
        wanted = scale * (nn.functional.one_hot(y, 3).double() - 1 / 3)
        solved = torch.linalg.solve(hidden.T @ hidden + 1e-2 * torch.eye(97), hidden.T @ wanted).float()
        head.weight.copy_(solved[:-1].T)
        head.bias.copy_(solved[-1])
    return source_of(*below, head)
