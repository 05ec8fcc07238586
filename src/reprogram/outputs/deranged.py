"""REFINE's output: the source's classes under a permutation that leaves none in its place, and its loss."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from reprogram.core.errors import ConfigError, FitError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import no_autocast, source_scores


def derangement(n: int, seed: int) -> Int[Tensor, " n"]:
    """A permutation of n things without a fixed point, drawn until one comes: each is as likely.

    Args:
        n: 2 or more.
        seed: same seed, same permutation.

    Raises:
        ConfigError: n is below 2.

    >>> derangement(2, 5).tolist()
    [1, 0]
    """
    if n < 2:
        raise ConfigError(say("n", "must be 2 or more for a permutation without a fixed point", n))
    generator, own = torch.Generator().manual_seed(seed), torch.arange(n)
    while True:  # e tries on average
        drawn = torch.randperm(n, generator=generator)
        if not bool((drawn == own).any()):
            return drawn


def supervised_contrast(
    features: Float[Tensor, " batch d"], labels: Int[Tensor, " batch"], temperature: float = 0.07
) -> Float[Tensor, ""]:
    """Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362) of features that are seen twice.

    Rows are brought to length 1. As with two views of each input that are the same: every row has itself once and
    every other row twice to be compared with. Computed on one view, a quarter of the work.

    >>> float(supervised_contrast(torch.eye(2), torch.tensor([0, 1]), 1.0))  # log(e + 2) - 1
    0.5514...
    """
    unit = F.normalize(features, dim=1)
    similar = unit @ unit.T / temperature
    twice = 2 - torch.eye(len(similar), device=similar.device)
    log_share = similar - (similar + twice.log()).logsumexp(1, keepdim=True)
    weight = (labels[:, None] == labels).to(similar.dtype) * twice
    return -((weight * log_share).sum(1) / weight.sum(1)).mean()


def each_class_entropy(scores: Float[Tensor, " batch target"], truth: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of every probability of ``softmax(scores)`` against the one-hot truth, mean over all.

    Taken from the scores: from float32 probabilities, log(1 - p) of a sure source would be -infinity (torch cuts at
    -100), and the gradient gone.

    >>> float(each_class_entropy(torch.zeros(1, 2), torch.tensor([0])))  # log 2
    0.6931...
    """
    log_p, likely = scores.log_softmax(1), scores.argmax(1, keepdim=True)
    others = log_p.exp().scatter(1, likely, 0.0)  # below one half, each
    rest = log_p.scatter(1, likely, -torch.inf).logsumexp(1, keepdim=True)  # log(1 - p) of the likeliest
    log_not = torch.log1p(-others).scatter(1, likely, rest)
    return -torch.where(F.one_hot(truth, scores.shape[1]).bool(), log_p, log_not).mean()


@final
class Deranged(Output):
    """``y_t = z_{pi(t)}``, pi a derangement: the redrawn picture of class t must look like class pi(t).

    Its loss needs no labels: what the source says of the plain picture is taken for the truth,
    ``BCE(softmax(y), onehot(argmax f(x))) + contrast * supervised_contrast(I(x), argmax f(x))``.

    Args:
        sources: S, which is T.
        targets: T.
        seed: of pi.
        contrast: weight of the contrastive term.
        temperature: of it.

    Raises:
        ConfigError: S is not T, or below 2, or a number out of range.

    >>> Deranged(2, 2)(SourceOutput(torch.tensor([[1.0, 2.0]]))).tolist()
    [[2.0, 1.0]]
    """

    alignment = Alignment.RULE_BASED
    order: Tensor

    def __init__(
        self, sources: int, targets: int, *, seed: int = 0, contrast: float = 0.1, temperature: float = 0.07
    ) -> None:
        super().__init__()
        if sources != targets:
            remedy = "The source's own classes are permuted, so the task must be the source's."
            raise ConfigError(say("targets", f"must be the source's {sources} classes", targets, remedy))
        if not (contrast >= 0 and temperature > 0):
            raise ConfigError(say("contrast, temperature", "must be 0 or more, above 0", (contrast, temperature)))
        self.sources, self.seed, self.contrast, self.temperature = sources, seed, contrast, temperature
        self.register_buffer("order", derangement(sources, seed), persistent=False)

    @property
    def reading(self) -> Reading:
        """While it learns, also the redrawn picture and what the source says of the plain one, for the loss."""
        return Reading(sites=("input",), plain=True) if self.training else Reading()

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """The source's scores in the permuted order."""
        return source_scores(output, self.sources).index_select(1, self.order)

    def loss(
        self, output: SourceOutput, scores: Float[Tensor, " batch target"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """See the class; `target` is not looked at.

        Raises:
            FitError: the output of a source that was not asked for them comes without I(x) or the plain scores.
        """
        if output.plain is None or "input" not in output.at:
            raise FitError(say("output", "must come with the plain scores and I(x)", "neither"))
        guessed = output.plain.logits.argmax(1)
        with no_autocast(scores):
            fit = each_class_entropy(scores.float(), guessed)
            if not self.contrast:
                return fit
            redrawn = output.at["input"].float().flatten(1)
            return fit + self.contrast * supervised_contrast(redrawn, guessed, self.temperature)

    def fold(self) -> Float[Tensor, " source target"]:
        """[S, T], the permutation's matrix."""
        return torch.eye(self.sources, device=self.order.device)[:, self.order]

    def offset(self) -> Float[Tensor, " target"]:
        """Zeros [T], what is to be added to ``scores @ fold()``."""
        return torch.zeros(self.sources, device=self.order.device)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"sources={self.sources}, seed={self.seed}, contrast={self.contrast}"
