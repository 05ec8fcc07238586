"""The pass of its own that a label map needs where training does not feed it."""

import torch

from reprogram.core.program import Calibrating, Input, Observing, Program
from reprogram.fit.batches import alike
from reprogram.fit.feed import Feed, scoring_batch
from reprogram.tasks import Split


@torch.no_grad()
def observe_split(program: Program, split: Split, feed: Feed, *, seed: int, limit: int | None = None) -> int:
    """Show a split, or what the output asks for in its place, to the output's statistics.

    Args:
        program: whose output observes; put into eval mode.
        split: the training split.
        feed: where the source's outputs come from.
        seed: of the choice of rows, where the output takes a part of the split only.
        limit: inputs at most; None for all.

    Returns:
        How many inputs were shown.
    """
    program.eval()
    own = program.output
    assert isinstance(own, Observing)
    device = program.source.device
    if isinstance(own, Calibrating):
        if own.rows is not None:
            said = program.source(own.rows, Input(), program.output.reading) if own.bare else program.outputs(own.rows)
            own.observe(said, torch.zeros(len(own.rows), dtype=torch.int64, device=device))
            return len(own.rows)
        if own.most is not None and own.most < len(split):
            draw = torch.Generator().manual_seed(seed)
            split = split.subset(torch.randperm(len(split), generator=draw)[: own.most])
    seen = 0
    for index in alike(split, scoring_batch(device)):
        if limit is not None and seen + len(index) > limit:
            break
        own.observe(feed.outputs(split, index), split.labels[index].to(device))
        seen += len(index)
    return seen
