"""A learned decoder from maps inside the source to a class for every pixel (the all-MLP head of SegFormer)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import no_autocast


@dataclass(frozen=True, slots=True)
class ReadMap:
    """A map that the decoder reads.

    Attributes:
        site: of the source.
        width: d.
        grid: height and width; tokens are a map of this size, row by row.
        extra: tokens before those of the map.
        is_map: the value is [B, d, height, width], else [B, tokens, d].
    """

    site: str
    width: int
    grid: tuple[int, int]
    extra: int = 0
    is_map: bool = True


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the task's picture is on the source's canvas, and how large it was.

    Attributes:
        canvas: pixels a side.
        hole: height and width of the picture on it, in the middle.
        size: height and width of the task's pictures, and of label maps.
    """

    canvas: int
    hole: tuple[int, int]
    size: tuple[int, int]

    def cut(self, scores: Float[Tensor, " batch target h w"]) -> Float[Tensor, " batch target height width"]:
        """Scores of the canvas at any resolution, as scores of the picture's pixels."""
        if self.hole == (self.canvas, self.canvas):
            return F.interpolate(scores, self.size, mode="bilinear", align_corners=False)
        whole = F.interpolate(scores, (self.canvas, self.canvas), mode="bilinear", align_corners=False)
        (height, width) = self.hole
        top, left = (self.canvas - height + 1) // 2, (self.canvas - width + 1) // 2
        part = whole[..., top : top + height, left : left + width]
        return F.interpolate(part, self.size, mode="bilinear", align_corners=False)


def soft_iou_loss(scores: Float[Tensor, " n target"], target: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """1 minus the mean over the classes that occur of intersection over union, with probabilities for decisions.

    >>> scores = torch.tensor([[40.0, 0.0, 0.0], [0.0, 40.0, 0.0], [0.0, 40.0, 0.0]])
    >>> float(soft_iou_loss(scores, torch.tensor([0, 0, 1])))  # of class 0 one half, of class 1 one half
    0.5
    """
    share, truth = scores.softmax(1), F.one_hot(target, scores.shape[1]).to(scores.dtype)
    both = (share * truth).sum(0)
    union = share.sum(0) + truth.sum(0) - both
    occurs = truth.sum(0) > 0
    return 1 - (both[occurs] / union[occurs]).mean()


@final
class PixelDecoder(Output):
    """Every map through a linear layer to one width, scaled up to the largest, joined, mixed, and read as classes.

    ``y = W_2 ReLU(BN(W_1 [up(L_1 m_1), ..., up(L_n m_n)]))``, then scaled to the task's pixels: SegFormer's decoder
    (Xie et al. 2021, arXiv 2105.15203). Of dense tasks the loss is the cross-entropy plus `soft_iou_loss`, since the
    cross-entropy alone is content with a background that is most of every picture.

    Args:
        maps: what is read, of one stage each.
        targets: T.
        width: E, of the decoder; 768 in SegFormer-B4.
        frame: where the picture is.
        dense: scores of every pixel, [B, T, height, width]; else their means, [B, T].
        dropout: of the mixed map's channels while training.

    Raises:
        ConfigError: no maps, or a number out of range.
    """

    alignment = Alignment.LINEAR

    def __init__(
        self, maps: Sequence[ReadMap], targets: int, *, width: int = 768, frame: Frame, dense: bool = True,
        dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if not maps or width < 1 or targets < 1:
            got = (len(maps), width, targets)
            raise ConfigError(say("maps, width, targets", "must be one map at least, and 1 or more", got))
        if not 0 <= dropout < 1:
            raise ConfigError(say("dropout", "must be in [0, 1)", dropout))
        self.maps, self.frame, self.dense, self.targets = tuple(maps), frame, dense, targets
        self.project = nn.ModuleList(nn.Linear(m.width, width) for m in maps)
        self.mix = nn.Conv2d(width * len(maps), width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(dropout)
        self.last = nn.Conv2d(width, targets, 1)
        nn.init.normal_(self.mix.weight, std=sqrt(2 / width))

    @property
    def reading(self) -> Reading:
        """The maps' sites."""
        return Reading(sites=tuple(m.site for m in self.maps))

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target *pixels"]:
        """Scores of every pixel, or of the picture; in float32, also under autocast."""
        missing = [m.site for m in self.maps if m.site not in output.at]
        if missing:
            raise CapabilityError(say("output", "must come with the values at the decoder's sites", missing))
        values = [_as_map(output.at[m.site], m) for m in self.maps]
        with no_autocast(values[0]):
            scores = self._decode([v.float() for v in values])
        cut = self.frame.cut(scores)
        return cut if self.dense else cut.mean((2, 3))

    def loss(
        self, output: SourceOutput, scores: Float[Tensor, " n target"], target: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """Of pixels, or of pictures: see the class."""
        exact = F.cross_entropy(scores, target)
        return exact + soft_iou_loss(scores, target) if self.dense else exact

    def _decode(self, values: list[Tensor]) -> Tensor:
        size = max(tuple(int(n) for n in v.shape[2:]) for v in values)
        drawn: list[Tensor] = []
        for value, layer in zip(values, self.project, strict=True):
            thin = cast("Tensor", layer(value.movedim(1, -1))).movedim(-1, 1)
            same = tuple(thin.shape[2:]) == size
            drawn.append(thin if same else F.interpolate(thin, size, mode="bilinear", align_corners=False))
        mixed = torch.relu(self.norm(self.mix(torch.cat(drawn, 1))))
        return self.last(self.dropout(mixed))

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"sites={[m.site for m in self.maps]}, targets={self.targets}, dense={self.dense}"


def _as_map(value: Tensor, read: ReadMap) -> Tensor:
    return value if read.is_map else value[:, read.extra :].transpose(1, 2).reshape(len(value), -1, *read.grid)
