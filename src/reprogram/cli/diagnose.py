"""`reprogram diagnose`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reprogram.cli._open import Device, TaskRef, open_program, open_task
from reprogram.cli._run import Json, clean, emit, note, pairs, tell, warn

if TYPE_CHECKING:
    from rich.table import Table

    from reprogram.core.program import Program
    from reprogram.core.source import Source
    from reprogram.ntk import Diagnosis, Reading
    from reprogram.tasks import Task


def diagnose(
    *,
    task: TaskRef,
    source: Annotated[
        str | None, typer.Option("--source", "-s", metavar="REF", help="The frozen model; see `sources`.")
    ] = None,
    program: Annotated[
        Path | None, typer.Option("--program", metavar="FILE", help="A fitted program instead of source and method.")
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", metavar="NAME", help="What would be fitted.")] = "vp",
    samples: Annotated[int, typer.Option("--samples", "-n", min=2, help="Training examples to look at.")] = 100,
    source_samples: Annotated[
        int, typer.Option(min=0, help="How many of them for the source's own kernel; 0 for none.")
    ] = 10,
    sketch: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also sketch the program's kernel on N training examples.")
    ] = 0,
    follow: Annotated[int, typer.Option(min=0, help="Steps of real training to set beside the predicted curve.")] = 10,
    preset: Annotated[str, typer.Option(help="Of the method: paper, cpu, ..., or auto.")] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method, repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample and of random starts.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The HTML report; diagnosis.html by default.")
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the HTML report.")] = True,
    brief: Annotated[bool, typer.Option("--brief", help="Figures without the sentences on what they mean.")] = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Say before any training how well a source will reprogram to a task.

    Eigenvalues of the neural tangent kernels of source and program, with what they predict and how far to trust it.

    Example: `reprogram diagnose -s bundled/efficientnet-lite0 -t bundled/mnist5k -m vp`
    """
    from reprogram.cli._config import parse
    from reprogram.ntk import DiagnoseOptions
    from reprogram.rank import diagnose as examine

    config = {"preset": preset, "seed": seed, **parse(set_ or ())}
    options = DiagnoseOptions(source_samples=source_samples, follow=follow, seed=seed, fit_mapping=program is None)
    what, data = _open(program, source, task, device)
    if not json:
        note(f"{samples} inputs of {data.name}: a forward and {len(data.classes)} backward passes each")
    found = examine(what, data, method=method, n=samples, config=config, sketch=sketch, options=options)
    path = _report(found, out) if report else None
    if json:
        emit({**found.card(), "report": str(path) if path else None})
    else:
        _show(found, path, brief)


def _open(program: Path | None, source: str | None, task: str, device: str | None) -> "tuple[Program | Source, Task]":
    from reprogram.core.errors import ConfigError, say
    from reprogram.fit import FitOptions
    from reprogram.sources import load_source
    from reprogram.tasks import load_task

    if (program is None) == (source is None):
        raise ConfigError(say("source", "must be given, or a program file, but not both", (source, program)))
    if program is not None:
        loaded = open_program(program, None, force=False, device=device)
        return loaded, open_task(loaded, task)
    data = load_task(task)
    return load_source(str(source)).to(FitOptions(device=device).place()), data


def _report(found: "Diagnosis", out: Path | None) -> Path:
    from reprogram.report import write_diagnosis

    command = shlex.join(["reprogram", *sys.argv[1:]])
    return write_diagnosis(found, out or Path("diagnosis.html"), command=command)


def _show(found: "Diagnosis", path: Path | None, brief: bool) -> None:
    from rich.text import Text

    from reprogram.report.diagnosis import TRUST, lead

    facts = {"source": found.source, "task": found.task, "method": found.method,
             "samples": f"{found.samples} x {found.targets} targets",
             "learned numbers": f"{found.parameters:,}", "seconds": f"{sum(found.seconds.values()):.1f}"}  # fmt: skip
    tell(pairs(facts))
    tell()
    tell(Text(lead(found)))
    tell()
    tell(_figures(found.readings, brief))
    tell()
    tell(Text(TRUST))
    for warning in found.warnings:
        warn(warning)
    if path is not None:
        note(f"report: {path}")


def _figures(readings: "Sequence[Reading]", brief: bool) -> "Table":
    """A figure a row, its value first and what it means on dim lines below."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", max_width=24)
    table.add_column(overflow="fold")
    for reading in readings:
        meaning = "" if brief else f"\n{reading.predicts} {reading.trust}"
        table.add_row(reading.name, Text.assemble(clean(reading.shown), (clean(meaning), "dim")))
    return table
