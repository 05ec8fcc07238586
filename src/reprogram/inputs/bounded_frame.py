"""A learned frame over the edge of the picture that never leaves the pixels' range (Reprogrammer; Geng, Chen 2024)."""

from typing import final

from jaxtyping import Bool, Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs.additive import Additive


@final
class BoundedFrame(Edit):
    """``clamp(x + dropout(tanh(W)) * mask, 0, 1)``, before normalisation; W starts as N(0, 1).

    Args:
        mask: [height, width], where the frame is.
        channels: of the pictures.
        dropout: share of the pattern that is left out while training (0 in the released code).

    Raises:
        ConfigError: the mask is empty, or `dropout` is no share.

    The learned numbers are `frame.values` [channels, pixels under the mask].
    """

    site = "input"
    operators = frozenset({Operator.ADDITIVE})

    def __init__(self, mask: Bool[Tensor, " height width"], *, channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigError(say("dropout", "must be from 0 to below 1", dropout))
        self.frame = Additive(mask, channels=channels, squash="tanh", init="normal")
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel height width"]:
        """The pictures with the frame over them, in [0, 1]."""
        if value.shape[1:] != self.frame.shape:
            raise ConfigError(say("value", f"must be images of {list(self.frame.shape)}", list(value.shape[1:])))
        return (value + self.dropout(self.frame.pattern()).to(value.dtype)).clamp(0, 1)
