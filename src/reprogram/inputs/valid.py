"""What a server takes for a picture: pixels between 0 and 1."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from reprogram.core.program import Edit


@final
class Valid(Edit):
    """``min(max(x, 0), 1)``: a picture stays one after a pattern was added. Not a manipulation (no operator).

    >>> import torch
    >>> Valid()(torch.tensor([[[[-0.5, 0.25, 1.5]]]])).flatten().tolist()
    [0.0, 0.25, 1.0]
    """

    site = "input"
    operators = frozenset()

    def forward(
        self, value: Float[Tensor, " batch channel height width"]
    ) -> Float[Tensor, " batch channel height width"]:
        """The images with pixels in [0, 1]."""
        return value.clamp(0, 1)
