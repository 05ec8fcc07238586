"""What benchmarks share: where data are, medians, tables, JSON."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data"


def data(name: str) -> Path:
    """A file of the shared data folder; stops with a clear word if it is not there."""
    path = DATA / name
    if not path.exists():
        raise SystemExit(f"this benchmark needs {name} in {DATA}")
    return path


def interleaved(jobs: dict[str, Callable[[], object]], *, runs: int = 9, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of every job, taken in turn so that drift of the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(warmup + runs):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Median of the pairwise ratios a / b."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean, smallest and largest."""
    return {"mean": statistics.fmean(values), "min": min(values), "max": max(values), "seeds": len(values)}


def table(rows: Sequence[dict[str, object]]) -> str:
    """Rows as a Markdown table."""
    heads = list(rows[0])
    cells = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(h), *(len(c[i]) for c in cells)) for i, h in enumerate(heads)]
    lines = [heads, ["-" * w for w in widths], *cells]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def write(name: str, result: object) -> Path:
    """Write a result with the machine's facts to `benchmarks/results/<name>.json`."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine(),
             "python": platform.python_version()}  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"name": name, "facts": facts, "result": result}, indent=1) + "\n")
    return path
