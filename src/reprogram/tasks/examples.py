"""What a split needs of the place where its examples are: pictures (`pixels`) or texts (`strings`)."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.core.texts import Texts


@runtime_checkable
class Examples(Protocol):
    """N examples of one kind, without their labels."""

    def __len__(self) -> int:
        """N."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(channel, height, width) of a picture; () for texts."""
        ...

    @property
    def kind(self) -> str:
        """What the numbers or columns are, for the digest: "torch.uint8", "torch.float32", "texts (text)"."""
        ...

    def fetch(self, indices: Tensor) -> Tensor | Texts:
        """The examples at `indices` [B]: a tensor [B, channel, height, width], or B texts."""
        ...

    def subset(self, indices: Tensor) -> "Examples":
        """The examples at `indices`, as a store of their own."""
        ...

    def keys(self) -> Iterator[bytes]:
        """The SHA-256 of each example's content, in order."""
        ...

    def lengths(self) -> Tensor | None:
        """Characters of each text [N], int64; None for pictures, which have one size."""
        ...


def check_indices(indices: Tensor, size: int) -> None:
    """Refuse anything that is not a row of row numbers.

    Raises:
        DataError: another rank or dtype, or a number out of range.
    """
    if indices.ndim != 1 or indices.dtype not in (torch.int64, torch.int32):
        got = f"{indices.dtype} {tuple(indices.shape)}"
        raise DataError(say("indices", "must be a row of int64 numbers", got))
    check_range(indices, size, "indices")


def check_range(values: Tensor, size: int, name: str) -> None:
    """Refuse whole numbers outside 0 to size - 1.

    Raises:
        DataError: one is.
    """
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, -1)
    if low < 0 or high >= size:
        raise DataError(say(name, f"must be from 0 to {size - 1}", f"{low}..{high}"))
