"""One cell of an experiment: a source, a method and a seed; its kernels, then what reprogramming really gives."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from reprogram.catalogue import build
from reprogram.core.errors import ConfigError, ReprogramError
from reprogram.core.program import Program
from reprogram.core.source import Source, local_module
from reprogram.experiments.options import Options
from reprogram.experiments.zoo import Design, trained
from reprogram.fit import FitOptions, evaluate, fit
from reprogram.ntk import DiagnoseOptions
from reprogram.ntk.diagnose import fit_mapping
from reprogram.rank.diagnose import TargetSample, diagnose, target_sample
from reprogram.sources import load_source
from reprogram.tasks import Task, load_task

LARGEST = 32
"""Pictures of a task are scaled to at most so many pixels: the sources here are small."""

Extra = Callable[[Program, Tensor, Tensor, Options], Mapping[str, Any]]
"""What else an experiment wants to know of a program, from the kernel's samples [N, ...] and labels [N]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is measured at once.

    Attributes:
        source: a design to be trained, or the reference of a ready-made source.
        method: of reprogramming.
        seed: of the samples, the program's start and the fit; of a design it is the weights' seed, too.
    """

    source: Design | str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """For progress lines."""
        what = self.source.name if isinstance(self.source, Design) else f"{self.source} seed {self.seed}"
        return f"{what}, {self.method}"


def settings(method: str, canvas: int, epochs: int) -> dict[str, Any]:
    """The same recipe for every source of an experiment, so that only the source differs.

    Patterns are a frame of six pixels in 28; pictures that a program places itself start at four sevenths of the
    canvas.
    """
    common: dict[str, Any] = {"epochs": epochs, "batch_size": 50, "schedule": "cosine"}
    inner = max(1, round(canvas * 4 / 7))
    own: dict[str, dict[str, Any]] = {
        "vp": {"width": max(1, round(canvas * 6 / 28)), "optimizer": "adam", "lr": 0.05, "warmup_steps": 0},
        "fc": {"inner": inner, "lr": 0.003},
        "ilm_vp": {"inner": inner, "lr": 0.05},
        "blm": {"inner": inner, "lr": 0.05},
    }
    return common | own[method]


@final
class Bench:
    """Tasks and sources of one experiment, loaded when they are first needed.

    Args:
        options: what is asked for.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._ready: dict[str, Source] = {}

    @cached_property
    def source_task(self) -> Task:
        """What sources are trained on."""
        return _small(self.options.source_task)

    @cached_property
    def task(self) -> Task:
        """What they are reprogrammed to, limited to the experiment's scale."""
        scale = self.options.scale
        return _small(self.options.task).limit(train=scale.train, val=scale.val, test=scale.test, seed=0)

    def source(self, cell: Cell) -> Source:
        """Trained, from the experiment's folder, or ready-made."""
        if isinstance(cell.source, Design):
            return trained(cell.source, self.source_task, self.options.scale.training, self.options.out / "sources")
        if cell.source not in self._ready:
            self._ready[cell.source] = load_source(cell.source)
        return self._ready[cell.source]

    def key(self, cell: Cell) -> dict[str, object]:
        """All that a cell's row depends on."""
        made: dict[str, object] = {"method": cell.method, "seed": cell.seed, "samples": self.samples}
        made |= {"epochs": self.options.rounds, "train": self.task.train.digest(), "val": self.task.val.digest()}
        made |= {"test": self.task.test.digest(), "directions": self.options.scale.directions}
        if isinstance(cell.source, Design):
            training = asdict(self.options.scale.training)
            return made | {"design": asdict(cell.source), "training": training, "on": self.source_task.train.digest()}
        return made | {"source": self.source(cell).fingerprint()}

    @property
    def shared(self) -> int:
        """Class names that the task of trained sources and the target have in common; 0 with ready-made sources."""
        if self.options.sources:
            return 0
        return len(set(self.source_task.classes) & set(self.task.classes))

    @property
    def samples(self) -> int:
        """Target images in a kernel."""
        return min(self.options.kernel_samples(len(self.task.classes)), len(self.task.train))

    def measure(self, cell: Cell, extra: Extra | None = None) -> dict[str, Any]:
        """The row of a cell. What fails with an error of ours is noted in it, and the rest still measured."""
        source = self.source(cell)
        config = settings(cell.method, source.spec.canvas(), self.options.rounds)
        program = build(cell.method, source, self.task, preset="paper", seed=cell.seed, **config)
        sample = target_sample(self.task, self.samples, cell.seed)
        row = _facts(cell, source) | self._kernels(cell, program, sample)
        fit_mapping(program, sample.x, sample.y)  # fitting makes its own anew
        row["before"] = evaluate(program, self.task.test).accuracy
        if extra is not None:
            row |= extra(program, sample.x, sample.y, self.options)
        return row | self._fit(cell, program)

    def _kernels(self, cell: Cell, program: Program, sample: TargetSample) -> dict[str, Any]:
        start = time.perf_counter()
        try:
            options = DiagnoseOptions(source_samples=self.samples, seed=cell.seed)
            found = diagnose(program, self.task, sample=sample, options=options)
        except ConfigError:
            raise
        except ReprogramError as problem:
            return {"kernel_error": str(problem), "kernel_seconds": time.perf_counter() - start}
        mine, theirs = found.program, found.source_spectrum
        return {
            **found.scores(),
            "full_rank": found.full_rank,
            "program_lambda_kept": mine.smallest_kept if mine else None,
            "source_lambda_kept": theirs.smallest_kept if theirs else None,
            "program_spectrum": _thinned(found.curves.program),
            "source_spectrum": _thinned(found.curves.source),
            "warnings": list(found.warnings),
            "kernel_seconds": time.perf_counter() - start,
        }

    def _fit(self, cell: Cell, program: Program) -> dict[str, Any]:
        start = time.perf_counter()
        first = [p.detach().clone() for p in program.parameters()]
        try:
            result = fit(program, self.task, seed=cell.seed, options=FitOptions(progress=False))
        except ConfigError:
            raise
        except ReprogramError as problem:
            return {"fit_error": str(problem), "accuracy": None}
        test = result.test
        rows = [r for r in result.history if "loss" in r]
        return {
            "accuracy": test.accuracy if test else None,
            "interval": test.interval() if test else None,
            "moved": any(not torch.equal(a, b) for a, b in zip(first, program.parameters(), strict=True)),
            "train_loss": rows[-1]["loss"] if rows else None,
            "fit_seconds": time.perf_counter() - start,
        }


