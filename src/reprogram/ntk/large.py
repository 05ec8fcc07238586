"""Kernels of more samples than fit: a sketch over the whole training split, in one pass and in flat memory."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Program
from reprogram.ntk.dynamics import centred_one_hot
from reprogram.ntk.pull import Pulled
from reprogram.ntk.sketch import Sketch, SketchResult
from reprogram.ntk.sweep import CHUNK, Tile, sweep

TIME = 10.0
"""Gradient-flow time of the loss figures: a step of 0.01 for 1,000 steps, as in the replication."""


def sketch_kernel(
    program: Program,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    columns: int = 1024,
    seed: int = 0,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
) -> SketchResult:
    """Trace, lambda_max, alignment, flow loss and log-determinant of a program's kernel on any number of samples.

    Each figure carries an error bar; there is no lambda_min, which no sketch can give. The loss is that of the labels
    alone, from scores of zero (alignment needs the same), at a time of 10 and of 10 per mean eigenvalue; the first is
    the label energy that training has not fitted by then.

    Args:
        program: with one learned edit, or several without a factored derivative; its output map is taken as it is.
        batches: pairs of samples [B, ...] and class numbers [B], one after the other; see `batches_of`.
        columns: k of the sketch.
        seed: of the sketch.
        chunk: samples to a forward pass.
        progress: told how many samples have been taken in.

    Raises:
        CapabilityError: the program learns nothing, or the source has no gradients or couples samples.
        ConfigError: the program's derivative is of a kind that cannot be sketched.
        DataError: numbers that are not finite, or nothing to describe.
    """
    sketch = Sketch(columns, seed)
    for x, y in batches:
        at = 0
        for tile in sweep(program, x, chunk=chunk):
            labels = centred_one_hot(y[at : at + len(tile.scores)], tile.scores.shape[1])
            at += len(tile.scores)
            part = _one(tile)
            sketch.add(part.rows, labels.to(part.rows.device), part.factor)
            if progress is not None:
                progress(sketch.samples)
    return sketch.finish([TIME, TIME / sketch.mean] if sketch.mean else [])


def batches_of(
    fetch: Callable[[Tensor], Tensor], labels: Tensor, rows: Tensor, size: int = 256
) -> Iterator[tuple[Tensor, Tensor]]:
    """Samples and labels a block at a time, so that no more than a block is in memory.

    Args:
        fetch: `Split.fetch`.
        labels: [N] of the split.
        rows: which of them, in order.
        size: of a block.
    """
    for part in rows.split(size):
        yield fetch(part), labels[part]


def _one(tile: Tile) -> Pulled:
    """The derivative of a tile as rows with at most one factor."""
    parts = list(tile.parts.values())
    if not parts:
        raise CapabilityError(say("program", "must learn something by gradients to have a kernel", "nothing to learn"))
    if len(parts) == 1 and not parts[0].eye:
        return parts[0]
    if any(p.eye or p.factor is not None for p in parts):
        remedy = "Take the exact kernel of fewer samples (`program_kernel`)."
        names = list(tile.parts)
        raise ConfigError(say("program", "must have one learned part, or plain ones, for a sketch", names, remedy))
    return Pulled(torch.cat([p.rows for p in parts], 2))
