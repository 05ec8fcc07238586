"""Several results side by side: a plain-text table, and a page with bars and curves."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from reprogram.fit import FitResult
from reprogram.report import facts, figures, page
from reprogram.report.controls import Control
from reprogram.report.figures import Bar, Figure, Line
from reprogram.report.verdict import compare, points, scored
from reprogram.report.words import interval, percent, thing
from reprogram.tasks import Task

HEADINGS = ("method", "test accuracy", "95 % interval", "learned", "effective", "fitted", "seconds")


class Entry(NamedTuple):
    """A line of the comparison page."""

    name: str
    link: str
    accuracy: str
    interval: str
    difference: str
    learned: str
    effective: str
    fitted: str
    size: str
    seconds: str
    control: bool
    best: bool


def comparison_table(rows: Mapping[str, FitResult | Control] | Iterable[FitResult | Control]) -> str:
    """Results and controls as a Markdown table that also reads well as plain text, in the order given.

    Args:
        rows: results by name, or without names: a result is then called after its method.

    Returns:
        Lines with test accuracy and its 95 % interval, learned numbers (allocated, effective), numbers fitted without
        gradients, and seconds; without a newline at the end.
    """
    lines = [_cells(row) for row in named(rows)]
    widths = [max(len(line[i]) for line in (HEADINGS, *lines)) for i in range(len(HEADINGS))]
    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(_line(line, widths) for line in (HEADINGS, rule, *lines))


def write_comparison(
    results: Mapping[str, FitResult] | Sequence[FitResult],
    task: Task,
    path: str | os.PathLike[str],
    *,
    controls: Sequence[Control] = (),
    links: Mapping[str, str | os.PathLike[str]] | None = None,
    title: str | None = None,
) -> Path:
    """Write one HTML page that compares the programs of a run: table, bars, validation curves over each other.

    Args:
        results: by name, or without names: they are then called after their methods.
        task: that all of them were fitted on.
        path: the file; its folder is made if need be.
        controls: of any of them; programs and controls are sorted together.
        links: each program's own report, by its name. None takes the HTML file beside the program's where there is one.
        title: instead of the task's name.

    Raises:
        MissingExtraError: plotly or jinja2 is not installed.
        ConfigError: the file cannot be written.
    """
    given = _by_name(results)
    split = "test" if len(task.test) else "validation"
    more = {c.name: c for c in controls if not {c.name, c.name.replace(" ", "_")} & given.keys()}
    rows = sorted(named({**given, **more}), key=_rank(split))
    found = _links(given, links, Path(path).parent)
    context = {
        "title": title or f"{task.name}: {len(given)} programs compared",
        "task": task,
        "split": split,
        "entries": [_entry(row, given, split, rows, found.get(row.name, "")) for row in rows],
        "thing": thing(task),
        "sentence": _sentence(rows, given, split, thing(task)),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return page.write(path, "comparison.html.j2", context, _charts(rows, given, split, thing(task)))


def named(rows: Mapping[str, FitResult | Control] | Iterable[FitResult | Control]) -> list[Control]:
    """Results and controls as rows of one kind; a name that comes twice gets a number."""
    if isinstance(rows, Mapping):
        return [_as_row(str(name), row) for name, row in rows.items()]
    counts: dict[str, int] = {}
    made: list[Control] = []
    for row in rows:
        name = row.name if isinstance(row, Control) else _method(row)
        counts[name] = counts.get(name, 0) + 1
        made.append(_as_row(name if counts[name] == 1 else f"{name} ({counts[name]})", row))
    return made


def _by_name(results: Mapping[str, FitResult] | Sequence[FitResult]) -> dict[str, FitResult]:
    if isinstance(results, Mapping):
        return {str(name): result for name, result in results.items()}
    return {row.name: result for row, result in zip(named(results), results, strict=True)}


def _method(result: FitResult) -> str:
    return result.program.origin.method if result.program.origin else "by hand"


def _as_row(name: str, row: FitResult | Control) -> Control:
    description = row.description if isinstance(row, Control) else ""
    size = row.parameters if isinstance(row, Control) else row.program.count()
    return Control(name=name, description=description, test=row.test, validation=row.validation, parameters=size,
                   seconds=row.seconds)  # fmt: skip


# -- plain text --------------------------------------------------------------------------------------------------------


def _cells(row: Control) -> tuple[str, ...]:
    low, high = row.test.interval() if row.test else (0.0, 0.0)
    size = row.parameters
    return (
        " ".join(row.name.split()).replace("|", "\\|"),
        percent(row.test.accuracy) if row.test else "–",
        f"{100 * low:.1f} – {100 * high:.1f}" if row.test else "–",
        f"{size.allocated:,}",
        f"{size.effective:,}",
        f"{size.fitted:,}",
        f"{row.seconds:.1f}",
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"


# -- the page ----------------------------------------------------------------------------------------------------------


def _rank(split: str) -> Any:
    """Sort key: the best first, those without a score last."""

    def key(row: Control) -> float:
        metrics = scored(row, split)
        return -metrics.accuracy if metrics else 1.0

    return key


def _entry(
    row: Control, given: Mapping[str, FitResult], split: str, rows: Sequence[Control], link: str
) -> Entry:  # fmt: skip
    metrics, top = scored(row, split), scored(rows[0], split)
    low, high = metrics.interval() if metrics else (0.0, 0.0)
    gap = f"{points(metrics, top):.1f}".replace("-", "−") if metrics and top and row is not rows[0] else "–"
    result, size = given.get(row.name), row.parameters
    return Entry(
        name=row.name,
        link=link,
        accuracy=percent(metrics.accuracy) if metrics else "–",
        interval=f"{100 * low:.1f} – {100 * high:.1f}" if metrics else "–",
        difference=gap,
        learned=f"{size.allocated:,}",
        effective=f"{size.effective:,}",
        fitted=f"{size.fitted:,}",
        size=facts.data_size(facts.program_bytes(result)) if result else "–",
        seconds=facts.duration(row.seconds),
        control=not _is_program(row, given),
        best=row is rows[0] and metrics is not None,
    )


def _is_program(row: Control, given: Mapping[str, FitResult]) -> bool:
    """Not a control: a result whose input is manipulated."""
    return row.name in given and any(edit.operators for edit in given[row.name].program.input)


def _sentence(rows: Sequence[Control], given: Mapping[str, FitResult], split: str, thing: str) -> str:
    """Who is best, and from whom it can be told apart."""
    there = [(row, m) for row in rows if (m := scored(row, split)) is not None]
    if not there:
        return "Nothing has been scored: the task has neither a test nor a validation split."
    (best, top), rest = there[0], there[1:]
    kind = "program" if _is_program(best, given) else "control"
    reading = f"{percent(top.accuracy)} ({interval(top)})"
    text = f"Highest on {len(top):,} {split} {thing}s is the {kind} {best.name}: {reading}."
    if kind == "control":
        text += " No program scores higher."
    close = [row.name for row, m in rest if compare(top, m) == "close"]
    if not rest:
        return text
    if not close:
        return f"{text} No other interval overlaps with that."
    return f"{text} {_overlap(close)}, so this split does not settle which is better."


def _overlap(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"The interval of {names[0]} overlaps with that"
    return f"The intervals of {', '.join(names[:-1])} and {names[-1]} overlap with that"


def _charts(rows: Sequence[Control], given: Mapping[str, FitResult], split: str, thing: str) -> dict[str, Figure]:
    bars = [Bar(r.name, m.accuracy, *m.interval(), _is_program(r, given)) for r in rows if (m := scored(r, split))]
    charts = {"bars": figures.bars(bars)} if bars else {}
    for name, key, heading in (
        ("accuracy", "val_accuracy", "Validation accuracy"),
        ("loss", "loss", f"Loss on training {thing}s"),
    ):
        curves = [_curve(n, r, key) for n, r in given.items() if any("loss" in row for row in r.history)]
        curves = [curve for curve in curves if curve.epochs]
        if curves:
            charts[name] = figures.lines(curves, heading, share=key != "loss")
    return charts


def _curve(name: str, result: FitResult, key: str) -> Line:
    rows = [row for row in result.history if key in row]
    return Line(name, [row["epoch"] + 1 for row in rows], [row[key] for row in rows])


def _links(
    given: Mapping[str, FitResult], links: Mapping[str, str | os.PathLike[str]] | None, folder: Path
) -> dict[str, str]:
    """Relative, quoted addresses of reports that are there."""
    if links is None:
        beside = {name: r.out.with_suffix(".html") for name, r in given.items() if r.out is not None}
        links = {name: report for name, report in beside.items() if report.is_file()}
    return {name: _address(Path(report), folder) for name, report in links.items()}


def _address(report: Path, folder: Path) -> str:
    try:
        relative = os.path.relpath(report, folder)
    except ValueError:  # another drive
        return report.resolve().as_uri()
    return quote("./" + Path(relative).as_posix())
