"""Tasks from a zip of a folder, read in place: nothing is unpacked to disk, and no more than was declared to memory.

Only the list of contents is left to `zipfile`; names, sizes and overlaps are checked before anything is unpacked.
"""

import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reprogram.core.errors import DataError, say
from reprogram.media.decode import MAX_BYTES, printable
from reprogram.media.files import MAX_ENTRIES, is_hidden, is_picture
from reprogram.tasks.folder import describe, name_of, read_layout
from reprogram.tasks.listing import Listing
from reprogram.tasks.pixels import Item

MAX_UNPACKED = 64 * 2**30
"""Declared bytes of all entries together."""

MAX_TOTAL_RATIO = 20
"""All entries together may be so many times as large as the archive. Pictures hardly get smaller in a zip."""

MAX_RATIO = 100
"""One entry of more than `SMALL` bytes may be so many times as large as it is packed."""

SMALL = 2**20
_LOCAL_HEADER = 30
_REMEDY = "Make the zip again from the folder of pictures, or unpack it and give the folder."


@dataclass(frozen=True, slots=True)
class ZipReader:
    """One entry of a zip, read by its place in the file: any thread, any time, no open archive."""

    path: str
    offset: int
    packed: int
    size: int
    crc: int
    deflated: bool

    def read(self, name: str) -> bytes:
        """The unpacked entry; never more bytes than it declares."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                head = file.read(_LOCAL_HEADER)
                file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
                data = file.read(self.packed)
            if self.deflated:
                data = zlib.decompressobj(-15).decompress(data, self.size + 1)
        except (OSError, zlib.error) as error:
            raise DataError(say(name, "must be an undamaged entry", str(error), _REMEDY)) from error
        if head[:4] != b"PK\3\4" or len(data) != self.size or zlib.crc32(data) != self.crc:
            raise DataError(say(name, "must be an undamaged entry", "other bytes than the zip declares", _REMEDY))
        return data


def list_zip(path: Path) -> Listing:
    """The pictures in a zip of a folder; see `tasks.folder` for how folders are read.

    Raises:
        DataError: it is no zip, is damaged, or holds what an archive of pictures does not: encrypted or overlapping
            entries, links, names that repeat or lead out of it, sizes beyond the limits above.
    """
    name = printable(path)
    entries = _contents(path, name)
    _check_sizes(entries, path.stat().st_size, name)
    for entry in entries:
        _check_entry(entry, name)
    _check_places(entries, name)
    visible = [e for e in entries if not any(is_hidden(part) for part in e.filename.split("/"))]
    files = {e.filename: e for e in visible if not e.is_dir()}
    pictures = sorted(f for f in files if is_picture(f))
    layout = read_layout(pictures, _folders(visible))
    layout.notes += describe(sorted(set(files) - set(pictures)), "files that are no PNG, JPEG or WEBP are left out")
    items = [
        Item(file, f"{name}/{file}", label, split, _reader(files[file], path)) for file, split, label in layout.placed
    ]
    return Listing(name_of(path), items, None, tuple(layout.notes))


def _contents(path: Path, name: str) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except Exception as error:  # whatever a damaged directory makes of `zipfile`
        got = f"{type(error).__name__}: {error}"
        raise DataError(say(name, "must be an undamaged zip file", got, _REMEDY)) from error


def _check_sizes(entries: Sequence[zipfile.ZipInfo], packed: int, name: str) -> None:
    if len(entries) > MAX_ENTRIES:
        raise DataError(say(name, f"must hold at most {MAX_ENTRIES} entries", len(entries)))
    unpacked, most = sum(e.file_size for e in entries), min(MAX_UNPACKED, MAX_TOTAL_RATIO * packed + SMALL)
    if unpacked > most:
        raise DataError(say(name, f"must unpack to at most {most} bytes", unpacked, "Pictures do not shrink so much."))


def _check_entry(entry: zipfile.ZipInfo, name: str) -> None:
    shown = f"{name}/{entry.filename}"
    parts = entry.orig_filename.rstrip("/").split("/")
    if ".." in parts or "" in parts or any(c in entry.orig_filename for c in "\\\0") or parts[0].endswith(":"):
        raise DataError(say(name, "must hold names that stay inside it", entry.orig_filename, _REMEDY))
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(say(shown, "must be a file or a folder", "a link or a device", _REMEDY))
    if entry.flag_bits & 0x41:
        raise DataError(say(shown, "must not be encrypted", "an encrypted entry", _REMEDY))
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(say(shown, "must be stored or deflated", f"compression {entry.compress_type}", _REMEDY))
    if max(entry.file_size, entry.compress_size) > MAX_BYTES:
        raise DataError(say(shown, f"must be at most {MAX_BYTES} bytes", max(entry.file_size, entry.compress_size)))
    if entry.file_size > max(SMALL, MAX_RATIO * entry.compress_size):
        ratio = entry.file_size // max(1, entry.compress_size)
        raise DataError(say(shown, f"must be at most {MAX_RATIO} times its packed size", f"{ratio} times"))


def _check_places(entries: Sequence[zipfile.ZipInfo], name: str) -> None:
    """No name twice, and no byte in two entries."""
    twice = sorted(file for file, count in Counter(e.filename.rstrip("/") for e in entries).items() if count > 1)
    if twice:
        raise DataError(say(name, "must hold each name once", twice[0], _REMEDY))
    end = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.header_offset < end:
            raise DataError(say(name, "must hold entries side by side", f"{entry.filename} over another", _REMEDY))
        end = entry.header_offset + _LOCAL_HEADER + entry.compress_size


def _folders(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """All folders, whether the zip lists them or only what is in them."""
    found: set[str] = set()
    for entry in entries:
        parts = entry.filename.rstrip("/").split("/")
        top = len(parts) + entry.is_dir()
        found.update("/".join(parts[:depth]) for depth in range(1, top))
    return sorted(found)


def _reader(entry: zipfile.ZipInfo, path: Path) -> ZipReader:
    return ZipReader(
        path=str(path),
        offset=entry.header_offset,
        packed=entry.compress_size,
        size=entry.file_size,
        crc=entry.CRC,
        deflated=entry.compress_type == zipfile.ZIP_DEFLATED,
    )
