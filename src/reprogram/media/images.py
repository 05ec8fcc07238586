"""Pictures at the library's borders: what users hand to `predict`, and what reports show.

    anything users have -> `as_samples` -> tensors of the task's shape -> ... -> `to_picture`, `to_data_uri`

Files are decoded one batch at a time, when they are asked for.
"""

import base64
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, final, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.core.task import Sample
from reprogram.media.arrays import split_layout, to_picture_tensor, to_values
from reprogram.media.decode import Readable, flatten, image_size, printable, read_bytes, read_image
from reprogram.media.files import find
from reprogram.media.frame import check_sample, fit_tensor, to_image, to_sample
from reprogram.media.pool import in_threads

_ACCEPTED = "must be a path, a PIL image, an array, a tensor, encoded bytes, or a list of these"

Picture: TypeAlias = Path | bytes | Image.Image | Tensor


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    value: Picture


# Without its parameter at run time: a runtime checker would look into a random picture, and so read a random file.
if TYPE_CHECKING:
    _Tensors = Sequence[Tensor]
else:
    _Tensors = Sequence


@final
class Samples(_Tensors):
    """Pictures as tensors [channel, height, width], all uint8 or all float in [0, 1]; files are read when asked for.

    Attributes:
        names: one a picture: its path, or "inputs[3]".

    Raises (when a picture is asked for):
        DataError: it cannot be read, or has another shape than the first while no sample says which.
    """

    def __init__(self, entries: Sequence[_Entry], sample: Sample | None) -> None:
        self._entries = entries
        self._sample = sample
        self._floats = any(isinstance(e.value, Tensor) and e.value.dtype != torch.uint8 for e in entries)
        self._first: torch.Size | None = None

    @property
    def names(self) -> list[str]:
        """One name a picture, in order."""
        return [e.name for e in self._entries]

    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of each picture before it is brought to a sample's shape; of files, from their headers."""
        return [(shape[-1], shape[-2]) for shape in map(_shape_of, self._entries)]

    def at(self, sample: Sample) -> "Samples":
        """The same pictures for another sample."""
        check_sample(sample)
        return Samples(self._entries, sample)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return list(in_threads(self._read, self._entries[index]))
        return self._read(self._entries[index])

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._read, self._entries)

    def _read(self, entry: _Entry) -> Tensor:
        tensor = _as_tensor(entry, self._sample)
        if self._floats and tensor.dtype == torch.uint8:
            tensor = tensor.float() / 255
        if self._sample is None:
            self._first = self._first or _shape_of(self._entries[0])
            if tensor.shape != self._first:
                remedy = "Scale them to one size, or use a program that was built for a task."
                requirement = f"must have the shape {tuple(self._first)} of `{self._entries[0].name}`"
                raise DataError(say(entry.name, requirement, tuple(tensor.shape), remedy))
        return tensor


def as_samples(inputs: object, sample: Sample | None = None) -> Samples:
    """Whatever pictures users have, as tensors of a task's shape.

    Args:
        inputs: a path to a picture, or to a folder (its pictures, sorted, sub-folders too); a PIL image; encoded
            bytes or an open file; an array or tensor [H, W], [C, H, W], [H, W, C], [N, H, W], [N, C, H, W] or
            [N, H, W, C] of uint8 or floats in [0, 1]; or a list of these. See `media.arrays.split_layout` for three
            axes; inside a list they are one picture.
        sample: the shape and how it is reached; None keeps each picture's own size.

    Raises:
        DataError: an input is none of these, an array is out of range, or a folder holds no pictures. Files are
            looked into only when they are asked for.
        ConfigError: the sample is not a picture's.
    """
    if sample is not None:
        check_sample(sample)
    if isinstance(inputs, (list, tuple)):
        entries = [
            entry for i, one in enumerate(inputs) for entry in _entries(one, f"inputs[{i}]", sample, single=True)
        ]
        return Samples(entries, sample)
    return Samples(_entries(inputs, "inputs", sample), sample)


def to_picture(tensor: Tensor) -> Image.Image:
    """A tensor [C, H, W] or [H, W] as a PIL image, L for one channel and RGB for three, for people to look at.

    Floats are fractions of white, integers 0..255; what is outside is clipped, and not-a-number is black.

    Raises:
        DataError: the shape is no picture's.
    """
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise DataError(say("tensor", "must be [1 or 3, height, width] or [height, width]", tuple(tensor.shape)))
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = (tensor.float().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * 255).round()
    return to_image(tensor.clamp(0, 255).to(torch.uint8))


def to_data_uri(picture: Tensor | Image.Image, size: int | None = None) -> str:
    """A PNG as text that a web page can hold in `src=`.

    Args:
        picture: as `to_picture` takes, or a PIL image.
        size: length of the longer side in pixels; enlarged pictures keep their hard edges. None leaves it as it is.
    """
    image = picture if isinstance(picture, Image.Image) else to_picture(picture)
    image = image if image.mode in ("L", "RGB", "RGBA") else flatten(image)
    if size is not None and size != max(image.size):
        scale = size / max(image.size)
        method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), method)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _entries(value: object, name: str, sample: Sample | None, *, single: bool = False) -> list[_Entry]:
    if isinstance(value, (str, os.PathLike)):
        return _paths(Path(value))
    if isinstance(value, (np.ndarray, Tensor)):
        if single and value.ndim < 4:
            return [_Entry(name, to_picture_tensor(value, name))]
        pictures = split_layout(to_values(value, name), name, channels=sample.shape[0] if sample else None)
        return [_Entry(f"{name}[{i}]", picture) for i, picture in enumerate(pictures)]
    if isinstance(value, Image.Image):
        return [_Entry(name, value)]
    if isinstance(value, (bytes, bytearray)):
        return [_Entry(name, bytes(value))]
    if isinstance(value, Readable):
        return [_Entry(name, read_image(value, name=name))]
    raise DataError(say(name, _ACCEPTED, type(value).__name__))


def _paths(path: Path) -> list[_Entry]:
    if not path.is_dir():
        return [_Entry(printable(path), path)]
    pictures = [path / relative for relative in find(path, allow_outside=True).pictures]
    if not pictures:
        raise DataError(say(printable(path), "must hold PNG, JPEG or WEBP pictures", "a folder without any"))
    return [_Entry(printable(p), p) for p in pictures]


def _as_tensor(entry: _Entry, sample: Sample | None) -> Tensor:
    value = entry.value
    if isinstance(value, Tensor):
        return value if sample is None else fit_tensor(value, sample)
    image = flatten(value, entry.name) if isinstance(value, Image.Image) else read_image(value, name=entry.name)
    return to_sample(image, sample or Sample(shape=(3, image.height, image.width), fit="exact"))


def _shape_of(entry: _Entry) -> torch.Size:
    value = entry.value
    if isinstance(value, Tensor):
        return value.shape
    if isinstance(value, Image.Image):
        return torch.Size((3, value.height, value.width))
    width, height = image_size(value if isinstance(value, bytes) else read_bytes(value), name=entry.name)
    return torch.Size((3, height, width))


__all__ = ["Picture", "Samples", "as_samples", "read_image", "to_data_uri", "to_picture", "to_sample"]


def as_unit(x: Tensor) -> Tensor:
    """Pictures of uint8 or floats as floats in [0, 1].

    >>> as_unit(torch.tensor([255], dtype=torch.uint8)), as_unit(torch.tensor([0.5]))
    (tensor([1.]), tensor([0.5000]))
    """
    return x.float() / 255 if x.dtype is torch.uint8 else x.float()
