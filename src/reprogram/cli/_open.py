"""What several commands do first: open a program, its task, and options they share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reprogram.core.errors import ConfigError, DataError, say

if TYPE_CHECKING:
    from reprogram.core.program import Program
    from reprogram.tasks import Task

ProgramFile = Annotated[Path, typer.Argument(metavar="PROGRAM", help="A program file, as `reprogram fit` writes it.")]
TaskRef = Annotated[
    str,
    typer.Option(
        "--task", "-t", metavar="REF|PATH", help="bundled/..., a folder, zip or table of pictures, or a table of texts."
    ),
]
SourceRef = Annotated[
    str | None,
    typer.Option("--source", "-s", metavar="REF", help="Source to use instead of the one the file names."),
]
Force = Annotated[bool, typer.Option("--force", help="Use the source although its weights are not the program's.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default a GPU if there is one.")]


def check_out(path: Path) -> None:
    """Before anything is loaded: a program file has a name of its kind.

    Raises:
        ConfigError: it has another.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(say("out", "must end in .safetensors", str(path), f"Try {path.stem}.safetensors."))


def open_program(path: Path, source: str | None, *, force: bool, device: str | None) -> "Program":
    """The program in a file, on its source, on the device."""
    from reprogram.catalogue import load
    from reprogram.fit import FitOptions
    from reprogram.sources import load_source

    place = FitOptions(device=device).place()
    program = load(path, load_source(source) if source else None, force=force)
    program.source.to(place)
    return program.to(place)


def open_task(program: "Program", ref: str) -> "Task":
    """A task as a program reads it: same picture size, same splits as `fit` made, same classes.

    Raises:
        DataError: the classes are not the program's.
        ConfigError: the program was made for no task, and this one asks for classes.
    """
    from reprogram.tasks import load_task

    origin = program.origin
    spec = origin.task if origin else None
    if spec is None:
        task = load_task(ref)
        if task.spec.modality == "text" and task.classes:
            remedy = "It was made for no task; make it for this one: `reprogram import ... --task`."
            raise ConfigError(say("program", f"must have the task's {len(task.classes)} classes", "none", remedy))
        return task
    if spec.modality == "text":
        task = load_task(ref, kind="text", classes=list(spec.classes) or None)
        if task.spec.sample.columns != spec.sample.columns:
            need = f"must have the program's text columns {list(spec.sample.columns)}"
            raise DataError(say("task", need, list(task.spec.sample.columns)))
    else:
        fit = "squash" if spec.sample.fit == "squash" else "crop"
        size = (spec.sample.height, spec.sample.width)
        task = load_task(ref, size=size, fit=fit, interpolation=spec.sample.interpolation)
    if task.classes != spec.classes:
        odd = sorted(set(task.classes) ^ set(spec.classes)) or ["the same in another order"]
        remedy = f"Different: {', '.join(odd[:6])}{f' and {len(odd) - 6} more' if len(odd) > 6 else ''}."
        raise DataError(say("task", f"must have the program's {len(spec.classes)} classes", list(task.classes), remedy))
    return task
