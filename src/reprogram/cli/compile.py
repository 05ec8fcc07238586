"""`reprogram compile`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from reprogram.cli._open import Device, Force, ProgramFile, SourceRef, check_out, open_program
from reprogram.cli._run import Json, emit, pairs, tell


def compile(
    *,
    program: ProgramFile,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The program file to write.")],
    to: Annotated[
        Literal["cache", "compact"],
        typer.Option(
            help="cache: learned tokens as the keys and values the source makes of them (causal models); "
            "compact: drop what only training needs."
        ),
    ] = "cache",
    source: SourceRef = None,
    force: Force = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Turn a learned prompt into a form that costs no more than no prompt.

    Predictions stay the same. The compiled file is larger, and cannot be trained on.

    Example: `reprogram compile sst2.safetensors --out sst2-fast.safetensors`
    """
    check_out(out)
    from reprogram.catalogue import compact_program, compile_program
    from reprogram.store import read, save

    card = read(program).card
    loaded = open_program(program, source, force=force, device=device)
    made = (compile_program if to == "cache" else compact_program)(loaded)
    save(
        made,
        out,
        metrics=dict(card.metrics),
        seed=card.seed,
        notes=[*card.notes, f"{to} form of {program.name}"],
    )
    before, after = program.stat().st_size, out.stat().st_size
    facts = {"program": str(out), "form": made.origin and made.origin.form, "bytes": after, "bytes before": before,
             "numbers": made.count().allocated, "numbers before": loaded.count().allocated}  # fmt: skip
    if json:
        emit({name.replace(" ", "_"): value for name, value in facts.items()})
    else:
        tell(pairs({k: f"{v:,}" if isinstance(v, int) else v for k, v in facts.items()}))
