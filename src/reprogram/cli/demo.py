"""`reprogram demo`: real weights and real pictures, every step of the library in a few minutes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reprogram.cli._demo_text import text_demo
from reprogram.cli._run import grid, note, pairs, quiet, tell, warn

if TYPE_CHECKING:
    from reprogram.core.source import Source
    from reprogram.fit import FitResult
    from reprogram.tasks import Task

SOURCE = "bundled/efficientnet-lite0"
LEARN = {"lr": 0.05, "epochs": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much the demo does: pictures per split, pixels of the canvas, and each method's settings over "cpu"."""

    train: int
    val: int
    test: int
    canvas: int
    settings: Mapping[str, Mapping[str, object]]


FULL = Scale(
    train=1000,
    val=200,
    test=500,
    canvas=64,
    settings={
        "no_edit": {},
        "ilm_vp": LEARN,
        "blm": LEARN,
        "blm_plus": {"top_ratio": 0.3, **LEARN},
        "smm": {"lr": 0.01, "epochs": 6},
        "linear_probe": {},
    },
)
QUICK = Scale(
    train=60,
    val=20,
    test=40,
    canvas=32,
    settings={
        "no_edit": {},
        "ilm_vp": {"epochs": 1},
        "blm": {"epochs": 1},
        "blm_plus": {"epochs": 1},
        "smm": {"epochs": 1},
        "linear_probe": {"epochs": 5},
    },
)
SHOWN = "blm_plus"
"""The program that is loaded again from its file, to predict."""

PICTURES = 8


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for everything it writes.")] = Path(
        "demo"
    ),
    task: Annotated[str, typer.Option("--task", "-t", metavar="REF|PATH", help="Your own pictures, if you like.")] = (
        "bundled/mnist5k"
    ),
    epochs: Annotated[int | None, typer.Option(min=1, help="Of every learned pattern; by default as tuned.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds instead of minutes; the scores mean little.")] = False,
    texts: Annotated[bool, typer.Option(help="Also teach a frozen language model to write JSON.")] = True,
) -> None:
    """Teach a frozen classifier digits in six ways, and a frozen language model to write JSON.

    Real weights (EfficientNet-Lite0, SmolLM2-135M where it is installed) and real data (MNIST; orders in words), some
    minutes on two cores. Writes the programs, a report on each and a page that compares them.

    Example: `reprogram demo --out demo`
    """
    from reprogram.report import comparison_table
    from reprogram.sources import load_source
    from reprogram.tasks import load_task

    scale = QUICK if quick else FULL
    out.mkdir(parents=True, exist_ok=True)
    data = load_task(task).limit(train=scale.train, val=scale.val, test=scale.test, seed=seed)
    model = load_source(SOURCE)
    sizes = ", ".join(f"{name} {len(split)}" for name, split in data.splits.items())
    tell(
        pairs({"source": f"{model.spec.ref}, frozen, {model.spec.outputs:,} classes", "task": f"{data.name}, {sizes}"})
    )
    results = {name: _fit(name, model, data, scale, out=out, epochs=epochs, seed=seed) for name in scale.settings}
    tell()
    tell(comparison_table(results))
    pages = _pages(results, data, out)
    files = _pictures(data, out / "pictures")
    _predict(out / f"{SHOWN}.safetensors", files, data)
    if texts:
        text_demo(out, seed=seed, quick_scale=quick)
    tell()
    tell(pairs({"programs": f"{out}/*.safetensors", "reports": pages and f"{out}/*.html", "all in one": pages}))
    if not quiet():
        tell(f"\nNext:\n  reprogram show {out}/{SHOWN}.safetensors\n  reprogram fit --help")


def _fit(
    name: str, source: "Source", task: "Task", scale: Scale, *, out: Path, epochs: int | None, seed: int
) -> "FitResult":
    from reprogram.catalogue import build
    from reprogram.fit import FitOptions, fit

    settings: dict[str, Any] = {"canvas": scale.canvas, **scale.settings[name]}
    program = build(name, source, task, preset="cpu", seed=seed, **settings)
    learns = any(p.requires_grad for p in program.input.parameters())
    if learns and epochs is not None:
        program = build(name, source, task, preset="cpu", seed=seed, **{**settings, "epochs": epochs})
    note(f"{name} ...")
    options = FitOptions(progress=learns and not quiet())
    return fit(program, task, seed=seed, out=out / f"{name}.safetensors", options=options)


def _pages(results: "Mapping[str, FitResult]", task: "Task", out: Path) -> Path | None:
    """A report on each program, and one page over all."""
    from reprogram.core.errors import MissingExtraError
    from reprogram.report import controls, write_comparison, write_report

    note("Writing the reports ...")
    try:
        for name, result in results.items():
            write_report(result, task, out / f"{name}.html", controls=controls(result, task), command="reprogram demo")
        write_comparison(results, task, out / "index.html")
    except MissingExtraError as problem:
        warn(f"No reports: {problem}")
        return None
    return out / "index.html"


def _pictures(task: "Task", folder: Path) -> list[Path]:
    """Some test pictures as files, as if they were the user's own; their names say what they are."""
    import torch

    from reprogram.media.images import to_picture

    folder.mkdir(exist_ok=True)
    chosen = torch.linspace(0, len(task.test) - 1, min(PICTURES, len(task.test))).long()
    files = []
    for index, picture in zip(chosen.tolist(), task.test.pictures(chosen), strict=True):
        label = task.classes[int(task.test.labels[index])].replace("/", "-")
        files.append(folder / f"{index:03d}-is-{label}.png")
        to_picture(picture).save(files[-1])
    return files


def _predict(path: Path, files: list[Path], task: "Task") -> None:
    """The program from its file, on the source it names, applied to the files."""
    from reprogram.catalogue import load
    from reprogram.cli._numbers import percent

    answers = load(path).predict([str(f) for f in files])
    rows = [
        [file, label, percent(chance)]
        for file, label, chance in zip(files, answers.labels, answers.confidence.tolist(), strict=True)
    ]
    tell(f"\n{path}, loaded again, says:")
    tell(grid(["file", "prediction", "confidence"], rows, right=["confidence"]))
