"""What every output of this room does first: take the source's scores, check their width, make them precise."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.source import SourceOutput


def precise(values: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """float32 for anything smaller; float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


def no_autocast(values: Tensor) -> AbstractContextManager[Any]:
    """Autocast off where `values` are: products with a label map are not for half precision."""
    return torch.autocast(values.device.type, enabled=False)


def source_scores(output: SourceOutput, sources: int) -> Float[Tensor, " batch source"]:
    """The source's scores, at least float32, checked to be S wide."""
    return _wide(output.logits, sources, "class scores")


def source_features(output: SourceOutput, width: int) -> Float[Tensor, " batch feature"]:
    """The source's features, at least float32, checked to be D wide."""
    if output.features is None:
        raise CapabilityError(say("output", "must come with the source's features", None,
                                  "Use features=False, which reads class scores."))  # fmt: skip
    return _wide(output.features, width, "features")


def _wide(values: Tensor, width: int, what: str) -> Tensor:
    if values.shape[-1] != width:
        need = f"must be {values.shape[-1]}, the number of {what} that this source gives"
        raise ConfigError(say("sources", need, width))
    return precise(values)
