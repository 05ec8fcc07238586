"""`reprogram report`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from reprogram.cli._open import Device, Force, ProgramFile, SourceRef, TaskRef, open_program, open_task
from reprogram.cli._run import note, tell


def report(
    *,
    program: ProgramFile,
    task: TaskRef,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="By default beside the program, *.html.")
    ] = None,
    controls: Annotated[
        Literal["none", "standard", "full"], typer.Option(help="What to fit anew beside it, for comparison.")
    ] = "standard",
    source: SourceRef = None,
    force: Force = False,
    device: Device = None,
) -> None:
    """Write an HTML page about a program.

    Results, controls, what it learned and where it errs, in one file that needs nothing else.

    Example: `reprogram report my.safetensors --task ./my_images --out my.html`
    """
    from reprogram import report as room

    path = out or program.with_suffix(".html")
    loaded = open_program(program, source, force=force, device=device)
    data = open_task(loaded, task)
    result = room.evaluate_result(loaded, data, program)
    rows = []
    if controls != "none":
        note("Fitting the controls ...")
        rows = room.controls(result, data, full=controls == "full")
    command = shlex.join(["reprogram", "report", str(program), "--task", task])
    room.write_report(result, data, path, controls=rows, command=command)
    tell(str(path))
