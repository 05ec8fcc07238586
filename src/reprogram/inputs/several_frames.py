"""Several learned frames around the same pictures, one batch of pictures for each (DVP; Cai et al. 2025)."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs.additive import Additive, Init, Squash


@final
class SeveralFrames(Edit):
    """``x -> [x + frame_1; ...; x + frame_v]``: v times as many pictures, all of them with the first frame first.

    The source runs on all of them in one batch, v times the work of a single frame. What it says has v * B rows, which
    the output puts together again (`outputs.ReweightedDescriptions`).

    Args:
        count: v.
        mask: [height, width], where a frame may be.
        channels: of the pictures.
        squash: of the learned numbers, see `Additive`.
        init: "zeros", with which all frames start alike, or "normal".
        site: "input" or "normalised".

    Raises:
        ConfigError: `count` is below 1, or a frame cannot be made.

    >>> frames = SeveralFrames(3, torch.ones(2, 2, dtype=torch.bool), squash="none")
    >>> frames(torch.zeros(4, 3, 2, 2)).shape
    torch.Size([12, 3, 2, 2])
    """

    operators = frozenset({Operator.ADDITIVE})

    def __init__(
        self, count: int, mask: Bool[Tensor, " height width"], *, channels: int = 3, squash: Squash = "sigmoid",
        init: Init = "zeros", site: str = "input",
    ) -> None:  # fmt: skip
        super().__init__()
        if count < 1:
            raise ConfigError(say("count", "must be 1 frame or more", count))
        self.site = site
        self.frames = nn.ModuleList(
            Additive(mask, channels=channels, squash=squash, init=init, site=site) for _ in range(count)
        )

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " rows channel height width"]:
        """The pictures with each of the frames, frame by frame."""
        return torch.cat([frame(value) for frame in self.frames])
