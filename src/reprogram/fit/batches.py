"""Which examples go together: at random for training, by length where length costs."""

import torch
from torch import Tensor

from reprogram.tasks import Split

WINDOW = 16
"""Batches sorted by length together in training: enough to save most of the padding, few enough to stay random."""


def shuffled(split: Split, size: int, seed: int) -> Tensor:
    """All rows once, in an order that the seed decides.

    Texts of like length are put into one batch (within windows of 16 batches, which then come in random order): on
    sentences of 5 to 50 words nearly half of a random batch would be padding.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(split), generator=generator)
    lengths = split.lengths()
    if lengths is None or len(split) <= size:
        return order
    whole = len(split) // size * size  # the last, smaller batch stays where it is
    sorted_ = torch.cat([w[lengths[w].argsort(stable=True)] for w in order[:whole].split(WINDOW * size)])
    batches = sorted_.view(-1, size)
    return torch.cat([batches[torch.randperm(len(batches), generator=generator)].flatten(), order[whole:]])


def alike(split: Split, size: int) -> list[Tensor]:
    """All rows once in batches of examples of like length, for passes whose order does not matter."""
    lengths = split.lengths()
    order = torch.arange(len(split)) if lengths is None else lengths.argsort(stable=True)
    return list(order.split(size))
