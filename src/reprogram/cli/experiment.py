"""`reprogram experiment`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from reprogram.cli._run import Json, emit, note, pairs, tell


def experiment(
    *,
    name: Annotated[
        Literal["depth", "width", "architectures", "layers"],
        typer.Argument(metavar="NAME", help="depth, width, architectures or layers."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder; by default experiment-NAME.")
    ] = None,
    task: Annotated[
        str, typer.Option("--task", "-t", metavar="REF|PATH", help="What sources are reprogrammed to.")
    ] = "bundled/digits",
    source_task: Annotated[
        str, typer.Option("--source-task", metavar="REF|PATH", help="What sources are trained on.")
    ] = "bundled/mnist5k",
    sources: Annotated[
        list[str] | None,
        typer.Option("--sources", "-s", metavar="REF", help="Ready-made sources instead, again and again or with "
                                                            "commas "
                     "(depth, architectures)."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", metavar="NAME", help="vp, fc, ilm_vp or blm, again and again; by default vp and "
                     "fc."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    samples: Annotated[int, typer.Option(min=2, metavar="N", help="Target pictures in a kernel.")] = 40,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of every fit.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small slice, in seconds; no verdicts follow.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Test on real data what the tangent kernel is said to tell of reprogramming.

    Trains small sources, takes their kernels, reprograms them, and says in a dated note whether the claims hold. What
    is finished is kept: the same command goes on after an interruption.

    Example: `reprogram experiment depth --out depth`
    """
    from reprogram.experiments import Options, run

    place = out or Path(f"experiment-{name}")
    ready = tuple(ref for given in sources or () for ref in given.split(",") if ref)
    chosen = tuple(dict.fromkeys(method)) if method else ("vp", "fc")
    command = ["reprogram", "experiment", name, "--out", str(place), "--source-task", source_task, "--task", task,
               "--seeds", str(seeds), "--samples", str(samples)]  # fmt: skip
    command += [word for one in chosen for word in ("--method", one)] + [w for s in ready for w in ("--sources", s)]
    command += (["--epochs", str(epochs)] if epochs else []) + (["--quick"] if quick else [])
    options = Options(out=place, source_task=source_task, task=task, methods=chosen, sources=ready, seeds=seeds,
                      samples=samples, epochs=epochs, quick=quick, command=shlex.join(command))  # fmt: skip
    found, files = run(name, options, note)
    if json:
        emit({"files": {k: str(v) for k, v in files.items()}, **found})
        return
    for claim in found["claims"]:
        tell(f"{claim['verdict']}: {claim['sentence']}")
    for remark in found["remarks"]:
        tell(f"- {remark}")
    tell()
    tell(pairs({name: path for name, path in files.items()}))
