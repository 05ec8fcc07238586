"""What an experiment leaves behind: a table, all numbers, a page, and a dated note that says what holds."""

import csv
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from reprogram._version import __version__
from reprogram.core.errors import MissingExtraError
from reprogram.core.plain import plain
from reprogram.experiments.claims import Claim, Row
from reprogram.experiments.experiment import SCORES, Experiment, counts, of, values
from reprogram.experiments.measure import settings
from reprogram.experiments.options import Options
from reprogram.report.experiment import Page, Sheet, write_experiment
from reprogram.store import write_atomic
from reprogram.tasks import Task

COLUMNS = ("source", "method", "seed", "source_accuracy", "source_lambda_min", "program_lambda_min", "program_rank",
           "program_cap", "reachable", "gf_loss", "accuracy")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that came out of an experiment.

    Attributes:
        experiment: which.
        options: as asked for.
        rows: one a cell.
        claims: with their verdicts.
        task: the target.
        samples: target images in a kernel.
        shared: class names that the sources' task and the target have in common.
        seconds: wall time of this run, without what earlier runs had done.
    """

    experiment: Experiment
    options: Options
    rows: Sequence[Row]
    claims: Sequence[Claim]
    task: Task
    samples: int
    shared: int
    seconds: float


def write_all(found: Findings) -> dict[str, Path]:
    """`table.csv`, `result.json`, `note.md` and, where the extra is installed, `page.html`."""
    out = found.options.out
    out.mkdir(parents=True, exist_ok=True)
    files = {"table": out / "table.csv", "result": out / "result.json", "note": out / "note.md"}
    write_atomic(files["table"], table(found.rows).encode())
    write_atomic(files["result"], (json.dumps(card(found), indent=1, allow_nan=False) + "\n").encode())
    write_atomic(files["note"], note(found).encode())
    try:
        files["page"] = write_experiment(out / "page.html", page(found))
    except MissingExtraError:
        (out / "page.html").unlink(missing_ok=True)  # not one of other numbers
    return files


def table(rows: Sequence[Row]) -> str:
    """All rows as CSV; what is no single number or text is left to the JSON."""
    columns = list(dict.fromkeys(k for r in rows for k, v in r.items() if not isinstance(v, list | tuple)))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def card(found: Findings) -> dict[str, Any]:
    """Everything as plain JSON values."""
    options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(found.options).items()}
    return plain({
        "experiment": found.experiment.name, "question": found.experiment.question, "date": today(),
        "library": __version__, "torch": torch.__version__, "machine": platform.machine(), "options": options,
        "scale": asdict(found.options.scale), "samples": found.samples, "seconds": round(found.seconds, 1),
        "claims": [asdict(c) | {"sentence": c.sentence()} for c in found.claims],
        "remarks": list(found.experiment.remarks(found.rows)), "caveats": caveats(found), "rows": list(found.rows),
    })  # fmt: skip


def note(found: Findings) -> str:
    """The lab note, in Markdown."""
    options, experiment = found.options, found.experiment
    lines = [
        f"# {experiment.title}",
        "",
        f"{today()}, version {__version__}. {_about(found)}",
        "",
        experiment.question,
    ]
    if options.quick:
        lines += ["", "**A quick slice: it shows that everything runs; its verdicts mean nothing.**"]
    lines += ["", "## Does it hold here?", ""]
    for verdict in ("supported", "not supported", "cannot be told"):
        said = [c.sentence() for c in found.claims if c.verdict == verdict]
        lines += [f"**{verdict.capitalize()}** ({len(said)} of {len(found.claims)})", ""] if said else []
        lines += [*(f"- {s}" for s in said), ""] if said else []
    lines += [*(f"- {r}" for r in experiment.remarks(found.rows)), ""]
    lines += ["## Numbers", "", *markdown(summary(found.rows)), ""]
    for sheet in experiment.sheets(found.rows):
        lines += [f"### {sheet.title}", "", *markdown(sheet), "", sheet.note, ""]
    lines += ["## How it was done", "", f"    {options.command or 'from Python'}", "", *_protocol(found), ""]
    lines += ["## How far to trust it", "", *(f"- {c}" for c in caveats(found))]
    return "\n".join(lines) + "\n"


def page(found: Findings) -> Page:
    """The page, as plain data."""
    verdicts = [(c.verdict, c.sentence()) for c in found.claims]
    verdicts += [("by the numbers", r) for r in found.experiment.remarks(found.rows)]
    sheets = [*found.experiment.sheets(found.rows), summary(found.rows)]
    return Page(title=found.experiment.title, about=_about(found), question=found.experiment.question,
                verdicts=verdicts, charts=found.experiment.charts(found.rows), sheets=sheets, caveats=caveats(found),
                command=found.options.command or "Python",
                written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))  # fmt: skip


def summary(rows: Sequence[Row]) -> Sheet:
    """The main columns of every row."""
    lines = [tuple(_text(row.get(c)) for c in COLUMNS) for row in rows]
    missing = "A dash stands for a number that does not exist: zero by structure, below the noise, or refused."
    return Sheet(title="Every cell", heads=COLUMNS, rows=lines, note=missing)


def caveats(found: Findings) -> list[str]:
    """What limits the verdicts, with what this run itself found to be missing."""
    rows, made = found.rows, list(found.experiment.caveats)
    if found.options.quick:
        made.insert(0, "This is a quick slice with hardly trained sources: nothing follows from it.")
    made += [
        f"One pair of data ({found.options.source_task} to {found.options.task}), small sources, one recipe a method, "
        f"kernels of {found.samples} samples; intervals are over designs, seeds are medians.",
        f"{len(found.claims)} claims were tried without a correction for it.",
    ]
    if found.shared:
        made.append(f"Source and target share {found.shared} class names, so this is a near transfer; vp reads source "
                    f"class "
                    "t as target class t, which fits from the start.")  # fmt: skip
    made += [f"{n} of {len(rows)} cells: {name} failed, for example: {example}" for name, n, example in _failures(rows)]
    for score in ("source_lambda_min", "program_lambda_min"):
        missing = counts(rows, score).get(None, 0)
        made += [f"The {SCORES[score]} does not exist in {missing} of {len(rows)} cells."] if missing else []
    weak = [m for m in values(rows, "method") if _poor(of(rows, method=m), len(found.task.classes))]
    made += [f"With {m} hardly any source gets far above chance, so its order is one of poor programs." for m in weak]
    return made


def _failures(rows: Sequence[Row]) -> list[tuple[str, int, str]]:
    kinds = {"kernel_error": "the kernel", "fit_error": "the fit"}
    found = [(name, [r[k] for r in rows if r.get(k)]) for k, name in kinds.items()]
    return [(name, len(texts), texts[0]) for name, texts in found if texts]


def _poor(rows: Sequence[Row], classes: int) -> bool:
    """Whether half of the sources stay below 1.5 times chance."""
    reached = sorted(r["accuracy"] for r in rows if r.get("accuracy") is not None)
    return bool(reached) and reached[len(reached) // 2] < 1.5 / classes


def _about(found: Findings) -> str:
    seeds = len(values(found.rows, "seed"))
    designs = len(values(found.rows, "design"))
    return (f"{found.options.source_task} to {found.options.task}: {designs} designs, {seeds} seeds, methods "
            f"{', '.join(values(found.rows, 'method'))}, {len(found.rows)} cells.")  # fmt: skip


def _protocol(found: Findings) -> list[str]:
    scale, options = found.options.scale, found.options
    made = [f"Sources trained on {scale.training.images} images of {options.source_task} for {scale.training.epochs} "
            f"epochs "
            f"(Adam, {scale.training.rate:g})."]  # fmt: skip
    if options.sources:
        made = [f"Ready-made sources: {', '.join(options.sources)}."]
    made += [f"Target {found.task!r}.", f"Kernels at the start, on {found.samples} samples of train, the same for all "
             "sources of a seed. Every program is fitted with the same recipe:"]  # fmt: skip
    canvas = found.task.spec.sample.shape[-1]
    sizes: Mapping[str, object] = {m: settings(m, max(canvas, 28), options.rounds) for m in options.methods}
    return [*made, *(f"- {m}: {how}" for m, how in sizes.items()),
            f"Torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; this run took "
            f"{found.seconds:.0f} s beyond what was there already."]  # fmt: skip


def markdown(sheet: Sheet) -> list[str]:
    """A table, line by line."""
    rule = ["---", *["---:"] * (len(sheet.heads) - 1)]
    return [
        "| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |"
        for row in (sheet.heads, rule, *sheet.rows)
    ]


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def today() -> str:
    """The date of a note, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")
