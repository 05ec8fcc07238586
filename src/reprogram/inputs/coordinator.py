"""A pattern that a small network makes for each image from a frozen code (BlackVIP; Oh et al. 2023, 2303.14773)."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs.codes import Components, Encode, Remembered

FIRST = 32
"""Channels that the code and the trigger are brought to: the smallest of 32, 64, 128, ... that holds the code."""

SIDE = 8
"""The code becomes a map of at most 8 x 8 cells, which is doubled until it covers the canvas: 7 x 7 for 224 pixels."""

WIDTHS = (64, 32, 32, 16)


@final
class PromptDecoder(nn.Module):
    """Codes [B, D] to patterns [B, channel, P, P]: a learned trigger is appended, then transposed convolutions.

    Every doubling is a grouped 2 x 2 transposed convolution of stride 2, a 1 x 1 convolution, batch norm and GELU; the
    last is a full 2 x 2 one to the image's channels. Widths 64, 32, 32, 16 for five doublings, the last of them for
    fewer, more of 64 for more.

    Args:
        code: D.
        canvas: P.
        channels: of the image.

    The published sizes (ViT-MAE, 768 and a trigger of 800; ResNet-50, 2048 and 1088):

    >>> [(len(d.trigger), sum(p.numel() for p in d.parameters())) for d in (PromptDecoder(768), PromptDecoder(2048))]
    [(800, 9920), (1088, 10464)]
    """

    def __init__(self, code: int, canvas: int = 224, channels: int = 3) -> None:
        super().__init__()
        if code < 1 or canvas < 2:
            raise ConfigError(say("code, canvas", "must be at least 1 number and 2 pixels", (code, canvas)))
        doublings = max(1, next(n for n in range(32) if -(-canvas // 2**n) <= SIDE))
        self.canvas, self.side = canvas, -(-canvas // 2**doublings)
        first = FIRST
        while first * self.side**2 <= code:
            first *= 2
        self.first = first
        self.trigger = nn.Parameter(torch.empty(first * self.side**2 - code).uniform_(0.0, 0.1))
        more = doublings - 1 - len(WIDTHS)
        widths = (*(WIDTHS[0],) * more, *WIDTHS[max(0, -more) :])
        layers: list[nn.Module] = []
        before = first
        for index, width in enumerate(widths):
            middle, groups = (WIDTHS[0], FIRST) if index == 0 else (before, before)
            layers += [nn.ConvTranspose2d(before, middle, 2, 2, groups=groups), nn.Conv2d(middle, width, 1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.GELU()]
            before = width
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(before, channels, 2, 2, bias=False))

    def forward(self, code: Float[Tensor, " batch code"]) -> Float[Tensor, " batch channel canvas canvas"]:
        """Patterns."""
        whole = torch.cat([code, self.trigger.to(code.dtype).expand(len(code), -1)], dim=1)
        made = self.body(whole.view(len(code), self.first, self.side, self.side))
        over = made.shape[-1] - self.canvas
        start = over // 2
        return made[..., start : start + self.canvas, start : start + self.canvas] if over else made


@final
class Coordinator(Edit):
    """``clip(x + eps * s * g([code(x); t]), 0, 1)``: g and the trigger t learned, the code frozen.

    BlackVIP adds ``eps * g`` to images after normalisation and clips to the range that pixels have there. With s the
    channels' deviations that is the same as here, on pixels, which is what a black box takes.

    Args:
        encode: makes codes; None for `Components`, principal components of the images.
        code: D, how long codes are.
        canvas: pixels of the square image.
        deviation: s, one for each channel or one for all.
        epsilon: eps; 0.2 to 1 in the paper, by data set.
        channels: of the image.
        remember: bytes of codes to keep; see `codes.Remembered`.

    Raises:
        ConfigError: a setting is out of range.
    """

    site = "input"
    operators = frozenset({Operator.ADDITIVE, Operator.PARAMETRIC})
    deviation: Tensor

    def __init__(  # noqa: PLR0913 - each is a published choice
        self, encode: Encode | None, code: int, canvas: int, *, deviation: Sequence[float] = (1.0,),
        epsilon: float = 1.0, channels: int = 3, remember: int = 64 << 20,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 < epsilon < float("inf"):
            raise ConfigError(say("epsilon", "must be a finite number above 0", epsilon))
        if len(deviation) not in (1, channels):
            raise ConfigError(say("deviation", f"must be 1 number or {channels}", len(deviation)))
        self.decoder = PromptDecoder(code, canvas, channels)
        self.epsilon, self.code = epsilon, code
        self._codes = Components(code, channels) if encode is None else Remembered(encode, remember)
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)

    def prompt(self, value: Float[Tensor, " batch channel height width"]) -> Tensor:
        """The pattern of each image, in units of the channels' deviations, before `epsilon`."""
        return self.decoder(self._codes(value))

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel height width"]:
        """The images with their patterns added, pixels in [0, 1]."""
        return (value + self.epsilon * self.deviation * self.prompt(value)).clamp(0, 1)

    def effective(self) -> int:
        """All but the bias of a grouped convolution that a batch norm follows: it takes it out again."""
        lost = [m.bias for m in self.decoder.body if isinstance(m, nn.ConvTranspose2d) and m.bias is not None]
        return sum(p.numel() for p in self.parameters() if p.requires_grad) - sum(b.numel() for b in lost)
