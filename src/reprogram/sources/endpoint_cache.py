"""Answers of servers, kept on disk: a run that was cut short goes on where it was, and nothing is asked twice.

One SQLite file in write-ahead mode, which several processes may use at once. It holds JSON text only, so that reading
it runs nothing, and is readable by its owner only, for it holds prompts' answers.
"""

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

from reprogram.core.errors import SourceError, say
from reprogram.sources.cache import _alone

SCHEMA = 1
"""Part of every key and of the table's name; another one starts afresh."""

LIMIT = 2 << 30
"""Bytes of JSON text that are kept; beyond it the oldest go first."""

_AT_ONCE = 500
_PATIENCE = 60.0
_log = logging.getLogger("reprogram")
T = TypeVar("T")


def digest(value: object) -> str:
    """SHA-256 of a value's canonical JSON, 64 hex digits.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@final
class ReplyCache:
    """Replies by key. For several threads and processes.

    Args:
        path: the file; made if it is not there.
        limit: bytes of text to keep at most, give or take a twentieth.

    A file that is damaged is moved aside with a warning.

    Raises:
        SourceError: the place cannot be written to.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path, self.limit = path, limit
        self._lock = threading.RLock()
        self._grown = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._opened()
        except (OSError, sqlite3.OperationalError) as problem:
            raise self._unusable(problem) from problem
        self._close_later()
        self._prune()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._finalizer()

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """What is there, by key."""
        found: dict[str, Any] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = list(keys[start : start + _AT_ONCE])
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value FROM replies_{SCHEMA} WHERE key IN ({marks})"
            for key, value in self._guarded(lambda q=query, s=some: self._db.execute(q, s).fetchall()):
                try:
                    found[key] = json.loads(value)
                except ValueError:
                    _log.warning("An answer in %s is damaged and is asked for again.", self.path)
        return found

    def put(self, key: str, value: object) -> None:
        """Keep a JSON value; on disk when this returns.

        Raises:
            SourceError: the file cannot be written to.
        """
        text = json.dumps(value, separators=(",", ":"))
        row = (key, text, len(text), time.time())
        query = f"INSERT OR REPLACE INTO replies_{SCHEMA} VALUES (?, ?, ?, ?)"
        self._guarded(lambda: self._db.execute(query, row).fetchall())
        with self._lock:
            self._grown += len(text)
            if self._grown > self.limit / 20:
                self._prune()

    def size(self) -> int:
        """Bytes of text that are there."""
        query = f"SELECT coalesce(sum(size), 0) FROM replies_{SCHEMA}"
        return int(self._guarded(lambda: self._db.execute(query).fetchall())[0][0])

    def __len__(self) -> int:
        return int(self._guarded(lambda: self._db.execute(f"SELECT count(*) FROM replies_{SCHEMA}").fetchall())[0][0])

    def _prune(self) -> None:
        """Let the oldest go."""
        table, self._grown = f"replies_{SCHEMA}", 0
        excess = self.size() - self.limit
        if excess <= 0:
            return
        gone: list[tuple[str]] = []
        for key, size in self._guarded(
            lambda: self._db.execute(f"SELECT key, size FROM {table} ORDER BY at, rowid").fetchall()
        ):
            gone.append((key,))
            excess -= size
            if excess <= 0:
                break
        self._guarded(lambda: self._db.executemany(f"DELETE FROM {table} WHERE key = ?", gone).fetchall())

    def _guarded(self, act: Callable[[], list[Any]]) -> list[Any]:
        """Run a query; on a damaged file, once more on a new one."""
        with self._lock:
            try:
                return act()
            except sqlite3.OperationalError as problem:
                raise self._unusable(problem) from problem
            except sqlite3.ProgrammingError:
                raise  # it was closed
            except sqlite3.DatabaseError:
                self._finalizer()
                self._db = self._opened()
                self._close_later()
                return act()

    def _close_later(self) -> None:
        """With the last reference; not at the program's end, when threads may still be writing."""
        self._finalizer = weakref.finalize(self, self._db.close)
        self._finalizer.atexit = False

    def _opened(self) -> sqlite3.Connection:
        with _alone(self.path.with_name(f".{self.path.name}.lock"), _log.info):
            try:
                return self._connected()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as problem:
                aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
                _log.warning("%s is damaged (%s). It is moved to %s.", self.path, problem, aside.name)
                self.path.rename(aside)
                for end in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + end).unlink(missing_ok=True)
                return self._connected()

    def _connected(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(
                f"CREATE TABLE IF NOT EXISTS replies_{SCHEMA} "
                "(key TEXT PRIMARY KEY, value TEXT NOT NULL, size INTEGER NOT NULL, at REAL NOT NULL)"
            )
            db.execute(f"SELECT key, size FROM replies_{SCHEMA} LIMIT 1").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _unusable(self, problem: Exception) -> SourceError:
        remedy = "Free some space, name another place in REPROGRAM_CACHE or `cache=<file>`, or say cache=False."
        return SourceError(say("cache", "must be a file that can be written to", f"{self.path}: {problem}", remedy))
