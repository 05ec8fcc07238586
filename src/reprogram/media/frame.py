"""Bringing a picture to a sample's shape. One geometry and one resampling for files and for arrays."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.task import Sample
from reprogram.media.decode import flatten

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
_MODES = {1: "L", 3: "RGB"}
_FITS = ("crop", "squash", "exact")


def to_sample(image: Image.Image, sample: Sample) -> Tensor:
    """A picture as a uint8 tensor [channel, height, width] of the sample's shape.

    "crop" takes the largest centred part with the sample's aspect ratio and scales it in one step (with an
    antialiasing filter, whatever the interpolation, except for "nearest"); "squash" scales the whole picture;
    "exact" does as "crop", which changes nothing for pictures that have the shape already.

    Raises:
        ConfigError: the sample's shape, fit or interpolation is not one that pictures can be brought to.
        DataError: the picture's mode cannot be read as colours.
    """
    check_sample(sample)
    if image.mode not in ("RGB", "L") or image.has_transparency_data:
        image = flatten(image)
    return _pixels(_scaled(image.convert(_MODES[sample.shape[0]]), sample))


def fit_tensor(picture: Tensor, sample: Sample) -> Tensor:
    """A picture [channel, h, w], uint8 or float in [0, 1], at the sample's shape and in its own dtype.

    Raises:
        ConfigError: as `to_sample`.
    """
    check_sample(sample)
    picture = _with_channels(picture, sample.shape[0])
    if tuple(picture.shape) == sample.shape:
        return picture
    if picture.dtype == torch.uint8:
        return _pixels(_scaled(to_image(picture), sample))
    planes = [_scaled(Image.fromarray(plane.numpy()), sample) for plane in picture.contiguous()]
    return torch.stack([torch.from_numpy(np.array(plane)) for plane in planes]).clamp_(0, 1)


def to_image(picture: Tensor) -> Image.Image:
    """A uint8 tensor [1 or 3, height, width] as a PIL image, mode L or RGB."""
    array = picture.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def check_sample(sample: Sample) -> None:
    """Refuse a sample that is not a picture.

    Raises:
        ConfigError: its shape is not (1 or 3, height, width), or its fit or interpolation is unknown.
    """
    shape = sample.shape
    if len(shape) != 3 or shape[0] not in _MODES or min(shape) < 1:
        raise ConfigError(say("sample.shape", "must be (1 or 3, height, width)", shape))
    if sample.fit not in _FITS:
        raise ConfigError(say("fit", f"must be one of {list(_FITS)}", sample.fit))
    if sample.interpolation not in _RESAMPLING:
        raise ConfigError(say("interpolation", f"must be one of {sorted(_RESAMPLING)}", sample.interpolation))


def _scaled(image: Image.Image, sample: Sample) -> Image.Image:
    if image.size == (sample.width, sample.height):
        return image
    size, method = (sample.width, sample.height), _RESAMPLING[sample.interpolation]
    return image.resize(size, method, box=_part(image.width, image.height, sample))


def _part(width: int, height: int, sample: Sample) -> tuple[float, float, float, float]:
    """What of the picture is kept: (left, top, right, bottom) in its own pixels."""
    if sample.fit == "squash":
        return 0.0, 0.0, float(width), float(height)
    scale = min(width / sample.width, height / sample.height)
    left = max(0.0, (width - sample.width * scale) / 2)
    top = max(0.0, (height - sample.height * scale) / 2)
    return left, top, width - left, height - top


def _with_channels(picture: Tensor, channels: int) -> Tensor:
    if picture.shape[0] == channels:
        return picture
    if channels == 3:
        return picture.expand(3, -1, -1)
    if picture.dtype == torch.uint8:
        return _pixels(to_image(picture).convert("L"))
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R 601, as Pillow's
    return (picture * weights).sum(0, keepdim=True)


def _pixels(image: Image.Image) -> Tensor:
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1).contiguous()
