"""Rule-based alignment by meaning: each target is read off the source classes whose names are closest to its own."""

from collections.abc import Sequence
from typing import Any, cast, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.program import Output
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._checks import check_one_to_one
from reprogram.outputs._scores import source_scores


@torch.no_grad()
def semantic_map(similarity: Float[Tensor, " source target"], per_class: int = 1) -> Int[Tensor, " target taken"]:
    """``m`` source classes for each target by the likeness of names, each source class for one target only.

    In m rounds, the targets one after another take the most similar source class that is left (AutoVP's semantic map,
    arXiv 2310.08381). Ties go to the smaller source class.

    Args:
        similarity: [S, T], such as cosines of text vectors.
        per_class: m.

    Returns:
        [T, m], the source classes of each target in the order in which it took them.

    Raises:
        ConfigError: m is below 1, or m * T is above S.
        DataError: a similarity is not a finite number.

    Both targets like source 0 best; the first has it:

    >>> semantic_map(torch.tensor([[0.9, 0.8], [0.7, 0.1], [0.0, 0.5], [0.6, 0.0]]), per_class=2).tolist()
    [[0, 1], [2, 3]]
    """
    sources, targets = similarity.shape
    check_one_to_one(sources, targets, per_class)
    if not bool(similarity.isfinite().all()):
        raise DataError(say("similarity", "must hold finite numbers", "NaN or infinite ones"))
    left = similarity.detach().float().T.cpu().numpy().copy()
    chosen = np.empty((targets, per_class), np.int64)
    for taken in range(per_class):
        for target in range(targets):
            best = left[target].argmax()
            chosen[target, taken] = best
            left[:, best] = -np.inf
    return torch.as_tensor(chosen, device=similarity.device)


@final
class ChosenClasses(Output):
    """``y_t = mean of z_s over the source classes chosen for t``: a map that somebody made before, such as by meaning.

    Args:
        index: [T, m] source classes, none twice.
        sources: S.

    Raises:
        ConfigError: rows of different lengths, a source class twice, or one that the source does not have.

    >>> ChosenClasses([[0, 1], [2, 3]], 4)(SourceOutput(torch.tensor([[1.0, 3.0, 5.0, 6.0]]))).tolist()
    [[2.0, 5.5]]
    """

    alignment = Alignment.RULE_BASED
    index: Tensor

    def __init__(self, index: Sequence[Sequence[int]], sources: int) -> None:
        super().__init__()
        widths = {len(row) for row in index}
        flat = [int(one) for row in index for one in row]
        if len(widths) != 1 or not flat or len(set(flat)) < len(flat):
            raise ConfigError(say("index", "must name as many source classes for each target, none twice", index))
        if not (min(flat) >= 0 and max(flat) < sources):
            raise ConfigError(say("index", f"must be source classes from 0 to {sources - 1}", (min(flat), max(flat))))
        self.sources, self.targets = sources, len(index)
        # Known from the arguments, hence not saved.
        self.register_buffer("index", torch.tensor(flat).view(len(index), -1), persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Means of m source scores."""
        taken = source_scores(output, self.sources).index_select(1, self.index.flatten())
        return taken.view(-1, *self.index.shape).mean(-1)

    def fold(self) -> Float[Tensor, " source target"]:
        """[S, T], m entries of 1 / m in each column."""
        share = torch.full(self.index.shape, 1 / self.index.shape[1], device=self.index.device)
        return share.new_zeros(self.sources, self.targets).scatter_(0, self.index.T, share.T)

    def offset(self) -> Float[Tensor, " target"]:
        """Zeros [T], what is to be added to ``scores @ fold()``."""
        return torch.zeros(self.targets, device=self.index.device)

    def chosen(self) -> tuple[tuple[int, ...], ...]:
        """The source classes of each target."""
        rows = cast("list[list[Any]]", self.index.tolist())  # pyright: ignore[reportUnknownMemberType]
        return tuple(tuple(int(one) for one in row) for row in rows)
