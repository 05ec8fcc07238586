"""Files that other libraries wrote: safetensors without our card, and JSON settings. Read with the same distrust."""

import os
from io import FileIO

import torch
from torch import Tensor

from reprogram.core.errors import ArtifactError, say
from reprogram.store._json import parse
from reprogram.store.tensors import DEFAULT_LIMITS, Limits, _check_entries, _check_finite, _open, _read

SETTINGS_BYTES = 1 << 20
"""Of a settings file, at most."""

_REMEDY = "Only safetensors files are read; pickles never are."


def read_foreign(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    The header is checked against the file's size before memory is taken for a tensor; there is no digest to check.

    Args:
        path: the file.
        limits: how much it may ask for.

    Raises:
        ArtifactError: it is missing, damaged or no safetensors file, or a number is not finite.
    """
    at = os.fspath(path)
    try:
        with _open(at) as file:
            size = os.fstat(file.fileno()).st_size
            header = _header(at, file, size, limits)
            entries = _check_entries(at, header, size - file.tell(), limits)
            found: dict[str, Tensor] = {}
            for entry in entries:
                buffer = _read(at, file, entry.end - entry.begin)
                if entry.dtype is torch.bool and buffer.translate(None, b"\0\1"):
                    raise ArtifactError(say(at, f"must hold only 0 and 1 in {entry.name!r}", "other bytes"))
                flat = torch.frombuffer(buffer, dtype=entry.dtype) if buffer else torch.empty(0, dtype=entry.dtype)
                found[entry.name] = flat.reshape(entry.shape)
    except (OSError, ValueError, MemoryError) as error:
        raise ArtifactError(say(at, "must be a file that can be read", str(error))) from error
    _check_finite(at, found)
    return found


def read_settings(path: str | os.PathLike[str]) -> dict[str, object]:
    """A JSON object from a file of at most 1 MiB.

    Raises:
        ArtifactError: it is missing, too long, or no JSON object.
    """
    at = os.fspath(path)
    try:
        with _open(at) as file:
            size = os.fstat(file.fileno()).st_size
            if size > SETTINGS_BYTES:
                raise ArtifactError(say(at, f"must have at most {SETTINGS_BYTES} bytes", size))
            found = parse(bytes(_read(at, file, size)), at)
    except OSError as error:
        raise ArtifactError(say(at, "must be a file that can be read", str(error))) from error
    if not isinstance(found, dict):
        raise ArtifactError(say(at, "must hold a JSON object", type(found).__name__))
    return found


def _header(at: str, file: FileIO, size: int, limits: Limits) -> dict[str, object]:
    length = int.from_bytes(_read(at, file, 8), "little") if size >= 8 else size
    if size < 8 or length > min(limits.header_bytes, size - 8):
        got = f"{size} bytes that ask for a header of {length}"
        raise ArtifactError(say(at, "must begin with a header that fits into the file and into 1 MiB", got, _REMEDY))
    header = parse(bytes(_read(at, file, length)), f"{at}: header")
    if not isinstance(header, dict):
        raise ArtifactError(say(at, "must have an object as its header", type(header).__name__, _REMEDY))
    return header
