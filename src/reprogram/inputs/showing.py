"""Pictures as parts of prompts: what lets a batch of pictures into a source that reads pictures and text."""

import re
from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import UInt8
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.program import Edit
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Operator
from reprogram.core.texts import Texts
from reprogram.core.writing import ASSISTANT, PICTURE, SYSTEM, USER
from reprogram.media.frame import fit_tensor

MOST_SIDE = 2048
"""Pixels of the longer side of a picture that is shown, at most; larger ones are scaled down before they are marked."""

PRIVATE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]")
"""Characters that stand for places and turns in prompts, or may come to."""

Interpolation = Literal["bicubic", "bilinear", "nearest"]


@final
class Showing(Edit):
    """Put a prompt beside every picture: pictures [B, 1 or 3, h, w] become texts with a picture each.

    Args:
        prompt: with one place for a picture, see `asking`; "" leaves the text to a later edit (the column is "prompt").
        size: pixels of the longer side that the picture is brought to. Give what the source itself scales pictures to:
            then marks that are drawn afterwards reach it pixel by pixel. None keeps sizes up to 2048.
        interpolation: of the scaling.

    Raises:
        ConfigError: the prompt has another number of places than one, or the size is not from 1 to 2048.

    >>> shown = Showing(asking("What is it?"), 6)(torch.zeros(1, 3, 2, 4, dtype=torch.uint8))
    >>> shown.pictures[0][0].shape, shown.prompts[0].count(PICTURE)
    (torch.Size([3, 3, 6]), 1)
    """

    site = "input"
    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, prompt: str, size: int | None = 448, interpolation: Interpolation = "bicubic") -> None:
        super().__init__()
        if prompt and prompt.count(PICTURE) != 1:
            raise ConfigError(say("prompt", "must have one place for a picture", prompt.count(PICTURE)))
        if size is not None and not 1 <= size <= MOST_SIDE:
            raise ConfigError(say("size", f"must be from 1 to {MOST_SIDE} pixels", size))
        self.prompt, self.size = prompt, size
        self.interpolation: Interpolation = interpolation

    def forward(self, value: Tensor | Texts) -> Texts:
        """Texts with a picture each. Texts that have pictures keep their words; their pictures are scaled.

        Raises:
            DataError: a picture has no pixels, or not 1 or 3 channels; or texts come without pictures.
        """
        if isinstance(value, Tensor):
            if value.ndim != 4:
                raise DataError(say("pictures", "must be [batch, channel, height, width]", tuple(value.shape)))
            pictures = tuple((self._shown(picture),) for picture in value)
            return Texts({"prompt": (self.prompt,) * len(value)}, pictures=pictures)
        if value.pictures is None:
            raise DataError(say("texts", "must come with pictures to be shown", None))
        pictures = tuple(tuple(self._shown(picture) for picture in row) for row in value.pictures)
        return Texts(value.columns, value.targets, value.spans, pictures)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"{self.prompt!r}, size={self.size}, interpolation={self.interpolation!r}"

    def _shown(self, picture: Tensor) -> Tensor:
        return shown(picture, self.size, self.interpolation)


def shown(picture: Tensor, size: int | None, interpolation: Interpolation = "bicubic") -> UInt8[Tensor, " 3 h w"]:
    """A picture in colour whose longer side has `size` pixels.

    Of one that is more than eight times as large, rows and columns are left out first, down to more than four times, so
    that the memory taken does not grow with the picture.

    Args:
        picture: [1 or 3, height, width], uint8 or floats in [0, 1], on any device.
        size: pixels; None for its own size, 2048 at most.
        interpolation: "bicubic" (default) or "bilinear", both antialiased when scaling down, or "nearest".

    Raises:
        DataError: it has no pixels, or not 1 or 3 channels.
    """
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or not picture.numel():
        need = "must be [1 or 3, height, width] with a pixel at least"
        raise DataError(say("picture", need, tuple(picture.shape)))
    height, width = picture.shape[-2:]
    longer = max(height, width)
    side = min(longer, MOST_SIDE) if size is None else size
    step = max(1, longer // (4 * side))
    picture = picture.detach()[:, ::step, ::step].cpu()
    if picture.is_floating_point():
        picture = (picture.float().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * 255).round()
    picture = picture.to(torch.uint8).expand(3, -1, -1)
    target = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
    return fit_tensor(picture, Sample(shape=(3, *target), fit="squash", interpolation=interpolation)).contiguous()


def asking(text: str, system: str = "", *, pictures: int = 1) -> str:
    """A chat prompt about pictures: they come first, then the question.

    Args:
        text: the question.
        system: what is said before the conversation; nothing if empty.
        pictures: places for pictures.

    Raises:
        ConfigError: a text has characters that stand for places or turns.
    """
    for part in (text, system):
        if PRIVATE.search(part):
            raise ConfigError(say("prompt", "must be free of private-use characters", part))
    start = f"{SYSTEM}{system}" if system else ""
    return f"{start}{USER}{PICTURE * pictures}{text}{ASSISTANT}"


def listed(names: Sequence[str], joint: str = "or") -> str:
    """Names as they are said in a sentence.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"], "and")
    ('a', 'a or b', 'a, b and c')
    """
    return f" {joint} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
