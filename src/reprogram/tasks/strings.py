"""Where a split's texts are: in memory, each string once however many splits and subsets show it."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from reprogram.core.texts import Texts


@final
class Strings:
    """N rows of texts, with what is to be written after each if the task is one of generation."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def shape(self) -> tuple[int, ...]:
        """(): texts keep their length."""
        return ()

    @property
    def kind(self) -> str:
        """The columns, and whether there are targets."""
        targets = " -> targets" if self._texts.targets is not None else ""
        return f"texts ({', '.join(self._texts.columns)}){targets}"

    def fetch(self, indices: Tensor) -> Texts:
        """The texts at `indices` [B]."""
        return self._texts[indices.tolist()]

    def subset(self, indices: Tensor) -> "Strings":
        """The same strings, fewer of them."""
        return Strings(self.fetch(indices))

    def keys(self) -> Iterator[bytes]:
        """One hash a row, of its columns and its target."""
        return (row_key(row) for row in self._rows())

    def lengths(self) -> Tensor:
        """Characters of each row's columns and target [N], int64."""
        return self._lengths

    @cached_property
    def _lengths(self) -> Tensor:
        return torch.tensor([sum(map(len, row)) for row in self._rows()], dtype=torch.int64)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        targets = [] if self._texts.targets is None else [self._texts.targets]
        return zip(*self._texts.columns.values(), *targets, strict=True)


def row_key(cells: Sequence[str]) -> bytes:
    """SHA-256 of some texts in order; where one ends and the next begins makes a difference.

    >>> row_key(["ab", "c"]) == row_key(["a", "bc"])
    False
    """
    found = hashlib.sha256()
    for cell in cells:
        data = cell.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.digest()
