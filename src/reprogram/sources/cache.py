"""What was made once and is kept: a folder under the user's cache, filled by one process, whole or not there."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from reprogram.core.errors import SourceError, say

Tell = Callable[[str], None]
"""Takes a line for the user about what is going on."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation came to.

    Attributes:
        ref: how to load it.
        folder: where it is.
        new: False if it was there already.
    """

    ref: str
    folder: Path
    new: bool


def cache_folder() -> Path:
    """$REPROGRAM_CACHE, else $XDG_CACHE_HOME/reprogram, else ~/.cache/reprogram. It need not exist."""
    own, shared = os.environ.get("REPROGRAM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser()
    base = Path(shared) if shared and Path(shared).is_absolute() else Path.home() / ".cache"
    return base / "reprogram"


def make_once(target: Path, fill: Callable[[Path], None], whole: Callable[[Path], bool], tell: Tell) -> bool:
    """Make `target` a folder that `fill` filled. It takes its name only when it is complete and on the disk.

    Of several processes one fills, the others wait for it and find it done. One that dies half-way leaves a folder
    under another name, which the next one removes.

    Args:
        target: the folder.
        fill: puts files into the empty folder that it is given.
        whole: says of a folder that is there whether it is complete; one that is not is made anew.
        tell: is told about waiting.

    Returns:
        False if there was nothing to do.

    Raises:
        SourceError: the place cannot be written to.
    """
    if whole(target):
        return False
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.with_name(f".{target.name}.lock"), tell):
            if whole(target):  # somebody else made it while we waited
                return False
            _remove(part)
            part.mkdir()
            try:
                fill(part)
                _reach_the_disk(part)
                _remove(target)
                part.rename(target)
            except BaseException:
                _remove(part)
                raise
    except OSError as problem:
        remedy = "Free some space, or name another place in REPROGRAM_CACHE."
        raise SourceError(say("cache folder", "must be a place that can be written to",
                              f"{target.parent}: {problem.strerror or problem}", remedy)) from problem  # fmt: skip
    return True


@contextlib.contextmanager
def _alone(lock: Path, tell: Tell) -> Generator[None]:
    """Hold a lock that goes with the process, however it dies."""
    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"Waiting for another process, which is making {lock.parent / lock.name[1:].removesuffix('.lock')}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _reach_the_disk(folder: Path) -> None:
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
