"""Finished work on disk: one JSON file a cell, written in one step, found again by what it depends on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from reprogram.core.plain import plain
from reprogram.store import write_atomic

VERSION = 1
"""Of what a cell holds; cells of another version are measured anew."""


@final
class Ledger:
    """Rows that were measured already.

    Args:
        folder: made when the first row is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: Mapping[str, object]) -> Path:
        """Where the row that depends on `key` is or will be."""
        text = json.dumps({**key, "version": VERSION}, sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"

    def has(self, key: Mapping[str, object]) -> bool:
        """Whether there is such a row, readable."""
        return self._read(key) is not None

    def row(self, key: Mapping[str, object], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of `key`; if there is none, it is made and written at once."""
        found = self._read(key)
        if found is not None:
            return found
        made = plain(make())
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path(key), json.dumps(made, indent=1, allow_nan=False).encode())
        return made

    def _read(self, key: Mapping[str, object]) -> dict[str, Any] | None:
        try:
            found = json.loads(self.path(key).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None
