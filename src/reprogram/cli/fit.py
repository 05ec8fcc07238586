"""`reprogram fit`."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reprogram.cli._run import Json, emit, note, pairs, quiet, tell, warn

if TYPE_CHECKING:
    from reprogram.cli._config import RunConfig
    from reprogram.core.program import Program
    from reprogram.fit import FitOptions, FitResult
    from reprogram.report import Control
    from reprogram.tasks import Task

NOT_SETTINGS = ("config", "set_", "resume", "dry_run", "find_rate", "json")
"""Options that say how this command runs; all others are keys of a `--config` file, and None if not given."""

What = "What to fit"
Data = "The task's data"
How = "How to run"


def fit(
    *,
    source: Annotated[
        str | None,
        typer.Option("--source", "-s", metavar="REF", help="The frozen model; see `sources`.", rich_help_panel=What),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", metavar="REF|PATH", help="bundled/..., a folder, zip or table of "
                     "pictures, or a table of texts.",
                     rich_help_panel=What),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", metavar="NAME", help="The recipe; see `methods`.", rich_help_panel=What),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="The program file to write, *.safetensors.",
                     rich_help_panel=What),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="paper, cpu, ...; auto, the default, is cpu on machines without a GPU.",
                     rich_help_panel=What),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method (`methods NAME` lists them), again "
                     "and again. Wins over the preset.", rich_help_panel=What),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="YAML with these options as keys (source, task, ..., "
                     "few_shot, set). The command line wins.", rich_help_panel=What),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of the order, the few shots and all else random; not of the splits; 0 by default.",
                     rich_help_panel=What),
    ] = None,
    few_shot: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Train on K examples of each class.", rich_help_panel=Data)
    ] = None,
    limit_train: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Train on N examples at most.", rich_help_panel=Data)
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, metavar="PX", help="Scale pictures to PX x PX.", rich_help_panel=Data)
    ] = None,
    skip_unreadable: Annotated[
        bool | None,
        typer.Option("--skip-unreadable", help="Leave damaged files out, with a warning.", rich_help_panel=Data),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.", rich_help_panel=How)
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; by default a GPU if there is one.", rich_help_panel=How)
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option(help="Of the source's passes; fp32 by default.", rich_help_panel=How),
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile", help="Use torch.compile.", rich_help_panel=How)] = None,
    tensorboard: Annotated[
        bool | None,
        typer.Option("--tensorboard", help="Write TensorBoard files into the run folder.", rich_help_panel=How),
    ] = None,
    track_test: Annotated[
        bool | None,
        typer.Option("--track-test", help="Log test accuracy every epoch; never used to choose.", rich_help_panel=How),
    ] = None,
    controls: Annotated[
        Literal["none", "standard", "full"] | None,
        typer.Option(help="What to compare with; full also fits on random weights; standard by default.",
                     rich_help_panel=How),
    ] = None,
    report: Annotated[
        bool | None,
        typer.Option("--report/--no-report", help="Write an HTML report beside the program, as by default.",
                     rich_help_panel=How),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the plan: data, settings, time, memory.", rich_help_panel=How)
    ] = False,
    find_rate: Annotated[
        bool,
        typer.Option("--find-rate", help="Only try learning rates on some steps, and suggest one.",
                     rich_help_panel=How),
    ] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Fit a program to a task and write it to a file.

    Controls are fitted on the same data and shown beside it.

    Example: `reprogram fit -s bundled/efficientnet-lite0 -t ./my_images -m blm -o my.safetensors`
    """
    given = {name: value for name, value in locals().items() if name not in NOT_SETTINGS and value is not None}
    from reprogram.cli._config import settle
    from reprogram.fit import FitOptions

    if find_rate and config is None:
        given.setdefault("out", "none.safetensors")  # nothing is written
    chosen = settle(config, given, set_ or ())
    options = FitOptions(
        device=chosen.device, precision=chosen.precision, compile=chosen.compile, tensorboard=chosen.tensorboard,
        track_test=chosen.track_test, progress=not quiet(),
    )  # fmt: skip
    options.place()
    program, data = _build(chosen)
    if dry_run:
        _show_plan(program, data, chosen, options, json)
    elif find_rate:
        _find_rate(program, data, chosen, options, json)
    else:
        _fit(program, data, chosen, options, resume, json)


def _build(config: "RunConfig") -> "tuple[Program, Task]":
    """What is quick to check comes first."""
    from reprogram.catalogue import build, find, make_config
    from reprogram.core.errors import ConfigError, say
    from reprogram.sources import load_source
    from reprogram.tasks import load_task

    make_config(find(config.method), config.set, preset=config.preset)
    if Path(config.out).suffix != ".safetensors":
        raise ConfigError(
            say("out", "must end in .safetensors", config.out, f"Try {Path(config.out).stem}.safetensors.")
        )
    bad = "skip" if config.skip_unreadable else "raise"
    task = load_task(config.task, size=config.size, on_error=bad)
    if config.few_shot is not None:
        task = task.few_shot(config.few_shot, config.seed)
    task = task.limit(train=config.limit_train, seed=config.seed)
    source = load_source(config.source)
    return build(config.method, source, task, preset=config.preset, seed=config.seed, **config.set), task


