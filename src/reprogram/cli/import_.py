"""`reprogram import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reprogram.cli._open import Device, check_out
from reprogram.cli._run import Json, emit, pairs, tell, warn

if TYPE_CHECKING:
    from reprogram.core.program import Program
    from reprogram.core.source import Source
    from reprogram.tasks import Task


def import_(
    *,
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|FILE",
            help="PEFT's folder (prompt tuning, P-tuning, prefix tuning or multitask prompt tuning); or a .safetensors "
            "file of one tensor [tokens, width].",
        ),
    ],
    source: Annotated[
        str, typer.Option("--source", "-s", metavar="REF", help="The model it was made for; see `sources`.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The program file to write, *.safetensors.")],
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", metavar="REF|PATH", help="A table of texts, for its classes; without one the "
                     "program can write, but not predict."),
    ] = None,
    index: Annotated[
        int, typer.Option("--index", min=0, metavar="K", help="Of a multitask checkpoint, the number of the task.")
    ] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method, such as template or words."),
    ] = None,
    device: Device = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Make a program of a prompt that another library learned.

    It answers as it did there. Pickles are not read, and nothing in the files is run.

    Example: `reprogram import ./my-peft --source hf/gpt2 --task reviews.csv --out mine.safetensors`
    """
    check_out(out)
    from reprogram.cli._config import parse
    from reprogram.fit import FitOptions
    from reprogram.sources import load_source
    from reprogram.store import save
    from reprogram.tasks import load_task

    settings = parse(set_ or ())
    data = load_task(task) if task is not None else None
    place = FitOptions(device=device).place()
    made = _imported(checkpoint, load_source(source).to(place), data, index, settings)
    card = save(made, out, notes=[f"imported from {checkpoint.name}"])
    count = card.parameters.allocated
    facts = {"program": str(out), "method": card.method, "form": card.form, "numbers": count}
    if json:
        emit(facts)
        return
    tell(pairs(facts | {"numbers": f"{count:,}"}))
    if data is not None and "template" not in settings:
        layout = next((getattr(e, "layout", None) for e in made.input if e.site == "input"), None)
        warn(f"The template is our default, {layout!r}; set the one it was trained with by --set template='...'.")


def _imported(
    checkpoint: Path, source: "Source", task: "Task | None", index: int, settings: dict[str, Any]
) -> "Program":
    from reprogram.catalogue import import_peft, import_tensor
    from reprogram.core.errors import ArtifactError, say

    if checkpoint.is_dir():
        return import_peft(checkpoint, source, task, index=index, **settings)
    if checkpoint.suffix in (".bin", ".pt", ".pth"):
        remedy = "Write the tensor with safetensors.torch.save_file."
        raise ArtifactError(say(str(checkpoint), "must be no pickle, which can run code", checkpoint.name, remedy))
    return import_tensor(checkpoint, source, task, **settings)
