"""Finished parts of a ranking on disk, one small file each, so that a ranking that was cut short goes on."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from reprogram.core.errors import ConfigError, say
from reprogram.core.plain import plain
from reprogram.store import write_atomic

FORMAT = 1
"""Raised when a part's numbers mean something else than before, so that older files are not taken."""


@final
class Cells:
    """A folder of parts, each known by everything that decides it.

    Args:
        folder: made if need be; None keeps nothing.

    Raises:
        ConfigError: the folder cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = Path(folder) / "cells" if folder is not None else None
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as problem:
                raise ConfigError(say("out", "must be a folder", str(folder), str(problem))) from problem

    def path(self, key: Mapping[str, Any], suffix: str = ".json") -> Path | None:
        """Where the part with this key is or would be."""
        if self.folder is None:
            return None
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{key.get('part', '')}-{key.get('source', '')}").strip("-")[:60]
        text = json.dumps(plain(key), sort_keys=True)
        return self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{suffix}"

    def get(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """A finished part; None if there is none, or its file is damaged or for another key."""
        path = self.path(key)
        if path is None:
            return None
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("key") != plain(key):
            return None
        result = found.get("result")
        return result if isinstance(result, dict) else None

    def put(self, key: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Keep a finished part, in one step."""
        path = self.path(key)
        if path is not None:
            whole = {"format": FORMAT, "key": plain(key), "result": plain(result)}
            write_atomic(path, json.dumps(whole, indent=1, allow_nan=False).encode())
