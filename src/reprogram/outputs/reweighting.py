"""Descriptions of classes with weights that are counted, not trained: DVP's probabilistic reweighting matrix.

Cai, Ye, Feng, Qi, Liu, "Understanding Model Reprogramming for CLIP via Decoupling Visual Prompts", 2025,
arXiv:2506.01000. Published as a matrix [c m', c] with a block for each class; all outside the blocks is 0, and only the
blocks [c, m'] are kept here. As the scores are linear in the picture's vector, each class's descriptions are joined to
one vector whenever the weights change, so that a picture is compared with c vectors and not with c m' descriptions.
"""

import math
from typing import final

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, DataError, say
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._checks import not_finite
from reprogram.outputs._scores import no_autocast, precise
from reprogram.outputs._tally import Counted, over_ranks


def reweighted(
    counts: Int[Tensor, " target description"], before: Float[Tensor, " target description"]
) -> Float[Tensor, " target description"]:
    """Each class's counts over their sum; the weights before where a class was not seen.

    >>> reweighted(torch.tensor([[3, 1], [0, 0]]), torch.full((2, 2), 0.5))
    tensor([[0.7500, 0.2500],
            [0.5000, 0.5000]])
    """
    seen = counts.sum(1, keepdim=True)
    return torch.where(seen > 0, counts / seen.clamp(min=1), before)


@torch.no_grad()
def count_nearest(
    nearest: Int[Tensor, " batch k"],
    target: Integer[Tensor, " batch"],
    out: Int[Tensor, " target description"],
    known: Bool[Tensor, " batch k"] | None = None,
) -> Int[Tensor, " target description"]:
    """Add to ``out[t, j]`` how many pictures of class t have its description j among their nearest, in place.

    Args:
        nearest: places of descriptions among those of the picture's own class.
        target: classes.
        out: int64 counts.
        known: False where there is no such description.

    >>> count_nearest(torch.tensor([[0, 2], [2, 1]]), torch.tensor([1, 1]), torch.zeros(2, 3, dtype=torch.int64))
    tensor([[0, 0, 0],
            [1, 1, 2]])
    """
    cell = (target.long()[:, None] * out.shape[1] + nearest).flatten()
    out.view(-1).scatter_add_(0, cell, torch.ones_like(cell) if known is None else known.long().flatten())
    return out


