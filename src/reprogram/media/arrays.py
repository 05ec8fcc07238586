"""Arrays and tensors as pictures: layout, range and dtype, checked once at the border.

numpy or torch, [H, W], [C, H, W], [H, W, C], [N, H, W], [N, C, H, W] or [N, H, W, C]
-> [N, C, H, W], uint8 as it came or float32 in [0, 1], C being 1 or 3, on the CPU
"""

import numpy as np
import torch
from torch import Tensor

from reprogram.core.errors import DataError, say

_COLOURS = (1, 3)
_SHAPES = "must be pictures [N, C, H, W], [N, H, W, C] or [N, H, W] with 1 or 3 channels"


def to_pictures(values: np.ndarray | Tensor, name: str = "x", *, channels: int | None = None) -> Tensor:
    """An array of pictures as a tensor [N, channel, height, width]; see `split_layout` for arrays of three axes.

    Args:
        values: uint8, other integers in 0..255, or floats in [0, 1].
        name: what messages call it.
        channels: how many are expected, to settle an ambiguous layout.

    Raises:
        DataError: the layout, range or dtype is another.
    """
    return split_layout(to_values(values, name), name, channels=channels)


def to_picture_tensor(values: np.ndarray | Tensor, name: str = "picture") -> Tensor:
    """One picture [H, W], [C, H, W] or [H, W, C] as a tensor [channel, height, width].

    Raises:
        DataError: the layout, range or dtype is another.
    """
    tensor = to_values(values, name)
    if tensor.ndim == 2:
        return tensor[None]
    if tensor.ndim == 3 and tensor.shape[0] in _COLOURS:
        return tensor
    if tensor.ndim == 3 and tensor.shape[2] in _COLOURS:
        return tensor.permute(2, 0, 1)
    shape = tuple(tensor.shape)
    raise DataError(say(name, "must be a picture [C, H, W], [H, W, C] or [H, W] with 1 or 3 channels", shape))


def split_layout(values: Tensor, name: str, *, channels: int | None = None) -> Tensor:
    """Pictures [N, C, H, W] from any layout, as a view.

    Three axes are read as one picture if the first or the last has 1 or 3 entries, and as N grey pictures otherwise;
    [3, 8, 8] is one picture in colour unless `channels` says 1.

    Raises:
        DataError: no layout fits.
    """
    if values.ndim == 2:
        return values[None, None]
    if values.ndim == 3:
        first, last = values.shape[0] in ((1,) if channels == 1 else _COLOURS), values.shape[2] in _COLOURS
        if first or last:
            return values[None] if first else values.permute(2, 0, 1)[None]
        return values[:, None]
    if values.ndim == 4:
        for allowed in ((channels,), _COLOURS):
            if values.shape[1] in allowed:
                return values
            if values.shape[3] in allowed:
                return values.permute(0, 3, 1, 2)
    raise DataError(say(name, _SHAPES, tuple(values.shape)))


def to_values(values: np.ndarray | Tensor, name: str) -> Tensor:
    """The numbers as uint8, or as float32 in [0, 1], on the CPU and apart from any graph.

    Raises:
        DataError: numbers out of range or not finite, no numbers, or a dtype that holds no pixels.
    """
    tensor = values.detach().cpu() if isinstance(values, Tensor) else _from_numpy(values, name)
    if not tensor.numel():
        raise DataError(say(name, "must hold at least one pixel", tuple(tensor.shape)))
    if tensor.dtype == torch.uint8:
        return tensor
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise DataError(say(name, "must hold uint8, integers in 0..255 or floats in [0, 1]", str(tensor.dtype)))
    top = 1 if tensor.is_floating_point() else 255
    tensor = tensor.float() if top == 1 else tensor.to(torch.int64)
    low, high = (v.item() for v in torch.aminmax(tensor))
    if not (low >= 0 and high <= top):
        remedy = "Floats are fractions of white: divide by 255, or use uint8." if top == 1 else "Scale them to 0..255."
        raise DataError(say(name, f"must hold numbers from 0 to {top}", f"{low} to {high}", remedy))
    return tensor if top == 1 else tensor.to(torch.uint8)


def _from_numpy(values: np.ndarray, name: str) -> Tensor:
    try:
        native = values.astype(values.dtype.newbyteorder("="))  # a copy: writable, contiguous, in native order
        return torch.from_numpy(np.ascontiguousarray(native))
    except TypeError as error:
        requirement = "must hold uint8, integers in 0..255 or floats in [0, 1]"
        raise DataError(say(name, requirement, f"dtype {values.dtype}")) from error
