"""`reprogram combine`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from reprogram.cli._open import Device, Force, SourceRef, check_out, open_program
from reprogram.cli._run import Json, emit, pairs, tell


def combine(
    *,
    programs: Annotated[
        list[Path], typer.Argument(metavar="PROGRAM...", help="Two or more program files on one source.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The program file to write.")],
    how: Annotated[
        Literal["concatenate", "average", "interpolate"],
        typer.Option(help="One after another; their mean; or between two of them, and beyond."),
    ] = "concatenate",
    weight: Annotated[
        list[float] | None,
        typer.Option("--weight", "-w", metavar="W", help="Of each program, in order; again and again."),
    ] = None,
    source: SourceRef = None,
    force: Force = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Make one program of the learned prompts of several.

    The first one's template, classes and label words are kept.

    Example: `reprogram combine a.safetensors b.safetensors --how average --out both.safetensors`
    """
    check_out(out)
    from reprogram.catalogue import combine as join
    from reprogram.catalogue import load
    from reprogram.store import save

    first = open_program(programs[0], source, force=force, device=device)
    rest = [load(path, first.source, force=force).to(first.source.device) for path in programs[1:]]
    made = join([first, *rest], how, weight)
    card = save(made, out, notes=[f"{how} of {', '.join(path.name for path in programs)}"])
    facts = {"program": str(out), "how": how, "method": card.method, "numbers": card.parameters.allocated}
    emit(facts) if json else tell(pairs(facts))
