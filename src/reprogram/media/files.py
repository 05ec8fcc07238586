"""Which pictures are in a folder: a walk that ends, does not leave the folder, and is the same on every disk."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reprogram.core.errors import DataError, say
from reprogram.media.decode import EXTENSIONS, printable

MAX_ENTRIES = 10_000_000
"""Files and folders one walk may meet; links that point at one another make many out of few."""


@dataclass(slots=True)
class Found:
    """What a walk met, as paths relative to where it began, with forward slashes, sorted.

    Attributes:
        pictures: files with a name that pictures have.
        folders: all folders, empty ones too.
        others: other files.
        broken: links that lead nowhere or back to a folder they are in.
        outside: links that lead out of the folder, which are not followed.
    """

    pictures: list[str] = field(default_factory=lambda: [])
    folders: list[str] = field(default_factory=lambda: [])
    others: list[str] = field(default_factory=lambda: [])
    broken: list[str] = field(default_factory=lambda: [])
    outside: list[str] = field(default_factory=lambda: [])


def is_picture(name: str) -> bool:
    """True if the name ends as pictures' do, in any case."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def is_hidden(name: str) -> bool:
    """True for names that systems make and people do not see."""
    return name.startswith(".") or name == "__MACOSX"


def find(root: Path, *, allow_outside: bool = False) -> Found:
    """Walk a folder. Hidden names are passed over; links are followed if they stay inside it.

    Args:
        root: the folder.
        allow_outside: follow links that lead out of it, too.

    Raises:
        DataError: a folder cannot be read, or there are more than `MAX_ENTRIES` entries.
    """
    found, home, count = Found(), root.resolve(), 0
    waiting: list[tuple[str, tuple[Path, ...]]] = [("", (home,))]
    while waiting:
        relative, parents = waiting.pop()
        for entry in _entries(root, relative):
            count += 1
            if count > MAX_ENTRIES:
                raise DataError(say(printable(root), f"must hold at most {MAX_ENTRIES} files", "more"))
            path = f"{relative}/{entry.name}" if relative else entry.name
            if entry.is_symlink() and not _followed(entry, path, found, None if allow_outside else home):
                continue
            if not entry.is_dir():
                (found.pictures if is_picture(entry.name) and entry.is_file() else found.others).append(path)
            elif _is_loop(entry, parents):
                found.broken.append(path)
            else:
                found.folders.append(path)
                waiting.append((path, (*parents, Path(entry.path).resolve())))
    for paths in (found.pictures, found.folders, found.others, found.broken, found.outside):
        paths.sort()
    return found


def _entries(root: Path, relative: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(root / relative) as entries:
            yield from (e for e in entries if not is_hidden(e.name))
    except OSError as error:
        name = printable(root / relative)
        raise DataError(say(name, "must be a readable folder", error.strerror, "Check its permissions.")) from error


def _followed(entry: os.DirEntry[str], path: str, found: Found, home: Path | None) -> bool:
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):
        found.broken.append(path)
        return False
    if home is not None and not target.is_relative_to(home):
        found.outside.append(path)
        return False
    return True


def _is_loop(entry: os.DirEntry[str], parents: tuple[Path, ...]) -> bool:
    return entry.is_symlink() and Path(entry.path).resolve() in parents