def _show_plan(program: "Program", task: "Task", config: "RunConfig", options: "FitOptions", json: bool) -> None:
    from reprogram.cli._plan import lines, plan

    settings = asdict(program.origin.config) if program.origin else {}  # pyright: ignore[reportArgumentType]
    found = plan(program, task, config, settings, options)
    if json:
        emit(found)
        return
    tell(pairs(lines(found)))
    tell("\nSettings")
    tell(pairs({f"  {k}": v for k, v in found["settings"].items()}))


def _find_rate(program: "Program", task: "Task", config: "RunConfig", options: "FitOptions", json: bool) -> None:
    from reprogram.cli._plot import curve
    from reprogram.fit import find_rate

    place = options.place()
    program.source.to(place)
    note("Trying learning rates ...")
    found = find_rate(program.to(place), task, seed=config.seed)
    now = program.origin.recipe.lr if program.origin else None
    if json:
        emit({"suggestion": found.suggestion, "recipe": now, "rates": found.rates, "losses": found.losses})
        return
    tell(curve(found.rates, found.losses, found.suggestion))
    tell()
    tell(pairs({"suggestion": f"{found.suggestion:.2g}  (--set lr={found.suggestion:.2g})", "recipe": now}))


def _fit(
    program: "Program", task: "Task", config: "RunConfig", options: "FitOptions", resume: bool, json: bool
) -> None:
    from reprogram.fit import fit

    written = _write_config(program, config, resume)
    try:
        result = fit(program, task, seed=config.seed, out=config.out, resume=resume, options=options)
    except KeyboardInterrupt:
        if (written.parent / "checkpoint.safetensors").exists():
            note(f"There is a checkpoint. Go on with: reprogram fit --config {_quoted(written)} --resume")
        raise
    rows = _controls(result, task, config)
    report = _report(result, task, config, rows)
    if json:
        emit(_facts(result, rows, config, report, written))
    else:
        _tell(result, task, rows, config, (report, written))


def _write_config(program: "Program", config: "RunConfig", resume: bool) -> Path:
    """The settings in the run folder, so that the fit can be repeated; a run that is resumed has them already."""
    from reprogram.cli._config import text_of
    from reprogram.fit.workspace import Workspace
    from reprogram.store import write_atomic

    with Workspace(config.out) as place:  # nobody else is fitting there
        path = place.folder / "config.yaml"
        if place.checkpoint.exists() and not resume and not Path(config.out).exists():
            note(f"Starting anew; what was in {place.folder} is replaced (--resume goes on from it).")
        if not (resume and path.exists()):
            write_atomic(path, text_of(config, program.origin.config if program.origin else None).encode())
    return path


def _controls(result: "FitResult", task: "Task", config: "RunConfig") -> "list[Control]":
    if config.controls == "none":
        return []
    from reprogram.report import controls

    note("Fitting the controls ...")
    rows = controls(result, task, full=config.controls == "full", seed=config.seed)
    for one in rows:
        if one.test is None and result.test is not None:
            warn(f"{one.name}: {one.description}")
    return rows


def _report(result: "FitResult", task: "Task", config: "RunConfig", rows: "list[Control]") -> Path | None:
    if not config.report:
        return None
    from reprogram.core.errors import MissingExtraError
    from reprogram.fit import run_folder
    from reprogram.report import write_report

    path = Path(config.out).with_suffix(".html")
    command = f"reprogram fit --config {_quoted(run_folder(config.out) / 'config.yaml')}"
    try:
        write_report(result, task, path, controls=rows, command=command)
    except MissingExtraError as problem:
        warn(f"No report: {problem}")
        return None
    return path


def _facts(
    result: "FitResult", rows: "list[Control]", config: "RunConfig", report: Path | None, written: Path
) -> dict[str, Any]:
    from reprogram.cli._numbers import numbers

    return {
        "program": config.out,
        "report": report and str(report),
        "config": str(written),
        "method": config.method,
        **numbers(result.test, result.program.count(), result.seconds),
        "metrics": result.card(),
        "controls": {c.name: numbers(c.test, c.parameters, c.seconds) for c in rows},
    }


def _use(task: "Task", program: "Program") -> str:
    from reprogram.core.program import Answering

    if task.spec.generates and not isinstance(program.output, Answering):
        return "generate OUT TEXT..."
    return "predict OUT TEXT..." if task.spec.modality == "text" else "predict OUT PICTURE..."


def _server(result: "FitResult") -> dict[str, object]:
    """What was asked of a server, for sources behind one."""
    from reprogram.sources import EndpointImageSource, EndpointSource
    from reprogram.sources.endpoint_limits import spent

    source = result.program.source
    return {"server": spent(source.usage)} if isinstance(source, EndpointImageSource | EndpointSource) else {}


def _tell(
    result: "FitResult", task: "Task", rows: "list[Control]", config: "RunConfig", files: tuple[Path | None, Path]
) -> None:
    report, written = files
    from reprogram.report import comparison_table

    tell(comparison_table([result, *rows]))
    tell()
    tell(pairs({"program": config.out, "report": report, "run": written.parent} | _server(result)))
    if not quiet():
        tell("\nNext:")
        out = _quoted(config.out)
        tell(f"  reprogram {_use(task, result.program)}".replace("OUT", out))
        tell(f"  reprogram show {out}")
        if report is None:
            page = Path(config.out).with_suffix(".html")
            tell(f"  reprogram report {out} --task {_quoted(config.task)} --out {_quoted(page)}")


def _quoted(path: str | Path) -> str:
    return shlex.quote(str(path))
