"""`reprogram export`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from reprogram.cli._open import Device, Force, ProgramFile, SourceRef, open_program
from reprogram.cli._run import Json, emit, pairs, tell


def export(
    *,
    program: ProgramFile,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="A new folder.")],
    format: Annotated[Literal["peft"], typer.Option(help="peft: for PeftModel.from_pretrained.")] = "peft",
    source: SourceRef = None,
    force: Force = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Write a program's learned prompt in another library's format.

    For soft prompts before the text, and prefixes. Template and label words have no place in it, and are shown.

    Example: `reprogram export sst2.safetensors --out sst2-peft`
    """
    from reprogram.catalogue import export_peft

    loaded = open_program(program, source, force=force, device=device)
    folder = export_peft(loaded, out)
    config: Any = loaded.origin.config if loaded.origin else None
    layout = next((getattr(e, "layout", None) for e in loaded.input if e.site == "input"), None)
    words = getattr(config, "words", None)
    task = loaded.origin.task if loaded.origin else None
    facts: dict[str, Any] = {
        "folder": str(folder),
        "format": format,
        "template": layout,
        "label_words": words or (list(task.classes) if task and task.classes else None),
    }
    if json:
        emit(facts)
    else:
        tell(pairs({name.replace("_", " "): value if value is None else str(value) for name, value in facts.items()}))
