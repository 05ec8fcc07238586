"""`reprogram rank`."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reprogram.cli._open import Device, TaskRef
from reprogram.cli._run import Json, clean, emit, note, tell, to_json, warn

if TYPE_CHECKING:
    from rich.table import Table

    from reprogram.rank.ranking import Ranking

COLUMNS = (
    "probe_accuracy", "source_lambda_min", "program_lambda_min", "program_rank", "gf_loss", "leep", "logme", "knn",
)  # fmt: skip
"""Scores in the terminal's table; the files have all."""

SHORT = {
    "probe_accuracy": "probe", "source_lambda_min": "λ source", "program_lambda_min": "λ prog.",
    "program_rank": "rank", "gf_loss": "gf loss", "leep": "LEEP", "logme": "LogME", "knn": "kNN",
}  # fmt: skip

What = "What to rank"
How = "How to measure"


def rank(
    *,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]...", help="Further sources.", rich_help_panel=What)
    ] = None,
    sources: Annotated[
        list[str],
        typer.Option("--sources", "-s", metavar="REF...", help="Sources: again and again, with commas, or as a list.",
                     rich_help_panel=What),
    ],
    task: TaskRef,
    method: Annotated[
        str, typer.Option("--method", "-m", metavar="NAME", help="What they shall be reprogrammed with.",
                          rich_help_panel=What)
    ] = "vp",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="For ranking.json, .csv and .html, and for finished parts: "
                     "the same command again goes on from them.", rich_help_panel=What),
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Also reprogram every source in full, and compare.", rich_help_panel=How)
    ] = False,
    twins: Annotated[
        bool, typer.Option("--twins", help="Also rank each source with random weights, a control.", rich_help_panel=How)
    ] = False,
    n: Annotated[
        int, typer.Option("--n", min=2, help="Inputs for the scores and the diagnosis.", rich_help_panel=How)
    ] = 100,
    source_n: Annotated[
        int, typer.Option(min=0, help="Of these, for the source's own kernel.", rich_help_panel=How)
    ] = 20,
    probe_epochs: Annotated[int, typer.Option(min=1, help="Passes of the short probe.", rich_help_panel=How)] = 3,
    probe_samples: Annotated[int, typer.Option(min=2, help="Inputs of the probe.", rich_help_panel=How)] = 500,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes of the full fits; by default the recipe's.", rich_help_panel=How)
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="0,1,...", help="Of the full fits.", rich_help_panel=How)
    ] = "0",
    seed: Annotated[
        int, typer.Option(min=0, help="Of the sample, the probe and the random weights.", rich_help_panel=How)
    ] = 0,
    limit_train: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Train on N examples at most.", rich_help_panel=How)
    ] = None,
    limit_test: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Test on N examples at most.", rich_help_panel=How)
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, metavar="PX", help="Scale pictures to PX x PX.", rich_help_panel=How)
    ] = None,
    preset: Annotated[str, typer.Option(help="Of the method: paper, cpu, auto, ...", rich_help_panel=How)] = "auto",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method, again and again.",
                     rich_help_panel=How),
    ] = None,
    device: Device = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Rank sources by how well they can be expected to reprogram to a task, before fitting any of them in full.

    Example: `reprogram rank --sources bundled/efficientnet-lite0 timm/resnet18 --task bundled/mnist5k --method blm`
    """
    from reprogram.cli._config import parse
    from reprogram.rank.options import RankOptions
    from reprogram.rank.ranking import rank as measure
    from reprogram.tasks import load_task

    options = RankOptions(
        n=n, source_n=source_n, probe_epochs=probe_epochs, probe_samples=probe_samples, validate=validate,
        validate_epochs=epochs, seeds=_numbers(seeds), twins=twins, preset=preset, config=parse(set_ or ()), out=out,
        seed=seed, device=device, progress=note,
    )  # fmt: skip
    data = load_task(task, size=size).limit(train=limit_train, test=limit_test, seed=seed)
    found = measure(_split([*sources, *(more or ())]), data, method=method, options=options)
    files = _write(found, out)
    if json:
        emit(found.card() | {"files": files})
    else:
        _tell(found, files)


def _split(given: Sequence[str]) -> list[str]:
    """Sources from options, arguments and comma-separated lists, each once."""
    return list(dict.fromkeys(one.strip() for text in given for one in text.split(",") if one.strip()))


def _numbers(text: str) -> tuple[int, ...]:
    from reprogram.core.errors import ConfigError, say

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(say("seeds", "must be whole numbers with commas between", text, "Try 0,1,2.")) from None


def _write(found: "Ranking", out: Path | None) -> list[str]:
    """The ranking as JSON, as a table, and as a page if its extra is there."""
    if out is None:
        return []
    from reprogram.core.errors import MissingExtraError
    from reprogram.report.ranking import write_ranking
    from reprogram.store import write_atomic

    write_atomic(out / "ranking.json", (to_json(found.card(), indent=2) + "\n").encode())
    write_atomic(out / "ranking.csv", _csv(found).encode())
    files = [out / "ranking.json", out / "ranking.csv"]
    try:
        files.append(write_ranking(found.card(), out / "ranking.html"))
    except MissingExtraError as problem:
        warn(f"No page: {problem}")
    return [str(path) for path in files]


def _csv(found: "Ranking") -> str:
    rows = found.table()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    costs: Mapping[str, Any] = found.costs()
    writer.writerow({"source": "seconds"} | {name: costs[name] for name in rows[0] if name in costs})
    return text.getvalue()


def _tell(found: "Ranking", files: Sequence[str]) -> None:
    for warning in found.warnings:
        warn(warning)
    tell(_scores(found))
    tell(f"\n{_shortened(found)}")
    for pool, rows in found.agreement.items():
        tell(f"\nAgreement with the accuracy reached, {pool} (90 % interval over sources)")
        tell(_agreement([one.card() for one in rows]))
    for path in files:
        tell(path)


def _shortened(found: "Ranking") -> str:
    """The reason, with the sources' names as short as in the table."""
    from reprogram.report.figures import brief

    reason = found.reason
    for name in sorted(found.order, key=len, reverse=True):
        reason = reason.replace(name, brief(name))
    return reason


