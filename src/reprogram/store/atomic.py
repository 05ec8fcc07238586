"""Replace a file in one step: a reader finds all of the old bytes or all of the new ones, whatever fails in between.

The new bytes go to a temporary file beside the target, reach the disk, and take the target's name by rename; then the
directory reaches the disk too. Only the standard library is used. Every call to the operating system goes through
`_call`, so that a test can make any one of them fail.
"""

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import stat
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
Bytes = bytes | bytearray | memoryview

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


def write_atomic(path: str | os.PathLike[str], chunks: Bytes | Iterable[Bytes]) -> None:
    """Make `path` hold exactly `chunks`, or leave it as it was.

    A link is followed and stays a link. A new file gets the permissions that `open` would give it; one that is replaced
    keeps its own. Temporary files that dead processes of this machine left beside this target are removed first.

    Args:
        path: the file to write; its directory must exist.
        chunks: the bytes, whole or in pieces (an iterable may make them as it goes).

    Raises:
        OSError: the system refused something, or `path` is there and is not an ordinary file. Whatever is raised, an
            interrupt included, no temporary file stays behind. Only if the very last step fails, the flush of the
            directory, is the new content already in place (but might not outlive a power cut).
    """
    target = _call(os.path.realpath, os.fspath(path))
    mode = _mode(target)
    folder, name = os.path.split(target)
    _clean(folder, name)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{_here()}{secrets.token_hex(4)}.tmp")
    try:
        _fill(temporary, cast("Iterable[Bytes]", [chunks] if isinstance(chunks, Bytes) else chunks), mode)
        _call(os.replace, temporary, target)
        _flush_folder(folder)
    except BaseException:
        _remove(temporary)
        raise


def _call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The only door to the operating system; tests put one that fails in its place."""
    return function(*args, **kwargs)


def _mode(target: str) -> int | None:
    """Permission bits of the file that will be replaced, None if there is none."""
    try:
        status = _call(os.stat, target)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):  # a rename would put a file in the place of /dev/null
        code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(code, "not an ordinary file", target)
    return stat.S_IMODE(status.st_mode) & 0o777


def _fill(path: str, chunks: Iterable[Bytes], mode: int | None) -> None:
    descriptor = _call(os.open, path, _NEW, 0o666 if mode is None else mode)  # a private file's copy is private too
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[_call(os.write, descriptor, rest) :]
        if mode is not None:
            _call(os.chmod, path, mode)
        _call(os.fsync, descriptor)
    finally:
        _call(os.close, descriptor)


def _flush_folder(folder: str) -> None:
    if os.name == "nt":  # directories cannot be opened there
        return
    descriptor = _call(os.open, folder, _FOLDER)
    try:
        _call(os.fsync, descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush a directory
            raise
    finally:
        _call(os.close, descriptor)


def _clean(folder: str, name: str) -> None:
    """Remove what dead writers of this target left. Never fails: it is only tidying."""
    ours = re.compile(re.escape(f".{name}.") + rf"([0-9]{{1,9}})-{_here()}[0-9a-f]{{8}}\.tmp")
    try:
        entries = _call(os.listdir, folder)
    except OSError:
        return
    for entry in entries:
        found = ours.fullmatch(entry)
        if found and not _alive(int(found[1])):
            _remove(os.path.join(folder, entry))


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        _call(os.unlink, path)


def _alive(pid: int) -> bool:
    if os.name == "nt":  # signal 0 is not a question there
        return True
    try:
        _call(os.kill, pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@functools.cache
def _here() -> str:
    """Eight hex digits for this machine and container: on a shared disk, a process number means nothing elsewhere."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]
