"""`reprogram tasks`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reprogram.cli._run import Json, emit, grid, pairs, tell

if TYPE_CHECKING:
    from reprogram.tasks import Task


def tasks(
    ref: Annotated[
        str | None,
        typer.Argument(metavar="[REF|PATH]", help="A task to look at; without one, the bundled ones are listed."),
    ] = None,
    json: Json = False,
) -> None:
    """List the bundled tasks, or look at one.

    With a name or a path: classes, splits and what is odd about it.

    Example: `reprogram tasks ./my_images`
    """
    from reprogram.tasks import load_task, task_refs

    if ref is not None:
        _one(load_task(ref), json)
    elif json:
        emit([{"ref": name, "about": about} for name, about in task_refs().items()])
    else:
        own = {
            "a path": "a folder or zip of [train|val|test/]class/picture; a table (.csv, .tsv, .jsonl, .parquet) "
            "of paths or texts, and labels"
        }
        tell(grid(["task", "about"], (task_refs() | own).items()))


def _one(task: "Task", json: bool) -> None:
    counts = {name: split.counts().tolist() for name, split in task.splits.items()}
    if json:
        sample = task.spec.sample
        facts: dict[str, Any] = {"name": task.name, "modality": task.spec.modality, "classes": task.classes,
                                 "sample": sample.shape, "columns": sample.columns}  # fmt: skip
        emit(
            facts | {"splits": {n: len(s) for n, s in task.splits.items()}, "counts": counts, "warnings": task.warnings}
        )
        return
    sizes = ", ".join(f"{name} {len(split)}" for name, split in task.splits.items())
    tell(pairs({"task": task.name, **_inputs(task), "splits": sizes}))
    if task.spec.generates:
        return
    tell()
    rows = [[name, *(counts[split][i] for split in counts)] for i, name in enumerate(task.classes)]
    most = 40
    tell(grid(["class", *counts], rows[:most], right=counts))
    if len(rows) > most:
        tell(f"... and {len(rows) - most} more classes")


def _inputs(task: "Task") -> dict[str, str]:
    sample = task.spec.sample
    if task.spec.modality == "text":
        return {"texts": ", ".join(sample.columns), "answers": "texts" if task.spec.generates else "classes"}
    return {"pictures": f"{' x '.join(map(str, sample.shape[-2:]))} ({sample.fit})"}
