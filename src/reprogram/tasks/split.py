"""A split: labelled pictures or texts that training, validation or the test reads by row number."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.core.task import IGNORED
from reprogram.core.texts import Texts
from reprogram.tasks.examples import Examples, check_indices, check_range
from reprogram.tasks.pixels import InMemory
from reprogram.tasks.strings import Strings


@final
class Split:
    """N labelled pictures or texts.

    Args:
        name: "train", "val" or "test".
        examples: where they are; a tensor [N, channel, height, width] of uint8 or of floats in [0, 1] is a store of
            pictures, and `Texts` are one of texts.
        labels: class numbers, [N], int64; all 0 where texts are to be written instead. Of dense tasks label maps
            [N, height, width], in which -100 counts for nothing.
        names: one an example, e.g. its path; "train/17" if not given.
        classes: T, how many classes the task has; one more than the largest label if not given. 1 for generation.

    Raises:
        DataError: the numbers of examples, labels and names differ, or a label is no class.
    """

    def __init__(
        self,
        name: str,
        examples: Examples | Tensor | Texts,
        labels: Tensor,
        names: Sequence[str] | None = None,
        classes: int | None = None,
    ) -> None:
        self.name = name
        self._examples = _store(examples)
        self.labels = labels
        self.names: Sequence[str] = [f"{name}/{i}" for i in range(len(labels))] if names is None else names
        self._classes = classes if classes is not None else int(labels.max()) + 1 if len(labels) else 0
        self._check()

    def _check(self) -> None:
        lengths = len(self._examples), len(self.labels), len(self.names)
        if self.labels.dtype != torch.int64 or self.labels.ndim not in (1, 3) or len(set(lengths)) > 1:
            got = f"{lengths}, labels {self.labels.dtype}"
            raise DataError(say(self.name, "must have as many examples as int64 labels and names", got))
        if self.dense:
            self._check_maps()
        check_range(self.labels[self.labels != IGNORED], self._classes, f"{self.name}.labels")

    def _check_maps(self) -> None:
        if tuple(self.labels.shape[1:]) != tuple(self.shape[1:]):
            got = f"maps {list(self.labels.shape[1:])}, pictures {list(self.shape)}"
            raise DataError(say(self.name, "must have label maps of the pictures' size", got))
        empty = (self.labels == IGNORED).flatten(1).all(1).nonzero().flatten().tolist()
        if empty:
            raise DataError(say(self.name, "must have a labelled pixel in every map", [self.names[i] for i in empty]))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channel, height, width) of a picture, () of a text."""
        return self._examples.shape

    def fetch(self, indices: Tensor) -> Tensor | Texts:
        """The examples at `indices` [B].

        Returns:
            Pictures as a tensor [B, channel, height, width] of uint8, or float32 in [0, 1]; texts as `Texts`, with
            `targets` if the task is one of generation.

        Raises:
            DataError: a file that is read only now has changed for the worse.
        """
        return self._examples.fetch(indices)

    def pictures(self, indices: Tensor) -> Tensor:
        """`fetch`, for what only works on pictures.

        Raises:
            DataError: the examples are texts.
        """
        found = self.fetch(indices)
        if not isinstance(found, Tensor):
            raise DataError(say(self.name, "must hold pictures", "texts", "This is not there for texts."))
        return found

    def lengths(self) -> Tensor | None:
        """Characters of each text and its target [N], int64, by which rows of a length can be put together.

        None for pictures.
        """
        return self._examples.lengths()

    def subset(self, indices: Tensor) -> "Split":
        """The examples at `indices`, in that order.

        Raises:
            DataError: these are not row numbers of this split.
        """
        check_indices(indices, len(self))
        rows: list[int] = indices.tolist()
        names = [self.names[row] for row in rows]
        return Split(self.name, self._examples.subset(indices), self.labels[indices], names, self._classes)

    @property
    def dense(self) -> bool:
        """Labels are maps."""
        return self.labels.ndim == 3

    @property
    def strata(self) -> Tensor:
        """By what examples are divided evenly, [N]: their classes; of maps all the same."""
        return self.labels.new_zeros(len(self)) if self.dense else self.labels

    def counts(self) -> Tensor:
        """Examples of each class, [T]; of maps, pixels."""
        known = self.labels[self.labels != IGNORED] if self.dense else self.labels
        return torch.bincount(known, minlength=self._classes)

    def digest(self) -> str:
        """SHA-256 over examples and labels, in order: equal wherever the same ones came from and are kept."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        found = hashlib.sha256(f"{self._examples.kind} {self.shape} {len(self)}\n".encode())
        for one in self._examples.keys():  # noqa: SIM118 (not a mapping)
            found.update(one)
        found.update(self.labels.numpy().astype("<i8", copy=False).tobytes())
        return found.hexdigest()

    def __repr__(self) -> str:
        seen = f"{int(np.count_nonzero(self.counts()))} classes"
        if self.shape:
            return f"Split({self.name}: {len(self)} pictures, {' x '.join(map(str, self.shape[1:]))}, {seen})"
        return f"Split({self.name}: {len(self)} {self._examples.kind}{f', {seen}' if self._classes > 1 else ''})"


def _store(examples: Examples | Tensor | Texts) -> Examples:
    if isinstance(examples, Tensor):
        return InMemory(examples)
    return Strings(examples) if isinstance(examples, Texts) else examples
