"""Prompts made of the picture's high frequencies and of what a stage reads (explicit visual prompting).

Liu, Shen, Pun, Cun, 2023, arXiv 2303.10883. `HighFrequency` looks at the picture before the network does and keeps, for
the pass under way in its thread, what `ExplicitPrompt` at every block adds to.
"""

import threading
from collections.abc import Sequence
from math import sqrt
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs.blocks import Block, as_map, as_tokens

_FFT: Any = torch.fft  # untyped

START = 0.02
"""Deviation of the truncated normal that linear layers start from."""

LARGEST_OVERLAP = 4
"""Up to this stride a patch embedding overlaps its neighbours (7x7 at 4, 3x3 at 2); above, it does not."""


def high_frequencies(
    x: Float[Tensor, " batch channel height width"], share: float = 0.25
) -> Float[Tensor, " batch channel height width"]:
    """The picture without its low frequencies, in absolute values.

    In the shifted spectrum the central square of half-side ``floor(sqrt(height * width * share) / 2)`` is set to 0.

    Args:
        x: pictures.
        share: rho, of the spectrum that goes.

    >>> bool((high_frequencies(torch.ones(1, 1, 8, 8)) < 1e-6).all())
    True
    """
    height, width = x.shape[-2:]
    half = int(sqrt(height * width * share) // 2)
    spectrum = _FFT.fftshift(_FFT.fft2(x.float(), norm="forward"), dim=(-2, -1))
    middle, centre = height // 2, width // 2
    keep = torch.ones(height, width, device=x.device)
    keep[max(0, middle - half) : middle + half, max(0, centre - half) : centre + half] = 0
    return cast("Tensor", _FFT.ifft2(_FFT.ifftshift(spectrum * keep, dim=(-2, -1)), norm="forward").real.abs())


@final
class Stage(nn.Module):
    """What the blocks of a stage, which all read maps of one shape, share.

    Args:
        width: d.
        inner: r, numbers of the adaptors to a place.
        embeddings: whether F_pe is used.
    """

    def __init__(self, width: int, inner: int, embeddings: bool = True) -> None:
        super().__init__()
        self.inner = inner
        self.embedding = _linear(width, inner) if embeddings else None
        self.up = _linear(inner, width)

    def embed(self, value: Float[Tensor, " batch d height width"]) -> Float[Tensor, " batch inner height width"]:
        """F_pe, of what the stage's first block reads."""
        assert self.embedding is not None
        return self.embedding(value.movedim(1, -1)).movedim(-1, 1)


@final
class HighFrequency(Edit):
    """Looks at the normalised picture, which stays as it is, and embeds its high frequencies for every stage.

    The embeddings are convolutions in a chain, one a stage, each with a layer norm: 7x7 with stride 4, 3x3 with stride
    2 and so on, by what the stages' grids ask for.

    Args:
        stages: the first block of every stage, in order.
        canvas: pixels of the picture.
        factor: of every stage's width the adaptors have 1 / factor.
        share: rho, the part of the spectrum that goes.
        frequencies: whether high frequencies are used.
        embeddings: whether what a stage reads is used.

    Raises:
        ConfigError: neither is used, or a number is out of range.
    """

    site = "normalised"
    operators = frozenset()

    def __init__(
        self, stages: Sequence[Block], canvas: int, *, factor: int = 4, share: float = 0.25,
        frequencies: bool = True, embeddings: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if factor < 1 or not 0 <= share < 1:
            raise ConfigError(say("factor, share", "must be 1 or more, and in [0, 1)", (factor, share)))
        if not (frequencies or embeddings):
            raise ConfigError(say("frequencies, embeddings", "must not both be left out", (frequencies, embeddings)))
        self.share, self.frequencies, self.embeddings = share, frequencies, embeddings
        self.grids = [stage.grid for stage in stages]
        inner = [max(1, stage.width // factor) for stage in stages]
        self.stages = nn.ModuleList(Stage(s.width, r, embeddings) for s, r in zip(stages, inner, strict=True))
        before, sides = [3, *inner], [canvas, *(g[0] for g in self.grids)]
        self.patches = nn.ModuleList(
            _patches(before[i], inner[i], max(1, round(sides[i] / sides[i + 1]))) for i in range(len(inner))
        ) if frequencies else nn.ModuleList()  # fmt: skip
        self.norms = nn.ModuleList(nn.LayerNorm(r) for r in inner) if frequencies else nn.ModuleList()
        self._kept: dict[int, list[Tensor | None]] = {}

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel height width"]:
        """The picture as it is."""
        kept: list[Tensor | None] = []
        seen = high_frequencies(value, self.share) if self.frequencies else None
        for i, grid in enumerate(self.grids):
            if seen is None:
                kept.append(None)
                continue
            seen = self.patches[i](seen)
            if tuple(seen.shape[-2:]) != grid:
                seen = F.interpolate(seen, grid, mode="bilinear", align_corners=False)
            seen = self.norms[i](seen.movedim(1, -1)).movedim(-1, 1)
            kept.append(seen)
        self._kept[threading.get_ident()] = kept
        return value

    def stage(self, index: int) -> Stage:
        """Stage i."""
        return cast("Stage", self.stages[index])

    def prompt(
        self, value: Tensor, block: Block, stage: int, first: bool
    ) -> Float[Tensor, " batch inner height width"]:
        """What the blocks of a stage make their prompts from: F_hfc + F_pe; `first` is the block that F_pe is read at.

        Raises:
            CapabilityError: the block is run on its own, in another thread or again in a backward pass.
        """
        kept = self._kept.get(threading.get_ident())
        if kept is None or torch._C._current_graph_task_id() != -1:  # pyright: ignore
            remedy = "Load the source without activation checkpointing."
            need = f"must run {block.site} once, in the pass that began with the picture"
            raise CapabilityError(say("source", need, "a block by itself", remedy))
        if first and self.embeddings:
            own = self.stage(stage).embed(as_map(value, block))
            seen = kept[stage]
            kept[stage] = own if seen is None else seen + own
        found = kept[stage]
        assert found is not None
        return found

    def done(self) -> None:
        """Forget the pass under way in this thread."""
        self._kept.pop(threading.get_ident(), None)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"share={self.share}, frequencies={self.frequencies}, embeddings={self.embeddings}"


@final
class ExplicitPrompt(Edit):
    """``value + up_i(GELU(linear_ij(F_hfc + F_pe)))`` at block j of stage i, on maps as on tokens.

    Tokens that stand for no place, such as a class token, get nothing.

    Args:
        picture: what it is made from; a part of the program in its own right, not of this edit.
        block: j.
        stage: i.
        first: whether it is the stage's first.
        last: whether it is the network's last.
    """

    operators = frozenset({Operator.PARAMETRIC, Operator.ADDITIVE})

    def __init__(self, picture: HighFrequency, block: Block, stage: int, *, first: bool, last: bool) -> None:
        super().__init__()
        self.site, self.block, self.stage, self.first, self.last = block.site, block, stage, first, last
        self._picture = (picture,)
        inner = picture.stage(stage).inner
        self.linear = _linear(inner, inner)

    def forward(self, value: Float[Tensor, " batch *places"]) -> Float[Tensor, " batch *places"]:
        """What the block is to read."""
        picture = self._picture[0]
        seen = picture.prompt(value, self.block, self.stage, self.first)
        if self.last:
            picture.done()
        wide = picture.stage(self.stage).up(F.gelu(self.linear(seen.movedim(1, -1))))
        added = cast("Tensor", wide).movedim(-1, 1)
        if not self.block.is_map:
            added = F.pad(as_tokens(added), (0, 0, self.block.extra, 0))
        return value + added.to(value.dtype)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"site={self.site!r}, stage={self.stage}"


def _linear(inputs: int, outputs: int) -> nn.Linear:
    made = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(made.weight, std=START)
    nn.init.zeros_(made.bias)
    return made


def _patches(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    """A patch embedding of this stride."""
    if stride <= LARGEST_OVERLAP:
        made = nn.Conv2d(inputs, outputs, 2 * stride - 1, stride, stride - 1)
    else:
        made = nn.Conv2d(inputs, outputs, stride, stride)
    nn.init.normal_(made.weight, std=sqrt(2 / (made.kernel_size[0] * made.kernel_size[1] * outputs)))
    assert made.bias is not None
    nn.init.zeros_(made.bias)
    return made
