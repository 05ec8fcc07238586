"""`reprogram evaluate`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reprogram.cli._numbers import percent
from reprogram.cli._open import Device, Force, ProgramFile, SourceRef, TaskRef, open_program, open_task
from reprogram.cli._run import Json, emit, pairs, tell

if TYPE_CHECKING:
    from reprogram.core.program import Program
    from reprogram.fit import Metrics
    from reprogram.tasks import Task


def evaluate(
    *,
    program: ProgramFile,
    task: TaskRef,
    split: Annotated[
        Literal["test", "val", "train", "all"], typer.Option(help="Which pictures; a task without splits is divided.")
    ] = "test",
    source: SourceRef = None,
    force: Force = False,
    device: Device = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures to a forward pass.")] = 128,
    json: Json = False,
) -> None:
    """Score a program on a task's split, with a 95 % interval.

    Example: `reprogram evaluate my.safetensors --task ./my_images`
    """
    loaded = open_program(program, source, force=force, device=device)
    data = open_task(loaded, task)
    metrics = _score(loaded, data, split, batch_size)
    facts = _facts(metrics, data, split)
    if json:
        emit({"program": str(program), "task": data.name, "split": split, **facts})
        return
    low, high = facts["interval"]
    tell(
        pairs(
            {
                "program": program,
                "task": f"{data.name}, {split}, {len(metrics)} pictures, {len(data.classes)} classes",
                "accuracy": f"{percent(metrics.accuracy)}  (95 % interval {percent(low)} to {percent(high)})",
                "balanced accuracy": percent(metrics.balanced_accuracy),
                "macro F1": percent(metrics.macro_f1),
                "loss": f"{metrics.loss:.4f}",
                "majority class": percent(facts["majority"]),
                "seconds": f"{metrics.seconds:.1f}",
            }
        )
    )


def _score(program: "Program", task: "Task", split: str, batch_size: int) -> "Metrics":
    import torch

    from reprogram.core.errors import DataError
    from reprogram.core.errors import say as words
    from reprogram.fit import evaluate, measure

    chosen = [s for s in task.splits.values() if len(s)] if split == "all" else [task.splits[split]]
    found = [evaluate(program, s, batch_size=batch_size) for s in chosen]
    if not sum(map(len, found)):
        raise DataError(words(f"{task.name}.{split}", "must have pictures", 0))
    if len(found) == 1:
        return found[0]
    seconds = sum(m.seconds for m in found)
    return measure(torch.cat([m.scores for m in found]), torch.cat([s.labels for s in chosen]), seconds)


def _facts(metrics: "Metrics", task: "Task", split: str) -> dict[str, Any]:
    truth = metrics.confusion.sum(1)
    return {
        "inputs": len(metrics),
        **metrics.brief(),
        "interval": list(metrics.interval()),
        "majority": float(truth.max()) / max(1, len(metrics)),
        "seconds": round(metrics.seconds, 3),
    }
