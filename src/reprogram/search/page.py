"""A search as a table, as a file, and as a page."""

import csv
import io
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reprogram.core.errors import MissingExtraError
from reprogram.report.experiment import Axis, Chart, Page, Point, Sheet, marks, write_experiment
from reprogram.search.result import SearchResult, Trial
from reprogram.store import write_atomic

MOST = 200
"""Trials in the page's table."""

CAVEATS = (
    "Trials are ranked by validation accuracy; the best of many is better there than it really is. Test was scored "
    "once, for the winner only.",
    "All trials share one seed, so a lead smaller than the interval may be luck.",
)


def write_files(found: SearchResult, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """`trials.csv` and `search.json` in a folder.

    Args:
        found: the search.
        folder: made if need be.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    files = {"trials": place / "trials.csv", "search": place / "search.json"}
    write_atomic(files["trials"], _csv(found).encode())
    write_atomic(files["search"], (json.dumps(found.card(), indent=1, allow_nan=False) + "\n").encode())
    return files


def write_search(found: SearchResult, path: str | os.PathLike[str], *, command: str = "Python") -> Path | None:
    """The search as one HTML file that loads nothing; None where the extra `report` is not installed.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        return write_experiment(path, page(found, command))
    except MissingExtraError:
        return None


def page(found: SearchResult, command: str) -> Page:
    """The page, as plain data."""
    low, high = found.validation.interval()
    verdicts = [("winner", f"trial {found.best.number}: {settled(found.best)}")]
    verdicts += [("validation", f"{found.validation.accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%}")]
    if found.test is not None:
        low, high = found.test.interval()
        verdicts.append(("test", f"{found.test.accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%}"))
    ended = ", ".join(f"{found.count(s)} {s}" for s in ("complete", "pruned", "failed", "cut") if found.count(s))
    return Page(
        title=f"{found.method} on {found.task}: {len(found.trials)} trials", about=f"{ended}; seed {found.seed}.",
        question="Which settings are best on validation, and which of them matter?", verdicts=verdicts,
        summary=("What was found", "", ""),
        charts=_charts(found), sheets=_sheets(found), caveats=CAVEATS, command=command,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )  # fmt: skip


def settled(trial: Trial) -> str:
    """Source and settings of a trial in a line."""
    return ", ".join([trial.source, *(f"{name}={_text(value)}" for name, value in trial.settings.items())])


def _charts(found: SearchResult) -> list[Chart]:
    """Accuracy by trial, and against each setting that is a number."""
    known = [t for t in found.trials if t.accuracy is not None]
    share = Axis(title="validation accuracy", share=True)
    groups = {
        state: [Point(t.number, t.accuracy or 0.0, settled(t)) for t in known if t.state == state]
        for state in ("complete", "pruned", "failed", "cut")
    }
    groups = {state: points for state, points in groups.items() if points}
    made = [Chart(name="trials", label="Validation accuracy by trial.", caption="Validation accuracy, trial by trial.",
                  figure=marks(groups, Axis(title="trial"), share))]  # fmt: skip
    for i, (name, axis) in enumerate(found.space.items()):
        if ":" not in axis or name == "source":
            continue
        some = {
            state: [Point(float(t.settings[name]), t.accuracy or 0.0, settled(t)) for t in known if t.state == state
                    and isinstance(t.settings.get(name), int | float)]
            for state in groups
        }  # fmt: skip
        figure = marks(some, Axis(title=name, log=axis.endswith(":log")), share)
        caption = f"Validation accuracy against {name}."
        made.append(Chart(name=f"setting{i}", label=caption, caption=caption, figure=figure))
    return made


def _sheets(found: SearchResult) -> list[Sheet]:
    made: list[Sheet] = []
    if found.importance:
        rows = [(name, f"{value:.0%}") for name, value in found.importance.items()]
        note = "Share of the differences between complete trials that a setting explains."
        made.append(Sheet(title="What matters", heads=("setting", "importance"), rows=rows, note=note))
    table = found.table()
    rows = [tuple(_text(value) for value in row.values()) for row in table[:MOST]]
    note = f"The first {MOST} of {len(table)}." if len(table) > MOST else ""
    made.append(Sheet(title="Trials", heads=tuple(table[0]), rows=rows, note=note))
    spaces = [(name, axis) for name, axis in found.space.items()]
    spaces += [(name, f"{_text(value)} (pinned)") for name, value in found.pinned.items()]
    made.append(Sheet(title="What was tried", heads=("setting", "values"), rows=spaces))
    return made


def _csv(found: SearchResult) -> str:
    rows: list[Mapping[str, Any]] = list(found.table())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
