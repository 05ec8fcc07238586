"""A short probe: the method itself, fitted for a few passes over a few pictures.

The baseline that every diagnosis must beat, because it is cheap and looks at the thing itself.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from reprogram.catalogue import build
from reprogram.core.errors import DataError, say
from reprogram.core.method import Recipe
from reprogram.core.source import Source
from reprogram.fit import FitOptions, FitResult, fit
from reprogram.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the probe reached.

    Attributes:
        accuracy: on validation, in the best state.
        low: lower end of its 95 % interval (Wilson).
        high: upper end.
        majority: share of validation's most frequent class: what a constant answer reaches.
        loss: mean training loss of the last pass; None if nothing is learned by gradient.
        train_accuracy: of the last pass, taken while it ran.
        seconds: of everything.
    """

    accuracy: float
    low: float
    high: float
    majority: float
    loss: float | None
    train_accuracy: float | None
    seconds: float

    @property
    def at_chance(self) -> bool:
        """Whether a constant answer may be as good: the interval reaches down to it."""
        return self.low <= self.majority

    def card(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self) | {"at_chance": self.at_chance}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How one source is reprogrammed for the ranking.

    Attributes:
        preset: of the method.
        config: settings over the preset.
        epochs: instead of the recipe's; None for these.
        seed: of the program's start and the fit.
        device: to fit on.
    """

    preset: str = "auto"
    config: Mapping[str, Any] = field(default_factory=lambda: {})
    epochs: int | None = None
    seed: int = 0
    device: str | None = None


def probe(method: str, source: Source, task: Task, trial: Trial, *, samples: int = 500) -> Probe:
    """Fit a program for a few passes and score it on validation. The test split is not touched.

    The recipe is the method's with its schedule run through in the passes there are; warm-up takes at most a tenth of
    the steps, and nothing stops early.

    Args:
        method: its name.
        source: the frozen model.
        task: the target task; of its training split `samples` pictures are used, of validation at most as many.
        trial: settings; 3 epochs unless it says.
        samples: at least one a class is taken.

    Raises:
        DataError: the task has no validation pictures.
        FitError: the loss is not finite.
    """
    if not len(task.val):
        raise DataError(say(f"{task.name}.val", "must have pictures for a probe", 0, "Load the task with val=0.1."))
    start = time.perf_counter()
    small = shortened(task, samples, trial.seed)
    program = build(method, source, small, preset=trial.preset, seed=trial.seed, **trial.config)
    recipe = quick(program.origin.recipe if program.origin else Recipe(), trial.epochs or 3, len(small.train))
    options = FitOptions(recipe=recipe, device=trial.device, progress=False)
    found = fit(program, small, seed=trial.seed, options=options)
    return _read(found, small, time.perf_counter() - start)


def shortened(task: Task, samples: int, seed: int) -> Task:
    """At most `samples` pictures of train (one a class at least) and of validation, and an empty test split."""
    small = task.limit(train=max(samples, len(task.classes)), val=max(samples, 1), seed=seed)
    return replace(small, splits={**small.splits, "test": small.test.subset(torch.empty(0, dtype=torch.int64))})


def quick(recipe: Recipe, epochs: int, examples: int) -> Recipe:
    """The recipe in `epochs` passes.

    >>> quick(Recipe(epochs=100, warmup_steps=1000, batch_size=50), 3, 500).warmup_steps
    3
    """
    steps = epochs * math.ceil(examples / recipe.batch_size)
    return replace(recipe, epochs=epochs, warmup_steps=min(recipe.warmup_steps, steps // 10), patience=None)


def _read(found: FitResult, task: Task, seconds: float) -> Probe:
    scored = found.validation
    assert scored is not None
    low, high = scored.interval()
    last = found.history[-1] if found.history else {}
    return Probe(
        accuracy=scored.accuracy,
        low=low,
        high=high,
        majority=float(task.val.counts().max()) / len(task.val),
        loss=last.get("loss"),
        train_accuracy=last.get("accuracy"),
        seconds=seconds,
    )
