"""`reprogram search`."""

import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reprogram.cli._open import Device, TaskRef, check_out
from reprogram.cli._run import Json, console, emit, grid, note, one_line, pairs, quiet, tell, warn

if TYPE_CHECKING:
    from reprogram.search import SearchResult, Trial
    from reprogram.search.options import Heard

What = "What to search"
How = "How to search"
SHOWN = 12
"""Trials in the terminal's table; the files have all."""


def search(
    *,
    method: Annotated[
        str, typer.Option("--method", "-m", metavar="NAME", help="Whose settings; see `methods`.", rich_help_panel=What)
    ],
    sources: Annotated[
        list[str],
        typer.Option("--source", "-s", metavar="REF", help="The frozen model; several, again and again, are searched "
                     "as well.", rich_help_panel=What),
    ],
    task: TaskRef,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The winner's program file, *.safetensors. Trials are kept "
                     "beside it: the same command again goes on from them.", rich_help_panel=What),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option("--space", metavar="NAME=VALUES", help="What to try of a setting: recipe.lr=1e-4:1e-1:log or "
                     "width=16,30,56, again and again.", rich_help_panel=What),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting that is the same in all trials, again and again.",
                     rich_help_panel=What),
    ] = None,
    preset: Annotated[str, typer.Option(help="Of the method: paper, cpu, auto, ...", rich_help_panel=What)] = "auto",
    trials: Annotated[int, typer.Option(min=1, help="In all, earlier runs included.", rich_help_panel=How)] = 50,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="This run may take; what is under way is cut off.",
                                   rich_help_panel=How)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="Where trials are kept; by default in the run folder beside --out.",
                     rich_help_panel=How),
    ] = None,
    pruner: Annotated[
        Literal["hyperband", "median", "none"],
        typer.Option(help="Ends trials that fall behind on validation.", rich_help_panel=How),
    ] = "hyperband",
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.", rich_help_panel=How)] = 0,
    few_shot: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Train on K examples of each class.", rich_help_panel=How)
    ] = None,
    limit_train: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Train on N examples at most.", rich_help_panel=How)
    ] = None,
    limit_val: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Validate on N examples at most.", rich_help_panel=How)
    ] = None,
    limit_test: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Test on N examples at most.", rich_help_panel=How)
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, metavar="PX", help="Scale pictures to PX x PX.", rich_help_panel=How)
    ] = None,
    device: Device = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Search a method's settings, and sources, for the best validation accuracy.

    Test is scored once, for the winner, whose program is written to --out.

    Example: `reprogram search -m autovp -s bundled/efficientnet-lite0 -t bundled/digits -o best.safetensors`
    """
    if out is not None:
        check_out(out)
    from reprogram.cli._config import parse
    from reprogram.search import SearchOptions
    from reprogram.search import search as find
    from reprogram.tasks import load_task

    stated, pinned = _axes(space or ()), parse(set_ or ())
    data = load_task(task, size=size)
    if few_shot is not None:
        data = data.few_shot(few_shot, seed)
    data = data.limit(train=limit_train, val=limit_val, test=limit_test, seed=seed)
    with _shown(trials) as heard:
        options = SearchOptions(
            space=stated, pinned=pinned, trials=trials, seconds=seconds, storage=storage, seed=seed, pruner=pruner,
            preset=preset, out=out, device=device, heard=heard,
        )  # fmt: skip
        try:
            found = find(method, sources, data, options)
        except KeyboardInterrupt:
            if out is not None or storage is not None:
                note("What is finished is kept: the same command goes on.")
            raise
    files = _write(found, out, shlex.join(["reprogram", *sys.argv[1:]]))
    if json:
        emit(found.card() | {"files": {name: str(path) for name, path in files.items()}})
    else:
        _tell(found, files)


def _axes(given: "list[str] | tuple[str, ...]") -> dict[str, str]:
    """`--space` values by setting.

    >>> _axes(["recipe.lr=1e-4:1e-1:log", "width=16,30"])
    {'recipe.lr': '1e-4:1e-1:log', 'width': '16,30'}
    """
    from reprogram.core.errors import ConfigError, say

    found: dict[str, str] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip() or not text.strip():
            raise ConfigError(say("space", "must be name=values", pair, "For example --space recipe.lr=1e-4:1e-1:log."))
        found[name.strip()] = text.strip()
    return found


@contextmanager
def _shown(total: int) -> "Generator[Heard]":
    """A bar on a terminal, else a line a trial."""
    screen = console(stderr=True)
    if quiet() or not screen.is_terminal:
        yield lambda trial, done, of: note(_line(trial, done, of))
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen) as bar:
        shown = bar.add_task("trials", total=total)

        def heard(trial: "Trial", done: int, of: int) -> None:
            bar.update(shown, completed=done)
            bar.console.print(one_line(_line(trial, done, of)), style="dim", soft_wrap=True)

        yield heard


def _line(trial: "Trial", done: int, of: int) -> str:
    reached = "" if trial.accuracy is None else f" {trial.accuracy:.1%}"
    settings = ", ".join(f"{k}={_short(v)}" for k, v in trial.settings.items())
    why = f": {trial.reason}" if trial.reason else ""
    return f"{done}/{of} trial {trial.number} {trial.state}{reached} ({settings}){why}"


def _write(found: "SearchResult", out: Path | None, command: str) -> dict[str, Path]:
    from reprogram.search.page import write_files, write_search

    files: dict[str, Path] = {}
    if out is not None:
        files["program"] = out
        page = write_search(found, out.with_suffix(".html"), command=command)
        if page is None:
            warn('No page: it needs the extra "report".')
        else:
            files["page"] = page
    folder = found.folder or (None if out is None else out.with_suffix(".run"))
    return files | (write_files(found, folder) if folder is not None else {})


def _tell(found: "SearchResult", files: dict[str, Path]) -> None:
    names = list(found.space)
    heads = ["trial", "val", *names, "learned", "s"]
    rows = [
        [t.number, "–" if t.accuracy is None else f"{t.accuracy:.1%}",
         *(_short(t.source if n == "source" else t.settings.get(n)) for n in names), f"{t.learned or 0:,}",
         f"{t.seconds:.0f}"]
        for t in found.trials[:SHOWN] if t.state == "complete"
    ]  # fmt: skip
    tell(grid(heads, rows, right=("val", "learned", "s")))
    others = ", ".join(f"{found.count(s)} {s}" for s in ("complete", "pruned", "failed", "cut") if found.count(s))
    tell(f"\n{len(found.trials)} trials: {others}")
    for reason in list(dict.fromkeys(t.reason for t in found.trials if t.reason))[:3]:
        warn(reason)
    facts: dict[str, Any] = {
        "winner": f"trial {found.best.number}, {found.best.source}",
        **{f"  {name}": _short(value) for name, value in found.best.settings.items()},
        "validation": _accuracy(found.validation),
        "test": None if found.test is None else _accuracy(found.test),
        "importance": ", ".join(f"{name} {share:.0%}" for name, share in found.importance.items()),
        **files,
    }
    tell(pairs(facts))


def _accuracy(metrics: Any) -> str:
    low, high = metrics.interval()
    return f"{metrics.accuracy:.1%} ({low:.1%} to {high:.1%})"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
