"""One safetensors file: named tensors, and a JSON card in its header. Nothing in it can be executed.

The layout is that of safetensors (8 bytes of header length, a JSON header, raw numbers), so any of its readers can
open our files. What this module adds is distrust: the whole header is checked against the file's real size *before*
memory is taken for a single tensor, a digest covers header and numbers, and anything unexpected is an `ArtifactError`.

    __metadata__ = {"format": "reprogram", "schema": "1", "kind": "program", "library": "0.1.0",
                    "card": "<JSON>", "sha256": "<hex>"}

`sha256` is taken over the header as canonical JSON without that one entry, followed by the numbers. So a flipped bit
in a class name is found as well as one in a weight. It guards against accidents, not against people: whoever changes a
file on purpose can write a new digest, which is why every other check is made too.
"""

import hashlib
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from typing import cast, final

import safetensors.torch
import torch
from torch import Tensor

from reprogram._version import __version__
from reprogram.core.errors import ArtifactError, say
from reprogram.store._json import canonical, parse
from reprogram.store.atomic import write_atomic

FORMAT = "reprogram"
SCHEMA = "1"
KINDS = ("program", "checkpoint")
MAX_RANK = 8

_FOREIGN = "Only files that this library wrote are read; pickles never are."
_DAMAGED = "The file is damaged; use another copy or make it again."
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_METADATA = "__metadata__"
_KEYS = {"format", "schema", "kind", "library", "card", "sha256"}
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a file may ask for. A file that asks for more is refused before any memory is taken.

    Attributes:
        header_bytes: length of the JSON header, 1 MiB. The usual 64 KiB is too little: the card is JSON within JSON, so
            every quote takes two bytes, and 1,000 class names of up to 130 letters with metrics and settings come to
            140 kB, 20,000 short ones to 700 kB. A header of 1 MiB that is made to be as costly as possible still
            parses into less than 64 MiB of memory.
        tensor_bytes: all tensors together, 1 GiB.
        tensors: how many of them.
    """

    header_bytes: int = 1 << 20
    tensor_bytes: int = 1 << 30
    tensors: int = 10_000


DEFAULT_LIMITS = Limits()


@final
@dataclass(frozen=True, slots=True)
class _Entry:
    """Where one tensor's bytes are, counted from the end of the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    card: Mapping[str, object],
    *,
    kind: str = "program",
    limits: Limits = DEFAULT_LIMITS,
    allow_nonfinite: bool = False,
) -> None:
    """Write tensors and a card to one file, in one step; equal input gives equal bytes.

    Args:
        path: the file; its directory must exist.
        tensors: dense tensors on any device, by names of letters, digits and ``. _ -``.
        card: plain JSON values.
        kind: "program" or "checkpoint".
        limits: what `read_tensors` will be asked to accept.
        allow_nonfinite: let NaN and infinity pass.

    Raises:
        ArtifactError: `read_tensors` would refuse what is to be written, or the system refuses to write it. The place
            then holds what it held before (see `write_atomic` for the one exception).
    """
    at = os.fspath(path)
    try:
        plain = {_check_name(at, name): _plain(at, name, value) for name, value in tensors.items()}
        chunks = _encode(at, plain, card, kind, limits)
        if not allow_nonfinite:
            _check_finite(at, plain)
        write_atomic(path, chunks)
    except OSError as error:
        msg = say(at, "must be a place that can be written to", str(error), "Nothing half-written is left behind.")
        raise ArtifactError(msg) from error


