"""Where a fit tells what it does: a JSON line a event, a bar or lines for people, TensorBoard on request.

The engine calls `Listener.event` and knows nothing of who listens.
"""

import importlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

from reprogram.core.errors import missing_extra


@runtime_checkable
class Listener(Protocol):
    """Hears what happens in a fit."""

    def event(self, kind: str, **facts: Any) -> None:
        """Something happened: "start", "step", "epoch", "end", ..."""
        ...

    def close(self) -> None:
        """No more events."""
        ...


@final
class EventFile:
    """`events.jsonl`: one JSON object a line, steps left out. `position` lets a checkpoint cut back what came later."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._file = path.open("ab")
        os.truncate(path, min(position, path.stat().st_size))
        self._file.seek(0, os.SEEK_END)

    def event(self, kind: str, **facts: Any) -> None:
        """Append and flush a line."""
        if kind != "step":
            line = {"event": kind, "time": round(time.time(), 3), **{k: _plain(v) for k, v in facts.items()}}
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()

    def position(self) -> int:
        """Bytes written."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@final
class Console:
    """A progress bar with rate and time left on a terminal; one line an epoch elsewhere. Writes to stderr."""

    def __init__(self) -> None:
        console = importlib.import_module("rich.console").Console(stderr=True)
        self._terminal = bool(console.is_terminal)
        self._bar: Any = None
        self._task: Any = None
        if self._terminal:
            columns = importlib.import_module("rich.progress")
            self._bar = columns.Progress(
                columns.TextColumn("{task.description}"), columns.BarColumn(), columns.MofNCompleteColumn(),
                columns.TextColumn("{task.fields[rate]}"), columns.TimeRemainingColumn(), console=console,
            )  # fmt: skip
            self._bar.start()

    def event(self, kind: str, **facts: Any) -> None:
        """Show it."""
        if kind == "start" and self._bar is not None:
            self._task = self._bar.add_task("fit", total=facts["steps"], completed=facts["done"], rate="")
        elif kind == "step" and self._bar is not None:
            rate = f"{facts['rate']:.0f} inputs/s  loss {facts['loss']:.3f}"
            self._bar.update(self._task, completed=facts["done"], rate=rate)
        elif kind == "epoch":
            self._line(_epoch_line(facts))
        elif kind == "note":
            self._line(str(facts["text"]))

    def close(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.stop()

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            sys.stderr.write(text + "\n")


@final
class TensorBoard:
    """Scalars of every epoch, in TensorBoard's own format."""

    def __init__(self, folder: Path) -> None:
        try:
            writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError as problem:
            raise missing_extra("tensorboard", "track", "tensorboard=True") from problem
        self._writer = writer(str(folder))

    def event(self, kind: str, **facts: Any) -> None:
        """Write an epoch's numbers."""
        if kind == "epoch":
            for name, value in facts.items():
                if isinstance(value, int | float) and name != "epoch":
                    self._writer.add_scalar(name, value, facts["epoch"])

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def _plain(value: Any) -> Any:
    """JSON has no infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _epoch_line(facts: dict[str, Any]) -> str:
    parts = [f"epoch {facts['epoch'] + 1}/{facts['epochs']}"]
    for name, word in (("loss", "loss"), ("accuracy", "train"), ("val_accuracy", "val"), ("test_accuracy", "test")):
        if facts.get(name) is not None:
            parts.append(f"{word} {facts[name]:.3f}" if name == "loss" else f"{word} {facts[name]:.1%}")
    return "  ".join([*parts, f"{facts['seconds']:.1f} s", *(["best"] if facts.get("best") else [])])
