"""Where a split's pictures are: in memory, or in files that are decoded when they are asked for."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor

from reprogram.core.task import Sample
from reprogram.media.decode import read_bytes, read_image
from reprogram.media.frame import to_sample
from reprogram.media.pool import in_threads


@runtime_checkable
class Reader(Protocol):
    """Something that gives a picture file's bytes, the same each time, from any thread."""

    def read(self, name: str) -> bytes:
        """The bytes; raises DataError, calling the file `name`."""
        ...


@dataclass(frozen=True, slots=True)
class FileReader:
    """A file on disk."""

    path: str

    def read(self, name: str) -> bytes:
        """The file's bytes."""
        return read_bytes(self.path, name=name)


@dataclass(frozen=True, slots=True)
class BytesReader:
    """A file that is in memory already."""

    data: bytes

    def read(self, name: str) -> bytes:
        """The bytes."""
        return self.data


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled picture that a folder, an archive or a table lists.

    Attributes:
        name: how the task calls it, e.g. its path relative to the folder.
        where: how messages call it, so that it can be found.
        label: name of its class.
        split: "train", "val", "test", or "" where the data do not say.
        reader: gives its bytes.
    """

    name: str
    where: str
    label: str
    split: str
    reader: Reader

    def bytes(self) -> bytes:
        """The encoded picture."""
        return self.reader.read(self.where)


def decode(item: Item, sample: Sample) -> Tensor:
    """The item's picture at the sample's shape, uint8.

    Raises:
        DataError: it cannot be read.
    """
    return to_sample(read_image(item.bytes(), name=item.where), sample)


def key(picture: Tensor) -> bytes:
    """SHA-256 of a picture's pixels."""
    return hashlib.sha256(picture.contiguous().numpy().data).digest()


@final
class InMemory:
    """Pictures in one tensor, of which several stores may show different rows."""

    def __init__(self, data: Tensor, rows: Tensor | None = None) -> None:
        self._data = data
        self._rows = rows

    def __len__(self) -> int:
        return len(self._data if self._rows is None else self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channel, height, width)."""
        return tuple(self._data.shape[1:])

    @property
    def kind(self) -> str:
        """The tensor's dtype: uint8, or float32 in [0, 1]."""
        return str(self._data.dtype)

    def fetch(self, indices: Tensor) -> Tensor:
        """Rows [B, channel, height, width]."""
        return self._data.index_select(0, indices if self._rows is None else self._rows.index_select(0, indices))

    def subset(self, indices: Tensor) -> "InMemory":
        """A view of the same tensor, or a copy if less than half of it is kept."""
        if 2 * len(indices) < len(self._data):
            return InMemory(self.fetch(indices))
        return InMemory(self._data, indices if self._rows is None else self._rows[indices])

    def keys(self) -> Iterator[bytes]:
        """One hash a picture."""
        rows = range(len(self._data)) if self._rows is None else self._rows.tolist()
        return (key(self._data[row]) for row in rows)

    def lengths(self) -> None:
        """Pictures have none."""


@final
class InFiles:
    """Pictures that are decoded anew at each `fetch`, by a few threads."""

    def __init__(self, items: Sequence[Item], keys: Sequence[bytes], sample: Sample, workers: int | None) -> None:
        self._items = items
        self._keys = keys
        self._sample = sample
        self._workers = workers

    def __len__(self) -> int:
        return len(self._items)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channel, height, width)."""
        return self._sample.shape

    @property
    def kind(self) -> str:
        """Files are uint8."""
        return str(torch.uint8)

    def fetch(self, indices: Tensor) -> Tensor:
        """Decoded pictures [B, channel, height, width].

        Raises:
            DataError: a file went missing or changed for the worse since the task was loaded.
        """
        out = torch.empty((len(indices), *self.shape), dtype=torch.uint8)
        wanted = [self._items[i] for i in indices.tolist()]
        for row, picture in enumerate(in_threads(partial(decode, sample=self._sample), wanted, self._workers)):
            out[row] = picture
        return out

    def subset(self, indices: Tensor) -> "InFiles":
        """The same files, fewer of them."""
        rows = indices.tolist()
        return InFiles([self._items[i] for i in rows], [self._keys[i] for i in rows], self._sample, self._workers)

    def keys(self) -> Iterator[bytes]:
        """The hashes of what was decoded when the task was loaded."""
        return iter(self._keys)

    def lengths(self) -> None:
        """Pictures have none."""
