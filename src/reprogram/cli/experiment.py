"""`reprogram experiment`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from reprogram.cli._run import Json, emit, note, pairs, tell


def experiment(
    *,
    name: Annotated[
        Literal[
            "depth", "width", "architectures", "layers", "prefix-limits", "attention-role", "efficiency", "backdoor"
        ],
        typer.Argument(metavar="NAME", help="depth, width, architectures, layers, prefix-limits, attention-role, "
                       "efficiency or backdoor."),
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
        typer.Option("--sources", "--source", "-s", metavar="REF", help="Ready-made sources instead, again and again "
                     "or with commas (depth, architectures); the model of prefix-limits, efficiency and "
                     "backdoor."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", metavar="NAME", help="vp, fc, ilm_vp or blm, again and again; by default vp and "
                     "fc."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many; by default 3, and 5 for prefix-limits, attention-role, "
                          "efficiency and backdoor.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, metavar="N", help="Target pictures in a kernel.")] = 40,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of every fit.")] = None,
    size: Annotated[
        int | None, typer.Option(min=1, metavar="PX", help="The canvas of every program, for efficiency.")
    ] = None,
    limit_train: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Target pictures to fit on, for efficiency.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small slice, in seconds; no verdicts follow.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Test what theory says of reprogramming and of prompts.

    depth, width, architectures and layers train small sources, take their tangent kernels and reprogram them.
    prefix-limits and attention-role look into prompts and prefixes; of the options they take --out, --seeds and
    --quick, prefix-limits also --sources. efficiency compares programs with changing the weights, for one source and
    one task; it takes --source, --task, --size, --limit-train, --epochs, --seeds and --quick. backdoor poisons a source
    and defends it by reprogramming; it takes --source, --source-task, --seeds and --quick. A dated note says whether
    the claims hold. What is finished is kept: the same command goes on after an interruption.

    Example: `reprogram experiment depth --out depth`
    """
    from reprogram.experiments import Options, run
    from reprogram.experiments.run import STUDIES
    from reprogram.experiments.study import SEEDS

    place = out or Path(f"experiment-{name}")
    ready = tuple(ref for given in sources or () for ref in given.split(",") if ref)
    chosen = tuple(dict.fromkeys(method)) if method else ("vp", "fc")
    study = name in STUDIES
    seeds = seeds or (SEEDS if study else 3)
    command = ["reprogram", "experiment", name, "--out", str(place), "--seeds", str(seeds)]
    if not study:
        command += ["--source-task", source_task, "--task", task, "--samples", str(samples)]
        command += [word for one in chosen for word in ("--method", one)]
    else:
        known = {"--task": task, "--source-task": source_task}
        taken = [flag for flag in known if flag[2:].replace("-", "_") in STUDIES[name].takes]
        command += [word for flag in taken for word in (flag, known[flag])]
    command += [word for ref in ready for word in ("--sources", ref)]
    numbers = {"--size": size, "--limit-train": limit_train, "--epochs": epochs}
    command += [word for flag, number in numbers.items() if number for word in (flag, str(number))]
    command += ["--quick"] if quick else []
    options = Options(out=place, source_task=source_task, task=task, methods=chosen, sources=ready, seeds=seeds,
                      samples=samples, epochs=epochs, size=size, train=limit_train, quick=quick,
                      command=shlex.join(command))  # fmt: skip
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
