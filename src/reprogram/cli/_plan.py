"""`reprogram fit --dry-run`: what a fit would do, and how long one step takes here."""

import math
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

import torch

from reprogram.cli.show import flat
from reprogram.core.method import Recipe
from reprogram.core.program import learns
from reprogram.core.texts import Batch
from reprogram.fit import FitOptions

if TYPE_CHECKING:
    from reprogram.cli._config import RunConfig
    from reprogram.core.program import Program
    from reprogram.tasks import Task


def plan(
    program: "Program", task: "Task", config: "RunConfig", settings: dict[str, Any], options: FitOptions
) -> dict[str, Any]:
    """Everything a fit would do, as plain values; takes one step of training to time it, and forgets the step."""
    recipe = program.origin.recipe if program.origin else Recipe()
    device = options.place()
    program.source.to(device)
    program.to(device)
    step, forward = _time(program, task, recipe, options)
    seconds = _estimate(program, task, recipe, step, forward)
    spec, count = program.source.spec, program.count()
    return {
        "source": {"ref": spec.ref, "input_shape": spec.input_shape, "outputs": spec.outputs},
        "task": {
            "name": task.name,
            "classes": len(task.classes),
            "sample": task.spec.sample.shape,
            "columns": task.spec.sample.columns,
            "splits": {name: len(split) for name, split in task.splits.items()},
        },
        "method": config.method,
        "settings": flat(settings),
        "parameters": {"allocated": count.allocated, "effective": count.effective, "fitted": count.fitted},
        "device": str(device),
        "steps": math.ceil(len(task.train) / recipe.batch_size) * recipe.epochs if learns(program) else 0,
        "seconds_a_step": round(step, 4),
        "estimated_seconds": round(seconds, 1),
        "estimated_memory_bytes": _memory(device),
        "out": config.out,
    }


def lines(found: dict[str, Any]) -> dict[str, object]:
    """The plan for people."""
    source, task, count = found["source"], found["task"], found["parameters"]
    shape = " x ".join(map(str, task["sample"][-2:]))
    inputs = f"pictures of {shape}" if task["sample"] else f"texts ({', '.join(task['columns'])})"
    classes = f"{task['classes']} classes" if task["classes"] else "no classes: it writes"
    splits = ", ".join(f"{name} {n:,}" for name, n in task["splits"].items())
    outputs = "classes" if len(source["input_shape"]) > 1 else "outputs"
    return {
        "source": f"{source['ref']}, {source['outputs']:,} {outputs}",
        "task": f"{task['name']}, {classes}, {inputs}",
        "splits": splits,
        "method": found["method"],
        "parameters": f"{count['allocated']:,} learned, {count['effective']:,} of them effective; "
        f"{count['fitted']:,} fitted",
        "device": found["device"],
        "steps": f"{found['steps']:,} of {found['seconds_a_step']:.3g} s",
        "time": f"about {duration(found['estimated_seconds'])}, without controls",
        "memory": f"about {found['estimated_memory_bytes'] / 2**30:.1f} GB",
        "would write": found["out"],
    }


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(59.6), duration(200), duration(9000)
    ('60 s', '3 min 20 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _time(program: "Program", task: "Task", recipe: Recipe, options: FitOptions) -> tuple[float, float]:
    """Seconds of one training step and of one forward pass of the same batch; the first, slow one does not count."""
    batch = task.train.fetch(torch.arange(min(recipe.batch_size, len(task.train))))
    backwards = learns(program.input)
    took = {True: 0.0, False: 0.0}
    for backward in (True, False) if backwards else (False,):
        for _ in range(2):
            start = time.perf_counter()
            _step(program, batch, options, backward)
            took[backward] = time.perf_counter() - start
            if took[backward] > 5:
                break
    return took[backwards], took[False]


def _step(program: "Program", batch: Batch, options: FitOptions, backward: bool) -> None:
    device = program.source.device
    dtype = options.autocast()
    program.train(backward)
    with torch.set_grad_enabled(backward), torch.autocast(device.type, dtype, enabled=dtype is not None):
        scores = program(batch.to(device))
    if backward:
        scores.float().sum().backward()
        program.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    program.eval()


def _estimate(program: "Program", task: "Task", recipe: Recipe, step: float, forward: float) -> float:
    """Steps, the validation pass of each epoch, and the test at the end."""
    batches = {name: math.ceil(len(split) / recipe.batch_size) for name, split in task.splits.items()}
    if not learns(program.input):  # the source answers each picture once
        return forward * sum(batches.values())
    extra = forward if recipe.refresh == "exact" else 0.0
    once = forward * (batches["test"] + batches["val"])
    return recipe.epochs * (batches["train"] * (step + extra) + batches["val"] * forward) + once


def _memory(device: torch.device) -> int:
    """Bytes at the peak so far, which the step just taken has set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
