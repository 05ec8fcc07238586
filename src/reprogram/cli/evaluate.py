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
        Literal["test", "val", "train", "all"], typer.Option(help="Which examples; a task without splits is divided.")
    ] = "test",
    source: SourceRef = None,
    force: Force = False,
    device: Device = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs to a forward pass.")] = 128,
    json: Json = False,
) -> None:
    """Score a program on a task's split, with a 95 % interval.

    Example: `reprogram evaluate my.safetensors --task ./my_images`
    """
    loaded = open_program(program, source, force=force, device=device)
    data = open_task(loaded, task)
    metrics = _score(loaded, data, split, batch_size)
    facts = _facts(metrics) | _usage(loaded)
    if json:
        emit({"program": str(program), "task": data.name, "split": split, **facts})
        return
    kind = f"{len(data.classes)} classes" if data.classes else "texts to be written"
    lines = {"program": program, "task": f"{data.name}, {split}, {len(metrics)} inputs, {kind}"}
    tell(pairs(lines | _shown(metrics, facts) | {"seconds": f"{metrics.seconds:.1f}"} | _spent(facts)))


def _usage(program: "Program") -> dict[str, Any]:
    """What was asked of a server, for sources behind one."""
    from dataclasses import asdict

    from reprogram.sources import EndpointImageSource, EndpointSource

    source = program.source
    if isinstance(source, EndpointImageSource):
        return {"usage": asdict(source.usage)}
    if not isinstance(source, EndpointSource):
        return {}
    return {"usage": asdict(source.usage) | {"scoring": list(source.scoring), "exact": source.scoring != ("writing",)}}


def _spent(facts: dict[str, Any]) -> dict[str, object]:
    used = facts.get("usage")
    if used is None:
        return {}
    if "scoring" not in used:
        from reprogram.sources import Usage
        from reprogram.sources.endpoint_limits import spent

        return {"server": spent(Usage(**used))}
    asked = f"{used['requests']:,} requests, {used['hits']:,} answers kept from before; "
    tokens = f"{used['prompt_tokens']:,} tokens read, {used['completion_tokens']:,} written"
    scores = f" ({', '.join(used['scoring'])})" if used["scoring"] else ""
    inexact = "" if used["exact"] else "; scores are counts of texts, not probabilities"
    return {"server": asked + tokens + scores + inexact}


def _shown(metrics: "Metrics", facts: dict[str, Any]) -> dict[str, object]:
    if metrics.answers is not None and metrics.confusion is None:
        low, high = facts["interval"]
        return {"exact answers": f"{percent(metrics.accuracy)}  (95 % interval {percent(low)} to {percent(high)})",
                "unparsable": percent(facts["unparsable"])}  # fmt: skip
    if metrics.confusion is None:
        return {"tokens predicted": percent(metrics.accuracy), "loss": f"{metrics.loss:.4f} nats a token",
                "perplexity": f"{metrics.perplexity:.3f}"}  # fmt: skip
    low, high = facts["interval"]
    return {
        "accuracy": f"{percent(metrics.accuracy)}  (95 % interval {percent(low)} to {percent(high)})",
        "mean IoU": None if metrics.mean_iou is None else percent(metrics.mean_iou),
        "balanced accuracy": percent(metrics.balanced_accuracy),
        "macro F1": percent(metrics.macro_f1),
        "loss": f"{metrics.loss:.4f}",
        "majority class": percent(facts["majority"]),
        "unparsable": None if metrics.unparsable is None else percent(metrics.unparsable),
    }


def _score(program: "Program", task: "Task", split: str, batch_size: int) -> "Metrics":
    import torch

    from reprogram.core.errors import DataError
    from reprogram.core.errors import say as words
    from reprogram.fit import evaluate, measure

    chosen = [s for s in task.splits.values() if len(s)] if split == "all" else [task.splits[split]]
    found = [evaluate(program, s, batch_size=batch_size) for s in chosen]
    if not sum(map(len, found)):
        raise DataError(words(f"{task.name}.{split}", "must have examples", 0))
    if len(found) == 1:
        return found[0]
    if found[0].confusion is None or found[0].answers is not None:
        raise DataError(words("split", "must be one of train, val and test for a program that writes", split))
    if found[0].mean_iou is not None:
        raise DataError(words("split", "must be one of train, val and test for label maps", split))
    seconds = sum(m.seconds for m in found)
    return measure(torch.cat([m.scores for m in found]), torch.cat([s.labels for s in chosen]), seconds)


def _facts(metrics: "Metrics") -> dict[str, Any]:
    found = {"inputs": len(metrics), **metrics.brief(), "seconds": round(metrics.seconds, 3)}
    if metrics.answers is not None and metrics.confusion is None:
        return found | {"interval": list(metrics.interval())}
    if metrics.confusion is None:
        return found
    counted = len(metrics) if metrics.mean_iou is None else int(metrics.confusion.sum())
    majority = float(metrics.confusion.sum(1).max()) / max(1, counted)
    return found | {"interval": list(metrics.interval()), "majority": majority}
