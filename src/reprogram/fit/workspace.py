"""The folder of a run beside its program file, and the lock that keeps a second fit out."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import final

from reprogram.core.errors import BusyError, ConfigError, say


def run_folder(out: str | os.PathLike[str]) -> Path:
    """`my.safetensors` -> `my.run/`.

    >>> run_folder("a/my.safetensors").as_posix()
    'a/my.run'
    """
    path = Path(out)
    return path.with_name(f"{path.stem}.run")


@final
class Workspace:
    """Owns the run folder while a fit lasts; the lock goes with the process, however it dies.

    Raises:
        BusyError: another process is fitting to the same place.
        ConfigError: the place cannot be written to.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(out)
        self.folder = run_folder(out)
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.events = self.folder / "events.jsonl"
        self._lock: int | None = None

    def __enter__(self) -> "Workspace":
        if self.out.is_dir():
            raise ConfigError(say("out", "must be a file name", str(self.out), "Add a name such as my.safetensors."))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as problem:
            raise ConfigError(
                say("out", "must be a place that can be written to", str(self.out), str(problem))
            ) from problem
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(self._lock)
            remedy = "Wait for it, stop it, or give another --out."
            raise BusyError(say("out", "must not be in use by another fit", str(self.out), remedy)) from problem
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
