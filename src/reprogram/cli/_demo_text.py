"""The second half of `reprogram demo`: a frozen language model learns to write orders as JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprogram.cli._run import clean, grid, note, quiet, tell

if TYPE_CHECKING:
    from reprogram.core.program import Program
    from reprogram.tasks import Task

SOURCE, TASK = "bundled/smollm2-135m", "bundled/json-orders"
TEMPLATE = "{text}\n"
LEARN = {"template": TEMPLATE, "tokens": 20, "start": "text", "lr": 0.005, "epochs": 12, "batch_size": 8,
         "schedule": "cosine"}  # fmt: skip
SHOWN = 5


def text_demo(out: Path, *, seed: int, quick_scale: bool) -> None:
    """Fit a soft prompt; show what the model writes without and with it. Left out where the model is not installed."""
    from reprogram.catalogue import build, compile_program
    from reprogram.core.errors import MissingExtraError, SourceError
    from reprogram.fit import FitOptions, fit
    from reprogram.sources import load_source
    from reprogram.store import save
    from reprogram.tasks import load_task

    try:
        source = load_source(SOURCE)
    except (MissingExtraError, SourceError) as problem:
        note(f"The demo's second half, on texts, is left out: {problem}")
        return
    task = load_task(TASK)
    settings: dict[str, Any] = dict(LEARN)
    if quick_scale:
        task = task.limit(train=8, val=2, test=4)
        settings |= {"epochs": 1, "tokens": 4}
    note("prompt_tuning on texts ...")
    program = build("prompt_tuning", source, task, seed=seed, **settings)
    folder = out / "texts"
    folder.mkdir(exist_ok=True)
    path = folder / "orders.safetensors"
    result = fit(program, task, seed=seed, out=path, options=FitOptions(progress=not quiet()))
    fast = compile_program(result.program)
    save(fast, folder / "orders-compiled.safetensors")
    _show(build("no_edit", source, task, template=TEMPLATE), fast, task)
    tell(f"\n  {path}: {result.program.count().allocated:,} learned numbers, "
         f"{path.stat().st_size / 1000:.0f} kB; the model is as it was.")  # fmt: skip


def _show(without: "Program", program: "Program", task: "Task") -> None:
    import torch

    orders = task.test.fetch(torch.arange(min(SHOWN, len(task.test))))
    asked = list(orders.columns["text"])  # pyright: ignore[reportAttributeAccessIssue]
    plain, learned = (p.generate(asked, max_new_tokens=24) for p in (without, program))
    rows = [[text, _first(a), _first(b)] for text, a, b in zip(asked, plain, learned, strict=True)]
    tell("\nA frozen language model, asked for orders as JSON:")
    tell(grid(["order", "the model alone", "with 20 learned tokens"], rows))


def _first(text: str) -> str:
    line = clean(text).strip().split("\n")[0]
    return line if len(line) <= 36 else line[:35] + "…"
