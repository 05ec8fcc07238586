"""Classes by the vectors of texts about them: many texts a class, pooled, or weighed by what unlabelled inputs say.

All that is needed of a source are features that can be compared with these vectors: a text encoder's own, or those of
the picture half of a model of pictures and texts.
"""

import math
from collections.abc import Mapping
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.program import Output
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._checks import check_above, check_sizes, not_finite
from reprogram.outputs._scores import no_autocast, source_features
from reprogram.outputs._tally import over_ranks, take_back

Pooling = Literal["mean", "logits", "max"]
Debias = Literal["both", "test", "pretrain", "pretrain_all", "none"]
Weighing = Literal["softmax", "raw", "equal"]

_CELLS = 1 << 24  # logits that are held at once
_SAME = 1e-5  # of the largest score there can be: what is below this is rounding


@final
class ClassTexts(Output):
    """``y_t = scale * (h . v) pooled over the texts v of class t``, h the features, all of length one.

    Pooling is done once where it can be: "mean" scores by the mean of the texts' vectors, brought to length one again
    (CuPL, Pratt et al. 2022, arXiv 2209.03320); "logits" by their mean as it is, which is the mean of their scores;
    "max" takes the best of the scores.

    Args:
        vectors: [n, d], of all texts.
        owner: [n], the class of each.
        targets: T.
        pooling: over the texts of a class.
        scale: times the cosines, so that `softmax` has something to tell apart.

    Raises:
        ConfigError: a number is out of range, the sizes differ, or a class has no text.
        DataError: vectors that are NaN or infinite, or no mean of a class has a direction.

    >>> texts = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    >>> near = SourceOutput(features=torch.tensor([[0.0, 5.0]]))
    >>> ClassTexts(texts, torch.tensor([0, 0, 1]), 2, pooling="logits", scale=1.0)(near).tolist()
    [[0.5, 0.0]]
    >>> ClassTexts(texts, torch.tensor([0, 0, 1]), 2, pooling="max", scale=1.0)(near).tolist()
    [[1.0, 0.0]]
    """

    reads_features = True
    table: Tensor
    owner: Tensor

    def __init__(
        self,
        vectors: Float[Tensor, " n dim"],
        owner: Integer[Tensor, " n"],
        targets: int,
        *,
        pooling: Pooling = "mean",
        scale: float = 20.0,
    ) -> None:
        super().__init__()
        check_sizes(vectors.shape[1], targets)
        check_above("scale", scale)
        _check_texts(vectors, owner, targets)
        self.alignment = Alignment.RULE_BASED if pooling == "max" else Alignment.LINEAR
        self.sources, self.targets, self.scale = vectors.shape[1], targets, scale
        self.pooling: Pooling = pooling
        self.register_buffer("table", pooled(vectors, owner, targets, pooling))
        self.register_buffer("owner", owner.clone(), persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Cosines to the class vectors, or the best cosine of each class, times the scale."""
        value = F.normalize(source_features(output, self.sources), dim=-1)
        with no_autocast(value):
            close = value @ self.table.to(value.dtype).T * self.scale
        if self.pooling != "max":
            return close
        empty = close.new_full((len(close), self.targets), -math.inf)
        return empty.scatter_reduce(1, self.owner.expand(len(close), -1), close, "amax")

    def extra_repr(self) -> str:
        """Settings."""
        return f"texts={len(self.owner)}, targets={self.targets}, pooling={self.pooling}, scale={self.scale:g}"


def pooled(
    vectors: Float[Tensor, " n dim"], owner: Integer[Tensor, " n"], targets: int, pooling: Pooling
) -> Float[Tensor, " rows dim"]:
    """Class vectors [T, d]; for "max" the texts' own [n, d]. See `ClassTexts`.

    Raises:
        DataError: the texts of a class cancel one another out.
    """
    units = F.normalize(vectors.float(), dim=-1)
    if pooling == "max":
        return units
    sums = units.new_zeros(targets, units.shape[1]).index_add_(0, owner, units)
    means = sums / torch.bincount(owner, minlength=targets)[:, None]
    if pooling == "logits":
        return means
    if bool((means.square().sum(-1) < 1e-12).any()):
        raise DataError(say("vectors", "must have a mean with a direction for each class", "a mean of zero"))
    return F.normalize(means, dim=-1)


@final
class PromptEnsemble(Output):
    """``y_t = scale * sum over p of w_p (h . v_tp)``: the texts of P templates for each class, weighed by template.

    The weights come in closed form from unlabelled inputs (`prompt_weights` of `prompt_scores`), at `refresh`; labels
    are not looked at. Before the first `refresh` all templates weigh the same. Averages are taken over scores, so the
    mean vector is not brought to length one (ZPE, Allingham et al. 2023, arXiv 2302.06235).

    Args:
        vectors: [T, P, d], of each template with each class's name in it.
        reference: [M, d], features of inputs like those the source was trained on, for the bias; may be None where
            `debias` is "test" or "none".
        debias: what is taken off the scores before templates are judged, see `prompt_bias`.
        weighing: how scores of templates become weights, see `prompt_weights`.
        threshold: only templates that stand out by so much are kept, see `standing_out`; None keeps all.
        scale: times the cosines; with "softmax" it also decides how unequal the weights are.
        capacity: inputs whose features are kept until `refresh`, each with the same chance to be among them.

    Raises:
        ConfigError: a number is out of range, or there is no reference where one is needed.
        DataError: vectors that are NaN or infinite.

    >>> near = torch.tensor([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [0.6, 0.8]]])
    >>> said = SourceOutput(features=torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> output = PromptEnsemble(near, debias="test", scale=1.0)
    >>> output(said).argmax(1).tolist(), output.weights.tolist()
    ([0, 1], [0.5, 0.5])
    >>> output.observe(said, torch.tensor([0, 0]))
    >>> output.refresh()
    >>> bool(output.weights[0] > output.weights[1])
    True
    """

    alignment = Alignment.LINEAR
    reads_features = True
    vectors: Tensor
    prior: Tensor
    weights: Tensor
    found: Tensor
    seen: Tensor

    def __init__(  # noqa: PLR0913 - the paper's choices, one by one
        self,
        vectors: Float[Tensor, " target prompt dim"],
        reference: Float[Tensor, " m dim"] | None = None,
        *,
        debias: Debias = "both",
        weighing: Weighing = "softmax",
        threshold: float | None = None,
        scale: float = 20.0,
        capacity: int = 4096,
    ) -> None:
        super().__init__()
        targets, prompts, sources = vectors.shape
        check_sizes(sources, targets)
        check_sizes(capacity, prompts)
        check_above("scale", scale)
        if threshold is not None and not math.isfinite(threshold):
            raise ConfigError(say("threshold", "must be a finite number or none", threshold))
        if reference is None and debias not in ("test", "none"):
            raise ConfigError(say("reference", f"must be given for debias={debias!r}", None, 'Or use debias="test".'))
        for some in (vectors, reference):
            if some is not None and not bool(some.isfinite().all()):
                raise not_finite(some, "vectors")
        self.sources, self.targets, self.scale, self.capacity = sources, targets, scale, capacity
        self.debias: Debias = debias
        self.weighing: Weighing = weighing
        self.threshold = threshold
        # Known from the arguments, hence not saved: the texts' vectors, and the reference's mean scores [P, T].
        self.register_buffer("vectors", F.normalize(vectors.float(), dim=-1), persistent=False)
        middle = None if reference is None else F.normalize(reference.float(), dim=-1).mean(0, keepdim=True)
        prior = self.vectors.new_zeros(prompts, targets) if middle is None else self._logits(middle)[0]
        self.register_buffer("prior", prior, persistent=False)
        self.register_buffer("weights", self.vectors.new_full((prompts,), 1 / prompts))
        self.register_buffer("found", self.vectors.new_zeros(capacity, sources), persistent=False)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64), persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Weighted means over templates of cosines times the scale."""
        value = F.normalize(source_features(output, self.sources), dim=-1)
        with no_autocast(value):
            table = torch.einsum("p,tpd->td", self.weights, self.vectors).to(value.dtype)
            return value @ table.T * self.scale

    @torch.no_grad()
    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Keep a batch's features, in place of earlier ones at random once the memory is full.

        Raises:
            DataError: features that are NaN or infinite.
        """
        value = source_features(output, self.sources)
        if not bool(value.isfinite().all()):
            raise not_finite(value, "features")
        value = F.normalize(value, dim=-1).to(self.found.dtype)
        first = int(self.seen)
        number = torch.arange(first, first + len(value))
        chance = torch.rand(len(value), generator=torch.Generator().manual_seed(first), dtype=torch.float64)
        drawn = (chance * (number + 1)).long()  # reservoir sampling: sample i takes the place of one of the i before
        places = torch.where(number < self.capacity, number, drawn)
        for row in (places < self.capacity).nonzero().squeeze(1):
            self.found[int(places[row])] = value[int(row)]
        self.seen += len(value)

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the weights anew, from all ranks. Where nothing was observed at all, they stay as they are."""
        kept = torch.zeros(self.capacity, 1, dtype=self.found.dtype, device=self.found.device)
        kept[: int(self.seen)] = 1
        rows = _of_all_ranks(torch.cat([self.found, kept], 1))
        features = rows[rows[:, -1] > 0, :-1]
        if not len(features):
            return
        bias = prompt_bias(self._logits(features.mean(0, keepdim=True))[0], self.prior, self.debias)
        size = max(1, _CELLS // bias.numel())
        total = bias.new_zeros(len(bias), dtype=torch.float64)
        for start in range(0, len(features), size):
            part = features[start : start + size]
            total += prompt_scores(self._logits(part), bias).double() * len(part)
        scores = total / len(features)
        scores = torch.where(scores.abs() < _SAME * self.scale, 0.0, scores)  # rounding must not become a raw weight
        self.weights.copy_(prompt_weights(scores, self.weighing, self.threshold))

    def forget(self) -> None:
        """Keep nothing of what was observed; the weights stay."""
        self.found.zero_()
        self.seen.zero_()

    def statistics(self) -> dict[str, Tensor]:
        """Copies of what was kept: with the state, all that an exact resume needs."""
        return {"found": self.found.clone(), "seen": self.seen.clone()}

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take back what `statistics` gave.

        Raises:
            ArtifactError: it is not from an output like this one.
        """
        take_back({"found": self.found, "seen": self.seen}, statistics)

    def extra_repr(self) -> str:
        """Settings."""
        return (
            f"targets={self.targets}, prompts={len(self.weights)}, debias={self.debias}, weighing={self.weighing}, "
            f"threshold={self.threshold}, scale={self.scale:g}"
        )

    def _logits(self, units: Tensor) -> Tensor:
        """[N, P, T]."""
        with no_autocast(units):
            return torch.einsum("nd,tpd->npt", units, self.vectors) * self.scale


def prompt_bias(
    test: Float[Tensor, " prompt target"], pretrain: Float[Tensor, " prompt target"], debias: Debias
) -> Float[Tensor, " prompt target"]:
    """What a template and a class score anyway, whatever the input.

    Args:
        test: [P, T], mean scores over the task's unlabelled inputs.
        pretrain: [P, T], mean scores over inputs like those the source was trained on.
        debias: "test" or "pretrain" takes one of them, "both" the mean of the two (the paper's choice); "pretrain_all"
            the mean of `pretrain` over classes; "none" zeros.

    >>> prompt_bias(torch.tensor([[2.0, 4.0]]), torch.tensor([[0.0, 2.0]]), "both").tolist()
    [[1.0, 3.0]]
    """
    if debias == "none":
        return torch.zeros_like(test)
    if debias == "both":
        return (test + pretrain) / 2
    if debias == "pretrain_all":
        return pretrain.mean(1, keepdim=True).expand_as(pretrain)
    return test if debias == "test" else pretrain


def prompt_scores(
    logits: Float[Tensor, " n prompt target"], bias: Float[Tensor, " prompt target"]
) -> Float[Tensor, " prompt"]:
    """``s_p = mean over inputs i of max over classes c of (l_ipc - bias_pc)``: how sure a template is of its answers.

    Args:
        logits: [N, P, T] of unlabelled inputs.
        bias: [P, T], see `prompt_bias`.

    >>> prompt_scores(torch.tensor([[[3.0, 1.0]], [[0.0, 2.0]]]), torch.tensor([[1.0, 1.0]])).tolist()
    [1.5]
    """
    return (logits - bias).amax(-1).mean(0)


def prompt_weights(
    scores: Float[Tensor, " prompt"], weighing: Weighing = "softmax", threshold: float | None = None
) -> Float[Tensor, " prompt"]:
    """Weights [P] that sum to 1, from the scores of templates; made of all of them, then cut down to those kept.

    Args:
        scores: [P], see `prompt_scores`.
        weighing: "softmax" of the scores; "raw", the scores themselves, those below 0 counting as 0; or "equal".
        threshold: see `standing_out`; None keeps all.

    >>> prompt_weights(torch.tensor([1.0, 3.0]), "raw").tolist()
    [0.25, 0.75]
    """
    kept = torch.ones_like(scores, dtype=torch.bool) if threshold is None else standing_out(scores, threshold)
    if weighing == "softmax":
        weights = scores.softmax(0)
    else:
        weights = scores.clamp_min(0) if weighing == "raw" else torch.ones_like(scores)
    weights = weights * kept
    if not bool(weights.sum() > 0):  # raw scores none of which is above 0: nothing to tell templates apart
        weights = kept.to(scores.dtype)
    return weights / weights.sum()


def standing_out(scores: Float[Tensor, " prompt"], threshold: float) -> Bool[Tensor, " prompt"]:
    """Which templates have ``(s_p - median) / MAD`` above the threshold, MAD the median distance from the median.

    Where more than half of the scores are the same, MAD is 0, and those not below the median are kept; where none
    stands out, the best are.

    >>> standing_out(torch.tensor([1.0, 2.0, 3.0, 9.0]), 2.0).tolist()
    [False, False, False, True]
    >>> standing_out(torch.tensor([5.0, 5.0, 5.0, 1.0]), 0.5).tolist()
    [True, True, True, False]
    """
    values = scores.double()
    middle = values.quantile(0.5)
    spread = (values - middle).abs().quantile(0.5)
    least = _SAME * values.abs().max()
    if spread <= least:
        return values >= middle - least
    kept = (values - middle) / spread > threshold
    return kept if bool(kept.any()) else values >= values.max() - least


def _check_texts(vectors: Tensor, owner: Tensor, targets: int) -> None:
    if not bool(vectors.isfinite().all()):
        raise not_finite(vectors, "vectors")
    inside = len(owner) > 0 and 0 <= int(owner.min()) <= int(owner.max()) < targets
    if not inside or not bool((torch.bincount(owner, minlength=targets) > 0).all()):
        need = f"must name each of {targets} classes for one text at least"
        raise ConfigError(say("owner", need, sorted({int(c) for c in owner})))


def _of_all_ranks(mine: Tensor) -> Tensor:
    """Every rank's rows, one rank after the other."""
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return mine
    every = mine.new_zeros(dist.get_world_size(), *mine.shape)
    every[dist.get_rank()] = mine
    return over_ranks(every).flatten(0, 1)