def _facts(cell: Cell, source: Source) -> dict[str, Any]:
    known: dict[str, Any] = {"design": source.spec.ref, "family": source.spec.ref.partition("/")[0], "variant": ""}
    known |= {"depth": source.spec.depth or None, "width": source.spec.width}
    if isinstance(cell.source, Design):
        known = asdict(cell.source) | {"design": cell.source.design}
    module = local_module(source)
    numbers = sum(p.numel() for p in module.parameters()) if module is not None else None
    known |= {"source": source.spec.ref, "method": cell.method, "seed": cell.seed, "numbers": numbers}
    return known | {"source_accuracy": source.spec.accuracy}


def _thinned(values: Sequence[float], most: int = 40) -> list[tuple[int, float]]:
    """(index from 1, eigenvalue) at places that are evenly spread on a logarithmic scale, the last one among them.

    >>> _thinned([8.0, 4.0, 2.0], 2)
    [(1, 8.0), (3, 2.0)]
    """
    places = {round(len(values) ** (i / (most - 1))) for i in range(most)} if values else set[int]()
    return [(place, values[place - 1]) for place in sorted(places)]


def _small(ref: str) -> Task:
    task = load_task(ref)
    return task if max(task.spec.sample.shape[1:]) <= LARGEST else load_task(ref, size=LARGEST)
