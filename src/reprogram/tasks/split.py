"""A split: labelled pictures that training, validation or the test reads by row number."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.tasks.pixels import InMemory, Pixels, check_indices, check_range


@final
class Split:
    """N labelled pictures.

    Args:
        name: "train", "val" or "test".
        pixels: where the pictures are; a tensor [N, channel, height, width] of uint8 or of floats in [0, 1] is one.
        labels: class numbers, [N], int64.
        names: one a picture, e.g. its path; "train/17" if not given.
        classes: T, how many classes the task has; one more than the largest label if not given.

    Raises:
        DataError: the numbers of pictures, labels and names differ, or a label is no class.
    """

    def __init__(
        self,
        name: str,
        pixels: Pixels | Tensor,
        labels: Tensor,
        names: Sequence[str] | None = None,
        classes: int | None = None,
    ) -> None:
        self.name = name
        self._pixels = InMemory(pixels) if isinstance(pixels, Tensor) else pixels
        self.labels = labels
        self.names: Sequence[str] = [f"{name}/{i}" for i in range(len(labels))] if names is None else names
        self._classes = classes if classes is not None else int(labels.max()) + 1 if len(labels) else 0
        self._check()

    def _check(self) -> None:
        lengths = len(self._pixels), len(self.labels), len(self.names)
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1 or len(set(lengths)) > 1:
            got = f"{lengths}, labels {self.labels.dtype}"
            raise DataError(say(self.name, "must have as many pictures as int64 labels and names", got))
        check_range(self.labels, self._classes, f"{self.name}.labels")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channel, height, width) of a picture."""
        return self._pixels.shape

    def fetch(self, indices: Tensor) -> Tensor:
        """The pictures at `indices` [B]: a tensor [B, channel, height, width] of uint8, or float32 in [0, 1].

        Raises:
            DataError: a file that is read only now has changed for the worse.
        """
        return self._pixels.fetch(indices)

    def subset(self, indices: Tensor) -> "Split":
        """The examples at `indices`, in that order.

        Raises:
            DataError: these are not row numbers of this split.
        """
        check_indices(indices, len(self))
        rows: list[int] = indices.tolist()
        names = [self.names[row] for row in rows]
        return Split(self.name, self._pixels.subset(indices), self.labels[indices], names, self._classes)

    def counts(self) -> Tensor:
        """Examples of each class, [T]."""
        return torch.bincount(self.labels, minlength=self._classes)

    def digest(self) -> str:
        """SHA-256 over pixels and labels, in order: equal wherever the same pictures came from and are kept."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        found = hashlib.sha256(f"{self._pixels.dtype} {self.shape} {len(self)}\n".encode())
        for one in self._pixels.keys():  # noqa: SIM118 (not a mapping)
            found.update(one)
        found.update(self.labels.numpy().astype("<i8", copy=False).tobytes())
        return found.hexdigest()

    def __repr__(self) -> str:
        size = " x ".join(str(s) for s in self.shape[1:])
        return f"Split({self.name}: {len(self)} pictures, {size}, {int(np.count_nonzero(self.counts()))} classes)"