@final
class ReweightedDescriptions(Counted):
    """``y_t = sum_j w_tj * score(x with the frame of description j, description j)``, over class t's descriptions.

    Each description belongs to one frame (see `inputs.SeveralFrames`) and is compared with the pictures in that frame
    only. ``w_tj`` is how often j was among the k nearest descriptions of class t for pictures of that class, over all
    such counts: rows sum to 1. Before any count, and for classes never seen, all descriptions of a class count alike.

    Args:
        vectors: [n, d], of length 1, the descriptions' vectors.
        owner: [n], the class of each; every class at least once.
        frame: [n], the frame of each.
        sizes: T and v, how many classes and frames there are.
        nearest: k (3 in DVP).
        scale: factor of the cosines, `source.scale`.
        bias: added to them, `source.bias`.

    Raises:
        ConfigError: shapes that do not fit, a class without a description, or `nearest` below 1.

    Its state is `weights` [T, m'], m' the largest number of descriptions of a class. What is fitted is saved; the
    vectors, which the source gives, are not.
    """

    alignment = Alignment.STATISTICAL
    weights: Tensor
    bank: Tensor
    real: Tensor
    frame: Tensor
    joined: Tensor

    def __init__(  # noqa: PLR0913 - facts about n descriptions
        self,
        vectors: Float[Tensor, " n d"],
        owner: Int[Tensor, " n"],
        frame: Int[Tensor, " n"],
        sizes: tuple[int, int],
        *,
        nearest: int = 3,
        scale: float = 1.0,
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.targets, self.frames = sizes
        _check(owner, self.targets, "owner")
        _check(frame, self.frames, "frame")
        counts = torch.bincount(owner, minlength=self.targets)
        if not bool(counts.all()) or nearest < 1:
            got = f"counts {[int(n) for n in counts[:8]]}, nearest {nearest}"
            raise ConfigError(say("descriptions", "must be there for every class, with nearest 1 or more", got))
        self.scale, self.bias, self.nearest = scale, bias, min(nearest, int(counts.max()))
        place = _places(owner, counts)
        shape = (self.targets, int(counts.max()))
        self.register_buffer("bank", vectors.new_zeros(*shape, vectors.shape[1]), persistent=False)
        self.register_buffer("real", torch.zeros(shape, dtype=torch.bool, device=vectors.device), persistent=False)
        self.register_buffer("frame", torch.zeros(shape, dtype=torch.int64, device=vectors.device), persistent=False)
        self.bank[owner, place], self.real[owner, place], self.frame[owner, place] = vectors.detach(), True, frame
        self.register_buffer("weights", self.real / counts.to(vectors)[:, None])
        self.register_buffer("counts", torch.zeros_like(self.frame), persistent=False)
        self.register_buffer("joined", vectors.new_zeros(self.frames, self.targets, vectors.shape[1]), persistent=False)
        self.register_load_state_dict_post_hook(_join_again)  # pyright: ignore[reportUnknownMemberType]
        self.join()

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes, from the vectors of v times B pictures, all with the first frame first."""
        seen = self._seen(output)
        with no_autocast(seen):
            return self.scale * torch.einsum("vbd,vtd->bt", seen, self.joined.to(seen.dtype)) + self.bias

    def described(self, output: SourceOutput) -> Float[Tensor, " batch target description"]:
        """The score of every description, with its own frame; 0 where a class has fewer than m'."""
        seen = self._seen(output)
        with no_autocast(seen):
            close = torch.einsum("vbd,tmd->vbtm", seen, self.bank.to(seen.dtype))
        own = close.gather(0, self.frame.expand(1, *close.shape[1:]))[0]
        return torch.where(self.real, self.scale * own + self.bias, 0.0)

    def fold(self) -> Float[Tensor, " descriptions target"]:
        """The published matrix [T m', T]: `described`, flattened, times this is what `forward` gives."""
        eye = torch.eye(self.targets, device=self.weights.device, dtype=self.weights.dtype)
        return (self.weights[..., None] * eye[:, None]).flatten(0, 1)

    @torch.no_grad()
    def join(self) -> None:
        """Make each class one vector for each frame, from its descriptions' vectors and weights."""
        for number in range(self.frames):
            own = torch.where(self.frame == number, self.weights, 0.0)
            self.joined[number] = torch.einsum("tm,tmd->td", own, self.bank)

    @torch.no_grad()
    def observe(self, output: SourceOutput, target: Integer[Tensor, " batch"]) -> None:
        """Count a batch: the k descriptions of its own class that are nearest to each picture.

        Raises:
            DataError: vectors that are NaN or infinite, or labels that are not classes.
        """
        seen = self._seen(output)
        if not bool(seen.isfinite().all()):
            raise not_finite(seen, "features")
        if target.shape != seen.shape[1:2] or bool(((target < 0) | (target >= self.targets)).any()):
            raise DataError(
                say("target", f"must be a class below {self.targets} for each picture", [int(t) for t in target[:8]])
            )
        real = self.real[target]
        with no_autocast(seen):
            close = torch.einsum("vbd,bmd->vbm", seen, self.bank[target].to(seen.dtype))
        close = close.gather(0, self.frame[target][None])[0].masked_fill_(~real, -math.inf)
        which = close.topk(self.nearest, dim=1).indices
        count_nearest(which, target, self.counts, real.gather(1, which))

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the weights anew from the counts of all ranks; classes that were not seen keep theirs."""
        self.weights.copy_(reweighted(over_ranks(self.counts), self.weights))
        self.join()

    def _seen(self, output: SourceOutput) -> Tensor:
        """The pictures' vectors [v, B, d]."""
        found = output.features
        if found is None or len(found) % self.frames or found.shape[1] != self.bank.shape[2]:
            got = None if found is None else list(found.shape)
            need = f"must give vectors of {self.frames} pictures with frames each, [*, {self.bank.shape[2]}]"
            raise CapabilityError(say("source", need, got))
        return precise(found).view(self.frames, -1, found.shape[1])

    def extra_repr(self) -> str:
        """Settings."""
        return f"targets={self.targets}, frames={self.frames}, descriptions={int(self.real.sum())}"


def _join_again(module: object, _keys: object) -> None:
    """After loading: what was made of the weights before is stale."""
    assert isinstance(module, ReweightedDescriptions)
    module.join()


def _check(numbers: Tensor, below: int, name: str) -> None:
    if not len(numbers) or int(numbers.min()) < 0 or int(numbers.max()) >= below:
        raise ConfigError(
            say(name, f"must be numbers from 0 to {below - 1}, one a description", [int(n) for n in numbers[:8]])
        )


def _places(owner: Tensor, counts: Tensor) -> Tensor:
    """Each description's place among those of its class, in order."""
    order = owner.argsort(stable=True)
    first = counts.cumsum(0) - counts
    place = torch.empty_like(owner)
    place[order] = torch.arange(len(owner), device=owner.device) - first[owner[order]]
    return place
