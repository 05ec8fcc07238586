"""What a PNG, JPEG or WEBP file says about itself, read without Pillow and before anything is decoded.

Goes in: the bytes of a file. Comes out: a `Container` with the parts a decoder needs and nothing else, the
orientation from EXIF, and whether the picture moves. Text, colour profiles, thumbnails and EXIF blocks are left out
of what Pillow gets to see: they are where it warns, and where small files unpack to large ones.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["PNG", "JPEG", "WEBP"]

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_START_OF_SCAN = 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITH_LENGTH = frozenset({*range(0xC0, 0xD0), *range(0xDB, 0xF0), 0xFE}) - {0xC8}
_LEFT_OUT = frozenset({*range(0xE1, 0xF0), 0xFE}) - {0xEE}  # all but JFIF and Adobe, which say how colours are coded


@dataclass(frozen=True, slots=True)
class Container:
    """A picture file, still encoded.

    Attributes:
        kind: the format, told from the first bytes and never from the name.
        data: the file without its metadata.
        size: (width, height) as the header says; None where it does not say.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        moves: True for animations.
    """

    kind: Kind
    data: bytes
    size: tuple[int, int] | None = None
    orientation: int = 1
    moves: bool = False


def open_container(data: bytes) -> Container | None:
    """Look into a file's bytes; None if they begin like none of the three formats.

    >>> open_container(b"GIF89a...") is None
    True
    """
    if data.startswith(_PNG):
        return _open_png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _open_jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _open_webp(data)
    return None


def orientation(exif: bytes) -> int:
    r"""The orientation, 1 to 8, from a block of EXIF; 1 where it is missing or makes no sense.

    >>> orientation(b"II*\0" + bytes([8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0]))
    6
    """
    exif = exif.removeprefix(_EXIF)
    little = exif.startswith(b"II*\0")
    if not little and not exif.startswith(b"MM\0*"):
        return 1
    order: Literal["little", "big"] = "little" if little else "big"
    start = int.from_bytes(exif[4:8], order)
    count = int.from_bytes(exif[start : start + 2], order)
    for entry in range(count):
        field = exif[start + 2 + 12 * entry : start + 14 + 12 * entry]
        if len(field) < 12:
            break
        if int.from_bytes(field[:2], order) == _ORIENTATION:
            value = int.from_bytes(field[8:10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def _open_png(data: bytes) -> Container:
    kept, turn, moves, size = [_PNG], 1, False, None
    at = len(_PNG)
    while at + 8 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        body = data[at + 8 : end - 4]
        if kind in _PNG_CHUNKS and (kind != b"IHDR" or size is None):
            kept.append(data[at:end])
        if kind == b"IHDR" and size is None:
            size = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
        elif kind == b"eXIf":
            turn = orientation(body)
        elif kind == b"acTL":
            moves = int.from_bytes(body[:4], "big") > 1
        if kind == b"IEND":
            break
        at = end
    return Container("PNG", b"".join(kept), size, turn, moves)


def _open_jpeg(data: bytes) -> Container:
    """Leave out comments and APP blocks, walking over junk and padding as Pillow does: nothing hides behind them."""
    kept, turn, size, at = [data[:2]], 1, None, 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0x00, 0xFF):
            at += 1
            continue
        if marker == _START_OF_SCAN or marker < 0xC0:
            break
        if marker not in _WITH_LENGTH:
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            size = int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker not in _LEFT_OUT:
            kept.append(data[at:end])
        elif marker == 0xE1 and data[at + 4 : at + 10] == _EXIF:
            turn = orientation(data[at + 4 : end])
        at = max(end, at + 4)
    kept.append(data[at:])
    return Container("JPEG", b"".join(kept), size, turn)


def _open_webp(data: bytes) -> Container:
    """The decoder allocates a whole canvas when it is made, so the size is read here, before that."""
    kind, size, turn = data[12:16], (0, 0), 1
    if kind == b"VP8X":
        size = int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        turn = orientation(_riff_chunk(data, b"EXIF"))
    elif kind == b"VP8 ":
        size = int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        size = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    moves = kind == b"VP8X" and len(data) > 20 and bool(data[20] & 0x02)
    return Container("WEBP", data, size, turn, moves)


def _riff_chunk(data: bytes, wanted: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == wanted:
            return data[at + 8 : at + 8 + size]
        at += 8 + size + (size & 1)
    return b""