def _scores(found: "Ranking") -> "Table":
    """A line a source, the best of each column bold, and what the columns cost."""
    from rich.text import Text

    from reprogram.report.figures import brief
    from reprogram.report.ranking import number

    rows = found.table()
    shown = [name for name in COLUMNS if name in rows[0]]
    best = {name: _best(name, rows) for name in shown}
    table = _table(["", "source", *(["actual"] if "actual" in rows[0] else []), *(SHORT[name] for name in shown)])
    for row in rows:
        cells = [Text(str(row["place"] or "–")), Text(clean(brief(row["source"])))]
        if "actual" in row:
            cells.append(Text(number("knn", row["actual"])))
        for name in shown:
            bold = row[name] is not None and row[name] == best[name]
            cells.append(Text(number(name, row[name]), style="bold" if bold else ""))
        table.add_row(*cells)
    costs = found.costs()
    blank = [""] if "actual" in rows[0] else []
    table.add_row("", "seconds a source", *blank, *(f"{costs.get(name, 0):.2g}" for name in shown), style="dim")
    return table


def _best(name: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
    from reprogram.rank.names import SCORES

    values = [row[name] for row in rows if row[name] is not None]
    if len(set(values)) < 2:
        return None
    return max(values) if SCORES[name].higher else min(values)


def _agreement(rows: Sequence[Mapping[str, Any]]) -> "Table":
    from reprogram.rank.names import label

    table = _table(["score", "n", "Kendall", "weighted", "Spearman", "regret"])
    for row in rows:
        if not row["sources"]:
            continue
        cells = [_measure(row, name) for name in ("kendall", "weighted", "spearman")]
        lost = "–" if row["regret"] is None else f"{100 * row['regret']:.1f}"
        style = "bold" if row["score"] == "recommended" else ""
        table.add_row(label(row["score"]), str(row["sources"]), *cells, lost, style=style)
    return table


def _measure(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return "–"
    ends = row["intervals"].get(name)
    return f"{row[name]:+.2f}" + (f" [{ends[0]:+.2f}, {ends[1]:+.2f}]" if ends else "")


def _table(headers: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        left = header in ("source", "score")
        table.add_column(header, justify="left" if left else "right", overflow="fold")
    return table
