"""What a study leaves behind: the files of an experiment, written from its own rows and verdicts."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from reprogram._version import __version__
from reprogram.core.errors import MissingExtraError
from reprogram.core.plain import plain
from reprogram.experiments.note import markdown, table, today
from reprogram.experiments.study import StudyFindings, plain_options
from reprogram.report.experiment import Page, write_experiment
from reprogram.store import write_atomic

QUICK = "A quick slice: it shows that everything runs; its verdicts mean nothing."


def write_study(found: StudyFindings) -> dict[str, Path]:
    """`table.csv`, `result.json`, `note.md` and, where the extra is installed, `page.html`."""
    out = found.options.out
    out.mkdir(parents=True, exist_ok=True)
    files = {"table": out / "table.csv", "result": out / "result.json", "note": out / "note.md"}
    write_atomic(files["table"], table(found.rows).encode())
    write_atomic(files["result"], (json.dumps(study_card(found), indent=1, allow_nan=False) + "\n").encode())
    write_atomic(files["note"], study_note(found).encode())
    try:
        files["page"] = write_experiment(out / "page.html", _page(found))
    except MissingExtraError:
        (out / "page.html").unlink(missing_ok=True)  # not one of other numbers
    return files


def study_card(found: StudyFindings) -> dict[str, Any]:
    """Everything as plain JSON values."""
    study = found.study
    return plain({
        "experiment": study.name, "question": study.question, "date": today(), "library": __version__,
        "torch": torch.__version__, "machine": platform.machine(), "options": plain_options(found.options),
        "seconds": round(found.seconds, 1),
        "claims": [asdict(c) | {"sentence": c.sentence()} for c in found.claims],
        "remarks": list(study.remarks(found.rows)), "protocol": list(study.protocol(found.options)),
        "caveats": _caveats(found), "rows": list(found.rows),
    })  # fmt: skip


def study_note(found: StudyFindings) -> str:
    """The lab note, in Markdown."""
    options, study = found.options, found.study
    lines = [f"# {study.title}", "", f"{today()}, version {__version__}. {_about(found)}", "", study.question, ""]
    lines += [f"**{QUICK}**", ""] if options.quick else []
    lines += ["## Does it hold here?", ""]
    for verdict in ("supported", "not supported", "cannot be told"):
        said = [c.sentence() for c in found.claims if c.verdict == verdict]
        lines += [f"**{verdict.capitalize()}** ({len(said)} of {len(found.claims)})", ""] if said else []
        lines += [*(f"- {s}" for s in said), ""] if said else []
    lines += [*_items(study.remarks(found.rows)), "## Numbers", ""]
    for sheet in study.sheets(found.rows):
        lines += [f"### {sheet.title}", "", *markdown(sheet), "", sheet.note, ""]
    machine = (f"Torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; this run took "
               f"{found.seconds:.0f} s beyond what was there already.")  # fmt: skip
    lines += ["## How it was done", "", f"    {options.command or 'from Python'}", ""]
    lines += [*_items([*study.protocol(options), machine]), "## How far to trust it", "", *_items(_caveats(found))]
    return "\n".join(lines[:-1]) + "\n"


def _items(lines: Sequence[str]) -> list[str]:
    return [*(f"- {line}" for line in lines), ""] if lines else []


def _page(found: StudyFindings) -> Page:
    study = found.study
    verdicts = [(str(c.verdict), c.sentence()) for c in found.claims]
    verdicts += [("by the numbers", remark) for remark in study.remarks(found.rows)]
    return Page(title=study.title, about=_about(found), question=study.question, verdicts=verdicts,
                charts=study.charts(found.rows), sheets=study.sheets(found.rows), caveats=_caveats(found),
                command=found.options.command or "Python",
                written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))  # fmt: skip


def _about(found: StudyFindings) -> str:
    seeds = len({row["seed"] for row in found.rows if row.get("seed") is not None})
    return f"{len(found.rows)} rows, {seeds} seeds."


def _caveats(found: StudyFindings) -> list[str]:
    quick = [f"{QUICK} Nothing follows from it."] if found.options.quick else []
    return [*quick, *found.study.caveats, f"{len(found.claims)} claims were tried without a correction for it."]
