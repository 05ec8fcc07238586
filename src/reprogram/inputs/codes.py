"""Codes of pictures: vectors that something frozen makes of them, remembered or cheap to make."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say

Encode = Callable[[Tensor], Tensor]
"""From images [B, channel, height, width] in [0, 1] to codes [B, D]."""

BLOCK = 16
"""Images that an encoder is given at a time, always as many, so that a code does not depend on what else is asked."""

THUMBNAIL = 16
"""Pixels of the square images that principal components are taken of."""


@final
class Remembered:
    """A frozen encoder that is asked once for each picture.

    The trials of one step hand in the very same tensor, which is recognised as such. Pictures seen before, in another
    order or another epoch, are recognised by their bytes; the least recently used codes go first.

    Args:
        encode: the encoder.
        limit: bytes of codes to keep; 0 for none, and the encoder runs every time.

    >>> asked = []
    >>> encode = lambda x: (asked.append(len(x)), x.mean((2, 3)))[1]
    >>> codes, x = Remembered(encode), torch.rand(3, 3, 4, 4)
    >>> torch.equal(codes(x), codes(x.flip(0)).flip(0)), sum(asked) == BLOCK
    (True, True)
    """

    def __init__(self, encode: Encode, limit: int = 64 << 20) -> None:
        self._encode, self.limit = encode, limit
        self._rows: OrderedDict[bytes, Tensor] = OrderedDict()
        self._last: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, x: Float[Tensor, " batch channel height width"]) -> Float[Tensor, " batch code"]:
        """Codes, detached, float32."""
        if self.limit == 0:
            return self._encoded(x)
        version = 0 if x.is_inference() else x._version
        if self._last is not None and self._last[0] is x and self._last[1] == version and not x.is_inference():
            return self._last[2]
        found = self._looked_up(x)
        self._last = (x, version, found)
        return found

    def _looked_up(self, x: Tensor) -> Tensor:
        flat = x.detach().cpu().contiguous().numpy()
        keys = [hashlib.blake2b(row.data, digest_size=16).digest() for row in flat]
        new = {key: i for i, key in enumerate(keys) if key not in self._rows}
        if new:
            self._rows |= zip(new, self._encoded(x[list(new.values())]), strict=True)
        found = torch.stack([self._rows[key] for key in keys])
        for key in keys:
            self._rows.move_to_end(key)
        while len(self._rows) * found[0].numel() * 4 > self.limit:
            self._rows.popitem(last=False)
        return found

    def _encoded(self, x: Tensor) -> Tensor:
        device = x.device.type
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            x = x.detach().float().clone()
            short = -len(x) % BLOCK
            whole = torch.cat([x, x[:1].expand(short, -1, -1, -1)])
            starts = range(0, len(whole), BLOCK)
            return torch.cat([self._encode(whole[start : start + BLOCK]).float() for start in starts])[: len(x)]


@final
class Components(nn.Module):
    """Principal components of images shrunk to 16 pixels, each scaled to variance 1: codes without any network.

    The first batch seen in training mode gives mean and directions, which are saved with the program. With fewer images
    than components the others are 0.

    Args:
        count: components, D.
        channels: of the images.

    >>> made = Components(4)
    >>> x = torch.rand(50, 3, 32, 32)
    >>> [round(v, 4) for v in made.train()(x).var(0).tolist()]
    [1.0, 1.0, 1.0, 1.0]
    """

    mean: Tensor
    basis: Tensor
    made: Tensor

    def __init__(self, count: int, channels: int = 3) -> None:
        super().__init__()
        numbers = channels * THUMBNAIL * THUMBNAIL
        if not 1 <= count <= numbers:
            raise ConfigError(say("components", f"must be between 1 and {numbers}", count))
        self.count = count
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("basis", torch.zeros(numbers, count))
        self.register_buffer("made", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Float[Tensor, " batch channel height width"]) -> Float[Tensor, " batch code"]:
        """Codes, detached."""
        flat = F.adaptive_avg_pool2d(x.detach().float(), THUMBNAIL).flatten(1)
        if self.training and not bool(self.made) and len(flat) > 1:
            self._take(flat)
        return (flat - self.mean) @ self.basis

    def _take(self, flat: Tensor) -> None:
        mean = flat.mean(0)
        svd = cast("Callable[..., tuple[Tensor, Tensor, Tensor]]", torch.linalg.svd)  # pyright: ignore[reportUnknownMemberType]
        _, size, directions = svd((flat - mean).double(), full_matrices=False)
        deviation = size / (len(flat) - 1) ** 0.5
        keep = min(self.count, int((deviation > 1e-6 * deviation[0].clamp_min(1e-12)).sum()), len(flat) - 1)
        self.mean.copy_(mean)
        self.basis.zero_()
        self.basis[:, :keep] = (directions[:keep] / deviation[:keep].unsqueeze(1)).T.to(self.basis.dtype)
        self.made.fill_(1)
