"""Statistical alignments: label maps made from what the source says about labelled samples, without gradients.

Random, frequency and Bayesian maps; the rules are in `label_maps`. The last two observe batches as they come by,
which costs no pass of its own, and change their map only at `refresh`:

    observe, observe, ..., refresh            once (FLM), or
    forget, observe, observe, ..., refresh    again in every epoch (ILM, BLM)

The map is saved with the program. The counts it was made from are not; `statistics` and `load_statistics` carry them
over when a fit is interrupted, bit for bit. Several ranks: each counts its own samples, and `refresh`, which every rank
must call, adds them up. DistributedDataParallel copies rank 0's buffers over the others' unless told
`broadcast_buffers=False`, and would so lose their counts.
"""

from typing import final

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from reprogram.core.errors import ArtifactError, say
from reprogram.core.program import Output
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs import label_maps
from reprogram.outputs._checks import check_above, check_at_least, check_one_to_one, check_sizes
from reprogram.outputs._scores import no_autocast, source_scores
from reprogram.outputs._tally import Counted, over_ranks

UNSEEN = -1e4
"""Score of a class that a Bayesian map has never seen: below any mean of logits, and finite even in float16."""


@final
class RandomMap(Output):
    """``y_t = z_{pi(t)}`` for a random one-to-one pi (RLM): no data needed, and the control of the other maps.

    Args:
        sources: S.
        targets: T, at most S.
        seed: of pi; see `label_maps.random_map`.

    Raises:
        ConfigError: S or T is below 1, or T is above S.

    >>> z = torch.tensor([[1.0, 2.0, 3.0]])
    >>> random = RandomMap(3, 3, seed=0)
    >>> torch.equal(random(SourceOutput(z)), z @ random.fold())
    True
    """

    alignment = Alignment.STATISTICAL
    index: Tensor

    def __init__(self, sources: int, targets: int, seed: int = 0) -> None:
        super().__init__()
        self.sources, self.targets = sources, targets
        self.register_buffer("index", label_maps.random_map(sources, targets, seed))
        self.register_load_state_dict_post_hook(_check_index)  # pyright: ignore[reportUnknownMemberType]

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """One source score for each target."""
        return source_scores(output, self.sources).index_select(1, self.index)

    def fold(self) -> Float[Tensor, " source target"]:
        """[S, T], a single 1 in each column."""
        return _selection(self.index.unsqueeze(1), self.sources)

    def offset(self) -> Float[Tensor, " target"]:
        """Zeros [T], what is to be added to ``scores @ fold()``."""
        return torch.zeros(self.targets, device=self.index.device)


@final
class FrequencyMap(Counted):
    """``y_t = mean of z_s over the m source classes that are predicted most often for t`` (FLM, ILM, AutoVP).

    One source class serves one target only; see `label_maps.many_to_one_map`. Before the first `refresh` it is the map
    of no counts, the first classes: target 0 has source classes 0 to m - 1, and so on. A class that was never seen gets
    source classes that are left over, hence scores without a meaning, as in the published maps.

    Args:
        sources: S.
        targets: T.
        per_class: m, with m * T at most S.

    Raises:
        ConfigError: S, T or m is below 1, or m * T is above S.

    >>> said = SourceOutput(torch.tensor([[0.0, 0.0, 9.0], [5.0, 0.0, 0.0]]))
    >>> flm = FrequencyMap(3, 2)
    >>> flm.observe(said, torch.tensor([0, 1]))
    >>> flm.refresh()
    >>> flm(said).tolist()
    [[9.0, 0.0], [0.0, 5.0]]
    """

    alignment = Alignment.STATISTICAL
    index: Tensor

    def __init__(self, sources: int, targets: int, per_class: int = 1) -> None:
        super().__init__()
        self.sources, self.targets, self.per_class = sources, targets, per_class
        check_one_to_one(sources, targets, per_class)
        self.register_buffer("index", torch.arange(targets * per_class).view(targets, per_class))
        self.register_buffer("counts", torch.zeros(sources, targets, dtype=torch.int64), persistent=False)
        self.register_load_state_dict_post_hook(_check_index)  # pyright: ignore[reportUnknownMemberType]

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Means of m source scores."""
        taken = source_scores(output, self.sources).index_select(1, self.index.flatten())
        return taken if self.per_class == 1 else taken.view(-1, *self.index.shape).mean(dim=-1)

    def fold(self) -> Float[Tensor, " source target"]:
        """[S, T], m entries of 1 / m in each column."""
        return _selection(self.index, self.sources)

    def offset(self) -> Float[Tensor, " target"]:
        """Zeros [T], what is to be added to ``scores @ fold()``."""
        return torch.zeros(self.targets, device=self.index.device)

    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Count a batch: the source class with the highest score (the first of equals) against the label.

        Raises:
            DataError: scores that are NaN or infinite, or labels that are not classes.
        """
        _count(self.counts, output, target)

    @torch.no_grad()
    def refresh(self) -> None:
        """Match anew, from the counts of all ranks. Where nothing was counted at all, the map stays as it is."""
        total = over_ranks(self.counts)
        if bool(total.any()):
            self.index.copy_(label_maps.many_to_one_map(total, self.per_class))


