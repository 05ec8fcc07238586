"""From the bytes of a picture file to a PIL image in RGB, with strangers' files in mind.

    bytes -> container (size, orientation, one frame) -> Pillow's decoder for that one format -> upright -> RGB

The size is known before memory is taken. Pillow is used below its `Image.open`: no other decoder can be reached, its
global settings are neither read nor changed, and whatever it raises leaves here as one `DataError` naming the file.
Colour profiles are ignored.
"""

import io
import os
import stat
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from reprogram.core.errors import DataError, say
from reprogram.media.containers import Container, open_container

MAX_PIXELS = 20_000_000
"""A picture with more is refused from its header."""

MAX_BYTES = 256 * 2**20
"""A file with more is refused; 20 megapixels of raw 16-bit colour with alpha are 160 MB."""

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp"})
"""Names that folders are searched for, in any case. What a file is, is told from its content."""

_DECODERS = {"PNG": PngImageFile, "JPEG": JpegImageFile, "WEBP": WebPImageFile}
_CONVERT = "Convert it with any picture program, or leave it out."
_AGAIN = "Fetch or export the file again, or leave it out."
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@runtime_checkable
class Readable(Protocol):
    """A file opened for reading."""

    def read(self, size: int, /) -> object:
        """At most `size` bytes."""
        ...


def read_image(file: object, *, name: str | None = None) -> Image.Image:
    """Read one picture: PNG, JPEG or WEBP, a single frame, upright, as RGB; transparency becomes white.

    Args:
        file: a path, the file's bytes, or a file open for reading in binary mode.
        name: what messages call it; the path, or "picture", if not given.

    Raises:
        DataError: it is missing, of another format, animated, damaged, cut short, or larger than `MAX_PIXELS`.
    """
    name = name or (printable(file) if isinstance(file, (str, os.PathLike)) else "picture")
    image, turn = _open(_bytes(file, name), name)
    try:
        image.load()
        upright = image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image
    except Exception as error:
        raise _broken(name, error) from error
    return flatten(upright, name)


def image_size(data: bytes, *, name: str = "picture") -> tuple[int, int]:
    """(width, height) of the upright picture, from its header; nothing is decoded.

    Raises:
        DataError: as `read_image`, as far as the header tells.
    """
    container = _look(data, name)
    width, height = container.size or (0, 0)
    if not width or not height:
        raise DataError(say(name, "must say how large it is", "a header without a size", _AGAIN))
    return (height, width) if container.orientation >= 5 else (width, height)


def read_indices(file: object, *, name: str | None = None) -> Image.Image:
    """Read a picture whose numbers are no colours, a mask: one channel of 8 bits, or a palette's indices, as mode L.

    Args:
        file: as for `read_image`, PNG only.
        name: likewise.

    Raises:
        DataError: as for `read_image`; or it is no PNG, in colour, or of 16 bits.
    """
    name = name or (printable(file) if isinstance(file, (str, os.PathLike)) else "mask")
    image, _ = _open(_bytes(file, name), name)
    if not isinstance(image, PngImageFile) or image.mode not in ("L", "P", "1"):
        got = f"{image.format}, mode {image.mode}"
        raise DataError(say(name, "must be a PNG with one number of 8 bits a pixel", got))
    try:
        image.load()
        return Image.fromarray(np.asarray(image).astype(np.uint8))
    except Exception as error:
        raise _broken(name, error) from error


def read_bytes(path: str | os.PathLike[str], *, name: str | None = None) -> bytes:
    """A whole file of at most `MAX_BYTES`.

    Raises:
        DataError: it is missing, not a regular file, unreadable, empty or too large.
    """
    name = name or printable(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(say(name, "must be a file", "something else", "Give a path to a picture file."))
        with open(path, "rb") as file:
            return _limited(file.read(MAX_BYTES + 1), name)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(say(name, "must be a readable file", reason, "Check the path and its permissions.")) from error


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that can be written anywhere: what is not Unicode becomes a question mark."""
    return os.fspath(path).encode("utf-8", "replace").decode()


def flatten(image: Image.Image, name: str = "picture") -> Image.Image:
    """RGB with transparency over white; 16-bit grey loses its lower 8 bits, CMYK is converted without a profile.

    Raises:
        DataError: the mode (32-bit integers, floats, LAB, ...) says nothing about how bright white is.
    """
    try:
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise DataError(say(name, "must be 8-bit, 16-bit grey or in colour", f"a PIL image of mode {image.mode}",
                                "Scale it to 0..255 and convert it to mode L or RGB."))  # fmt: skip
        if image.has_transparency_data:
            clear = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
        return image.convert("RGB")
    except DataError:
        raise
    except Exception as error:
        raise _broken(name, error) from error


def _bytes(file: object, name: str) -> bytes:
    if isinstance(file, (str, os.PathLike)):
        return read_bytes(file, name=name)
    if isinstance(file, (bytes, bytearray, memoryview)):
        return _limited(bytes(file), name)
    if isinstance(file, Readable):
        data = file.read(MAX_BYTES + 1)
        if isinstance(data, bytes):
            return _limited(data, name)
    raise DataError(say(name, "must be a path, bytes or a file open in binary mode", type(file).__name__))


def _limited(data: bytes, name: str) -> bytes:
    if not data:
        raise DataError(say(name, "must be a PNG, JPEG or WEBP picture", "an empty file", _AGAIN))
    if len(data) > MAX_BYTES:
        raise DataError(say(name, f"must be at most {MAX_BYTES} bytes", "a larger file", _CONVERT))
    return data


def _open(data: bytes, name: str) -> tuple[ImageFile, int]:
    """The decoder for the data, which has not decoded anything yet, and the EXIF orientation."""
    container = _look(data, name)
    image = _decoder(container, name)
    _check_size(image.size, name)
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(say(name, "must be a single picture", "an animation", "Export one frame of it."))
    return image, container.orientation


def _look(data: bytes, name: str) -> Container:
    container = open_container(data)
    if container is None:
        raise DataError(say(name, "must be a PNG, JPEG or WEBP picture", f"a file that begins {data[:8]!r}", _CONVERT))
    if container.moves:
        raise DataError(say(name, "must be a single picture", "an animation", "Export one frame of it."))
    _check_size(container.size, name)
    return container


def _decoder(container: Container, name: str) -> ImageFile:
    try:
        return _DECODERS[container.kind](io.BytesIO(container.data))
    except Exception as error:
        raise _broken(name, error) from error


def _check_size(size: tuple[int, int] | None, name: str) -> None:
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        requirement = f"must have at most {MAX_PIXELS // 1_000_000} million pixels"
        raise DataError(say(name, requirement, f"{size[0]} x {size[1]}", "Scale it down before loading it."))


def _broken(name: str, error: Exception) -> DataError:
    return DataError(say(name, "must be a whole, undamaged picture", f"{type(error).__name__}: {error}", _AGAIN))