def read_tensors(
    path: str | os.PathLike[str],
    *,
    kind: str = "program",
    limits: Limits = DEFAULT_LIMITS,
    allow_nonfinite: bool = False,
) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Read what `write_tensors` wrote.

    Args:
        path: the file.
        kind: what it must be, "program" or "checkpoint".
        limits: how much it may ask for.
        allow_nonfinite: let NaN and infinity pass.

    Returns:
        The card, and the tensors by name, on the CPU.

    Raises:
        ArtifactError: whatever is wrong with the file; nothing else is raised for any content.
    """
    at = os.fspath(path)
    try:
        with _open(at) as file:
            size = os.fstat(file.fileno()).st_size
            header = _read_header(at, file, size, limits)
            metadata = _check_metadata(at, header, kind)
            room = size - file.tell()
            entries = _check_entries(at, header, room, limits)
            card = parse(metadata["card"].encode(), f"{at}: card")
            tensors = _read_data(at, file, entries, _signed(header), metadata["sha256"])
    except (OSError, ValueError, MemoryError) as error:
        raise ArtifactError(say(at, "must be a file that can be read", str(error))) from error
    if not isinstance(card, dict):
        raise _bad(at, "must have an object as its card", card, _FOREIGN)
    if not allow_nonfinite:
        _check_finite(at, tensors)
    return card, tensors


# ---- header ------------------------------------------------------------------------------------------------------


def _open(at: str) -> FileIO:
    """Open an ordinary file and nothing else: no pipe that blocks, no device, no directory."""
    if not stat.S_ISREG(os.stat(at).st_mode):
        raise _bad(at, "must be an ordinary file", "something else")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    file = FileIO(os.open(at, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # exchanged in between
        file.close()
        raise _bad(at, "must be an ordinary file", "something else")
    return file


def _read_header(at: str, file: FileIO, size: int, limits: Limits) -> dict[str, object]:
    if size < 8:
        raise _bad(at, "must be at least 8 bytes long", size, _FOREIGN)
    length = int.from_bytes(_read(at, file, 8), "little")
    if length > limits.header_bytes:
        raise _bad(at, f"must have a header of at most {limits.header_bytes} bytes", length, _FOREIGN)
    if length > size - 8:
        raise _bad(at, f"must be at least {8 + length} bytes long, as its header says", size, _DAMAGED)
    header = parse(bytes(_read(at, file, length)), f"{at}: header")
    if not isinstance(header, dict):
        raise _bad(at, "must have an object as its header", header, _FOREIGN)
    return header


def _check_metadata(at: str, header: dict[str, object], kind: str) -> dict[str, str]:
    found = header.get(_METADATA)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _bad(at, f"must be a file of the format {FORMAT!r}", found, _FOREIGN)
    if found.get("schema") != SCHEMA:
        came = f"schema {found.get('schema')}, written by version {found.get('library', 'unknown')}"
        remedy = "Upgrade: pip install --upgrade reprogram"
        raise _bad(at, f"must have schema {SCHEMA}, the one that version {__version__} reads", came[:150], remedy)
    if set(found) != _KEYS or not all(isinstance(value, str) for value in found.values()):
        raise _bad(at, f"must have exactly the metadata {sorted(_KEYS)}, all text", sorted(found), _DAMAGED)
    if kind not in KINDS or found["kind"] != kind:
        raise _bad(at, f"must be of the kind {kind!r} (there are {list(KINDS)})", found["kind"])
    return cast("dict[str, str]", found)


def _check_entries(at: str, header: dict[str, object], room: int, limits: Limits) -> list[_Entry]:
    """The tensors in the order of their bytes, known to lie side by side and to fill the file."""
    if len(header) - 1 > limits.tensors:
        raise _bad(at, f"must hold at most {limits.tensors} tensors", len(header) - 1)
    if room > limits.tensor_bytes:
        raise _bad(at, f"must hold at most {limits.tensor_bytes} bytes of tensors", room)
    entries = [_check_entry(at, name, value, limits) for name, value in header.items() if name != _METADATA]
    entries.sort(key=lambda entry: (entry.begin, entry.end, entry.name))
    reached = 0
    for entry in entries:
        if entry.begin != reached:
            raise _bad(at, f"must have tensor {entry.name!r} begin at byte {reached}", entry.begin, _DAMAGED)
        reached = entry.end
    if reached != room:
        raise _bad(at, f"must have {reached} bytes after its header, as that says", room, _DAMAGED)
    return entries


def _check_entry(at: str, name: str, value: object, limits: Limits) -> _Entry:
    _check_name(at, name)
    where = f"must have dtype, shape and data_offsets of tensor {name!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _bad(at, f"{where}, and nothing else", value, _DAMAGED)
    dtype = _DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise _bad(at, f"{where}: a dtype among {list(_DTYPES)}", value["dtype"])
    shape, offsets = _counts(value["shape"]), _counts(value["data_offsets"])
    if shape is None or len(shape) > MAX_RANK:
        raise _bad(at, f"{where}: a shape of at most {MAX_RANK} whole numbers from 0 up", value["shape"])
    if offsets is None or len(offsets) != 2:
        raise _bad(at, f"{where}: two whole numbers from 0 up as offsets", value["data_offsets"])
    begin, end = offsets
    if dtype.itemsize * math.prod(max(n, 1) for n in shape) > limits.tensor_bytes:
        raise _bad(at, f"{where}: at most {limits.tensor_bytes} bytes", value["shape"])
    if end - begin != dtype.itemsize * math.prod(shape):
        raise _bad(at, f"{where}: offsets as far apart as the shape {shape} asks for", [begin, end], _DAMAGED)
    return _Entry(name, dtype, shape, begin, end)


def _check_name(at: str, name: str) -> str:
    if not _NAME.fullmatch(name) or name == _METADATA:
        raise _bad(at, "must name its tensors with 1 to 200 letters, digits and . _ -", name)
    return name


def _counts(value: object) -> tuple[int, ...] | None:
    """A list of whole numbers from 0 up (True is none), as a tuple; None if it is anything else."""
    if isinstance(value, list) and all(type(n) is int and n >= 0 for n in value):
        return tuple(value)
    return None


def _signed(header: dict[str, object]) -> bytes:
    """What the digest covers before the numbers: the header without the digest."""
    metadata = cast("dict[str, str]", header[_METADATA])
    return canonical({**header, _METADATA: {k: v for k, v in metadata.items() if k != "sha256"}})


# ---- numbers -----------------------------------------------------------------------------------------------------


def _read_data(at: str, file: FileIO, entries: list[_Entry], signed: bytes, expected: str) -> dict[str, Tensor]:
    digest = hashlib.sha256(signed)
    tensors: dict[str, Tensor] = {}
    for entry in entries:
        buffer = _read(at, file, entry.end - entry.begin)
        digest.update(buffer)
        if entry.dtype is torch.bool and buffer.translate(None, b"\0\1"):
            raise _bad(at, f"must hold only 0 and 1 in the booleans {entry.name!r}", "other bytes", _DAMAGED)
        flat = torch.frombuffer(buffer, dtype=entry.dtype) if buffer else torch.empty(0, dtype=entry.dtype)
        tensors[entry.name] = flat.reshape(entry.shape)
    if digest.hexdigest() != expected:
        raise _bad(at, f"must have the SHA-256 that its header says, {expected[:64]}", digest.hexdigest(), _DAMAGED)
    return tensors


def _read(at: str, file: FileIO, count: int) -> bytearray:
    buffer = bytearray(count)
    rest = memoryview(buffer)
    while rest:
        got = file.readinto(rest)
        if not got:
            raise _bad(at, f"must hold {len(rest)} bytes more", "its end", _DAMAGED)
        rest = rest[got:]
    return buffer


def _check_finite(at: str, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise _bad(at, f"must hold finite numbers in tensor {name!r}", f"{bad} that are NaN or infinite")


def _plain(at: str, name: str, tensor: Tensor) -> Tensor:
    """A dense copy on the CPU that shares its memory with nothing."""
    if tensor.dtype not in _DTYPES.values() or tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
        came = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        raise _bad(at, f"must hold dense tensors of the dtypes {list(_DTYPES)}; {name!r} is none", came)
    return tensor.detach().to("cpu").resolve_neg().clone(memory_format=torch.contiguous_format)


def _encode(
    at: str, tensors: dict[str, Tensor], card: Mapping[str, object], kind: str, limits: Limits
) -> list[bytes | memoryview]:
    data = memoryview(safetensors.torch.save(tensors))
    start = 8 + int.from_bytes(data[:8], "little")
    header = cast("dict[str, object]", parse(bytes(data[8:start]), "header"))
    try:
        text = canonical(card).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad(at, "must have plain JSON values as its card", str(error)) from error
    header[_METADATA] = {"format": FORMAT, "schema": SCHEMA, "kind": kind, "library": __version__, "card": text}
    digest = hashlib.sha256(_signed(header))
    digest.update(data[start:])
    header[_METADATA] = {**cast("dict[str, str]", header[_METADATA]), "sha256": digest.hexdigest()}
    _check_metadata(at, header, kind)
    _check_entries(at, header, len(data) - start, limits)
    parse(text.encode(), f"{at}: card")
    raw = canonical(header)
    raw += b" " * (-len(raw) % 8)  # safetensors wants the numbers to begin at a multiple of 8
    if len(raw) > limits.header_bytes:
        raise _bad(at, f"must have a header of at most {limits.header_bytes} bytes", len(raw))
    return [len(raw).to_bytes(8, "little"), raw, data[start:]]


def _bad(at: str, requirement: str, got: object, remedy: str = "") -> ArtifactError:
    return ArtifactError(say(at, requirement, got, remedy))