class _Weighed(Counted):
    """``y = z W``, W [S, T] by `label_maps.bayesian_map` from counts."""

    alignment = Alignment.STATISTICAL
    matrix: Tensor

    def __init__(self, sources: int, targets: int, smoothing: float = 1.0) -> None:
        super().__init__()
        check_sizes(sources, targets)
        check_at_least("smoothing", smoothing, 0.0)
        self.sources, self.targets, self.smoothing = sources, targets, smoothing
        self.register_buffer("matrix", torch.zeros(sources, targets))
        self.register_buffer("counts", torch.zeros(sources, targets, dtype=torch.int64), persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Weighted means of source scores."""
        scores = source_scores(output, self.sources)
        with no_autocast(scores):
            return torch.addmm(self.offset().to(scores.dtype), scores, self.matrix.to(scores.dtype))

    def fold(self) -> Float[Tensor, " source target"]:
        """W, [S, T]."""
        return self.matrix.clone()

    def offset(self) -> Float[Tensor, " target"]:
        """[T], what is to be added to ``scores @ fold()``: `UNSEEN` for classes without weights, else 0."""
        seen = self.matrix.any(0)
        return torch.where(seen | ~seen.any(), 0.0, UNSEEN).to(self.matrix.dtype)

    @torch.no_grad()
    def refresh(self) -> None:
        """Make W anew, from the counts of all ranks. Where nothing was counted at all, it stays as it is."""
        total = over_ranks(self.counts)
        if bool(total.any()):
            self.matrix.copy_(label_maps.bayesian_map(self._samples(total), self.smoothing))

    def _samples(self, counts: Tensor) -> Tensor:
        """Counts as numbers of samples."""
        return counts


@final
class BayesianMap(_Weighed):
    """``y = z W`` on raw logits, every source class speaking for every target as much as it should (BLM).

    W [S, T] is `label_maps.bayesian_map` of counts of predicted classes, and its columns sum to 1: a target's score is
    a weighted mean of source scores. A class that was never seen has no weights, so it gets the score `UNSEEN`
    (-10,000) and cannot win. Before the first `refresh` nothing is known of any class: all scores are 0, probabilities
    are uniform, and the input gets a gradient of 0.

    Args:
        sources: S.
        targets: T; may be above S.
        smoothing: lambda; 1 in the published configuration.

    Raises:
        ConfigError: S or T is below 1, or the smoothing is negative or not finite.

    >>> said = SourceOutput(torch.tensor([[0.0, 0.0, 9.0], [5.0, 0.0, 0.0]]))
    >>> blm = BayesianMap(3, 2)
    >>> blm.observe(said, torch.tensor([0, 1]))
    >>> blm.refresh()
    >>> blm(said).tolist()
    [[9.0, 0.0], [0.0, 5.0]]
    """

    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Count a batch: the source class with the highest score (the first of equals) against the label.

        Raises:
            DataError: scores that are NaN or infinite, or labels that are not classes.
        """
        _count(self.counts, output, target)


@final
class BayesianMapPlus(_Weighed):
    """`BayesianMap` of soft counts: a sample counts for its k most probable source classes (BLM+).

    ``k = max(1, floor(top_ratio * T))``; the counts are `label_maps.top_counts`, whole numbers in steps of
    `label_maps.SOFT_UNIT`, good for 134 million samples a cell between two calls of `forget`.

    Args:
        sources: S.
        targets: T; may be above S.
        smoothing: lambda; 1 in the published configuration.
        top_ratio: alpha; 0.15 as published.
        temperature: divides the logits before their softmax; 1 as published.

    Raises:
        ConfigError: a setting is out of range.

    >>> said = SourceOutput(torch.tensor([[0.0, 0.0, 9.0], [9.0, 0.0, 0.0]]))
    >>> blm = BayesianMapPlus(3, 2)
    >>> blm.observe(said, torch.tensor([0, 1]))
    >>> blm.refresh()
    >>> blm(said).tolist()
    [[9.0, 0.0], [0.0, 9.0]]
    """

    def __init__(
        self, sources: int, targets: int, smoothing: float = 1.0, top_ratio: float = 0.15, temperature: float = 1.0
    ) -> None:
        super().__init__(sources, targets, smoothing)
        check_above("temperature", temperature)
        self.top, self.temperature = label_maps.top_size(targets, top_ratio), temperature

    @torch.no_grad()
    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Add a batch: the k highest softmax values of each sample against the label.

        Raises:
            DataError: scores that are NaN or infinite, or labels that are not classes.
        """
        scores = source_scores(output, self.sources)
        label_maps.top_counts(scores, target, self.targets, self.top, self.temperature, out=self.counts)

    def _samples(self, counts: Tensor) -> Tensor:
        return counts * label_maps.SOFT_UNIT


@torch.no_grad()
def _count(counts: Tensor, output: SourceOutput, target: Tensor) -> None:
    sources, targets = counts.shape
    predicted = label_maps.predicted_classes(source_scores(output, sources))
    label_maps.count_pairs(predicted, target, sources, targets, out=counts)


def _selection(index: Tensor, sources: int) -> Tensor:
    """[T, m] source classes as a matrix [S, T] that takes their mean."""
    share = torch.full(index.shape, 1 / index.shape[1], device=index.device)
    return share.new_zeros(sources, len(index)).scatter_(0, index.T, share.T)


def _check_index(module: nn.Module, _keys: object) -> None:
    """After loading: a foreign index must not reach a GPU, where it ends the process instead of raising an error."""
    assert isinstance(module, RandomMap | FrequencyMap)
    ends = [int(end) for end in module.index.aminmax()]
    if ends[0] < 0 or ends[1] >= module.sources:
        raise ArtifactError(say("index", f"must hold source classes from 0 to {module.sources - 1}", ends))
