"""A full linear map from a task's pixels to the source's canvas, the "FC" input transformation of Chung et al. 2025."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs.place import Place

MOST = 50_000_000


@final
class FullLinear(Edit):
    """``z = W x + b``, x the task's picture and z the canvas, both as vectors; starts as `Place` would put it.

    The weight is [canvas numbers, picture numbers], so this is for small pictures and canvases: an 8 x 8 grey picture
    on 28 x 28 has 50,960 learned numbers.

    Args:
        shape: (channel, height, width) of the task's pictures.
        canvas: P, pixels of the source's square input; it gets as many channels as the picture has.
        inner: pixels of the longer side that the picture starts at; None for its own size.

    Raises:
        ConfigError: there would be more than 50 million learned numbers.

    >>> edit = FullLinear((1, 2, 2), 4, inner=2)
    >>> x = torch.rand(3, 1, 2, 2)
    >>> torch.equal(edit(x), Place(4, 2)(x)), sum(p.numel() for p in edit.parameters())
    (True, 80)
    """

    site = "input"
    operators = frozenset({Operator.PARAMETRIC})

    def __init__(self, shape: tuple[int, ...], canvas: int, inner: int | None = None) -> None:
        super().__init__()
        read, written = torch.Size(shape).numel(), shape[0] * canvas * canvas
        if (read + 1) * written > MOST:
            remedy = "Take smaller pictures (`size`), a smaller canvas, or an additive pattern."
            numbers = f"{(read + 1) * written:,} for {list(shape)} on {canvas} pixels"
            raise ConfigError(say("learned numbers", f"must be at most {MOST:,}", numbers, remedy))
        self.shape, self.canvas = tuple(shape), canvas
        with torch.no_grad():
            start = _linear_part(Place(canvas, inner, "bilinear"), self.shape)
        self.weight = nn.Parameter(start.flatten(1).T.contiguous())
        self.bias = nn.Parameter(torch.zeros(written))

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel canvas canvas"]:
        """The pictures that the source sees."""
        if value.shape[1:] != self.shape:
            msg = say("value", f"must be images of {list(self.shape)}", list(value.shape[1:]))
            raise ConfigError(msg)
        flat = F.linear(value.flatten(1), self.weight.to(value.dtype), self.bias.to(value.dtype))
        return flat.view(-1, self.shape[0], self.canvas, self.canvas)

    def pull(
        self, value: Float[Tensor, " batch channel height width"], cotangent: Float[Tensor, " batch target *canvas"]
    ) -> tuple[Float[Tensor, " batch target written"], Float[Tensor, " batch read"]]:
        """See `core.pulling`: the gradient is the outer product of the cotangent and (x, 1)."""
        return cotangent.flatten(2), F.pad(value.flatten(1), (0, 1), value=1.0)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"shape={self.shape}, canvas={self.canvas}"


def _linear_part(place: Place, shape: tuple[int, ...]) -> Tensor:
    """What the placement does to each unit picture, [picture numbers, channel, canvas, canvas]."""
    units = torch.eye(torch.Size(shape).numel()).view(-1, *shape)
    return place(units)
