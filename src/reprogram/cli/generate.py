"""`reprogram generate`."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from reprogram.cli._open import Device, Force, ProgramFile, SourceRef, open_program
from reprogram.cli._run import clean, to_json


def generate(
    *,
    program: ProgramFile,
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT...", help="Texts; tables or .txt files of them; - reads stdin, one a line."),
    ],
    max_new_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Write N tokens at most.")] = 64,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the most likely token each time; above, tokens are drawn.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest tokens of this mass.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    format: Annotated[Literal["text", "jsonl"], typer.Option("--format", "-f", help="Of the output.")] = "text",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write there instead of to stdout.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts to a forward pass.")] = 16,
    source: SourceRef = None,
    force: Force = False,
    device: Device = None,
) -> None:
    """Let a language model write, with a program's learned prompt.

    Example: `reprogram generate orders.safetensors "two green teas, please"`
    """
    import torch

    from reprogram.cli._texts import Row, rows_from

    loaded = open_program(program, source, force=force, device=device)
    task = loaded.origin.task if loaded.origin else None
    columns = task.sample.columns if task and task.sample.columns else ("text",)
    drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {}
    torch.manual_seed(seed)

    def lines() -> Iterator[str]:
        waiting = iter(rows_from(prompts, columns))
        while chunk := list[Row](islice(waiting, batch_size)):
            written = loaded.generate(chunk, max_new_tokens=max_new_tokens, batch_size=len(chunk), **drawn)
            for row, text in zip(chunk, written, strict=True):
                yield (to_json({**row, "output": text}) if format == "jsonl" else clean(text)) + "\n"

    if out is not None:
        from reprogram.store import write_atomic

        write_atomic(out, (line.encode("utf-8", "backslashreplace") for line in lines()))
        return
    for line in lines():
        typer.echo(line, nl=False)
