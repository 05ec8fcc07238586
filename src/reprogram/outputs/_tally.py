"""Statistics that grow batch by batch: how they are added over ranks, handed out and taken back."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from reprogram.core.errors import ArtifactError, say
from reprogram.core.program import Output


@torch.no_grad()
def over_ranks(part: Tensor) -> Tensor:
    """The sum of every rank's part, where there are ranks. Each rank's own part stays as it is.

    Every rank must come here, also one that saw no sample.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return part
    total = part.clone()
    dist.all_reduce(total)
    return total


@torch.no_grad()
def take_back(mine: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy saved statistics over one's own; nothing is changed unless all of them fit.

    Raises:
        ArtifactError: other names, shapes or dtypes than one's own.
    """
    want, came = _plan(mine), _plan(saved)
    if want != came:
        remedy = "Give what `statistics()` of a like output gave."
        raise ArtifactError(say("statistics", f"must be {want}", came, remedy))
    for name, value in mine.items():
        value.copy_(saved[name])


class Counted(Output):
    """An output made from counts: what they are made into is saved with the program, they themselves are not."""

    counts: Tensor

    def forget(self) -> None:
        """Set the counts to zero; what was made from them stays."""
        self.counts.zero_()

    def statistics(self) -> dict[str, Tensor]:
        """A copy of the counts, int64: with the state, all that an exact resume needs."""
        return {"counts": self.counts.clone()}

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take back what `statistics` gave.

        Raises:
            ArtifactError: it is not from an output like this one.
        """
        take_back({"counts": self.counts}, statistics)


def _plan(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(t.shape), t.dtype) for name, t in sorted(tensors.items())}
