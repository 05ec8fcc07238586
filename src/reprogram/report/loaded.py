"""The result of a program that was fitted earlier: scored again, its history read from the run folder beside its file.

The folder may come from a stranger or a full disk, so nothing in it is believed: what is no number of the right kind is
left out, and what cannot be read is as if it were not there.
"""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reprogram.core.errors import ArtifactError, ConfigError
from reprogram.core.method import Recipe
from reprogram.core.program import Program
from reprogram.fit import FitResult, evaluate, run_folder
from reprogram.store import read
from reprogram.tasks import Task

MAX_BYTES = 64 << 20
"""An event file is read up to here: some 200,000 epochs."""

_SHARES = ("accuracy", "val_accuracy", "test_accuracy")
_AMOUNTS = ("loss", "val_loss", "test_loss", "seconds")


@dataclass(slots=True)
class _Past:
    """What is known of the fit."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    seed: int = 0
    recipe: Recipe | None = None
    seconds: float | None = None
    best_epoch: int | None = None


def evaluate_result(program: Program, task: Task, path: str | os.PathLike[str] | None = None) -> FitResult:
    """Score a loaded program on validation and test, and give it the history of its fit where there is one.

    Args:
        program: from `catalogue.load`, for example.
        task: the one it was fitted on.
        path: the program's file; seed, duration and epochs come from its card and from `events.jsonl` in its run
            folder. None if there is no file.

    Returns:
        What `fit` returned once. `last_test` is None: the last epoch's state is not in a program file. Without a
        history, `history` is empty and `best_epoch` 0.
    """
    past = _Past()
    if path is not None:
        _read_events(run_folder(path) / "events.jsonl", past)
        _read_card(Path(path), past)
    rows = tuple(past.rows[epoch] for epoch in sorted(past.rows))
    marked = [row["epoch"] for row in rows if row["best"]]
    best = marked[-1] if marked else past.best_epoch
    own = program.origin.recipe if program.origin else Recipe()
    return FitResult(
        program=program,
        history=rows,
        validation=evaluate(program, task.val) if len(task.val) else None,
        test=evaluate(program, task.test) if len(task.test) else None,
        last_test=None,
        best_epoch=best or 0,
        seconds=past.seconds if past.seconds is not None else sum(row["seconds"] for row in rows),
        seed=past.seed,
        out=Path(path) if path is not None else None,
        recipe=past.recipe or own,
    )


def _read_card(path: Path, past: _Past) -> None:
    """The card is signed by nobody either, but its fields have been checked."""
    try:
        card = read(path).card
    except ArtifactError:
        return
    past.seed = card.seed if card.seed is not None else past.seed
    seconds, best = card.metrics.get("seconds"), card.metrics.get("best_epoch")
    past.seconds = _amount(seconds) if past.seconds is None else past.seconds
    past.best_epoch = best - 1 if isinstance(best, int) and best >= 0 else None


def _read_events(path: Path, past: _Past) -> None:
    try:
        with path.open("rb") as file:
            lines = file.read(MAX_BYTES).split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):  # cut off by a kill, or damaged
            continue
        if isinstance(event, dict):
            _take(event, past)


def _take(event: dict[str, Any], past: _Past) -> None:
    kind = event.get("event")
    if kind in ("start", "resume"):
        past.seed = event["seed"] if _whole(event.get("seed")) else past.seed
        past.recipe = _recipe(event.get("recipe")) or past.recipe
        if kind == "start":
            past.rows.clear()
    elif kind == "epoch" and _whole(event.get("epoch")):
        past.rows[event["epoch"]] = _row(event)
    elif kind == "end":
        past.seconds = _amount(event.get("seconds"))


def _row(event: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"epoch": event["epoch"], "best": event.get("best") is True, "seconds": 0.0}
    for name in (*_SHARES, *_AMOUNTS):
        value = _amount(event.get(name))
        if value is not None and not (name in _SHARES and value > 1):
            row[name] = value
    return row


def _amount(value: object) -> float | None:
    """A finite number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _recipe(value: object) -> Recipe | None:
    try:
        return TypeAdapter(Recipe).validate_python(value) if isinstance(value, dict) else None
    except (ValidationError, ConfigError):
        return None
