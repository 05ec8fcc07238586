"""`diagnose` from a source and a task: takes the sample, builds the program and asks `ntk`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reprogram.catalogue import build
from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Program
from reprogram.core.source import Source
from reprogram.ntk import DiagnoseOptions, Diagnosis, batches_of
from reprogram.ntk import diagnose as diagnose_program
from reprogram.sources import load_source
from reprogram.tasks import Task


@dataclass(frozen=True, slots=True, eq=False)
class TargetSample:
    """The labelled samples that all sources of a ranking are measured on.

    Attributes:
        x: [N, channel, height, width].
        y: [N]; every prefix has the classes in nearly equal numbers.
        rows: which samples of the training split they are.
    """

    x: Tensor
    y: Tensor
    rows: Tensor


def target_sample(task: Task, n: int, seed: int = 0) -> TargetSample:
    """Draw N training samples, as many of each class as there are, one class after the other.

    Args:
        task: the target task; only its training split is looked at.
        n: how many; fewer if the split has fewer.
        seed: another seed, another draw.

    Raises:
        ConfigError: n is below 2.
    """
    if n < 2:
        raise ConfigError(say("n", "must be 2 or more", n))
    generator = torch.Generator().manual_seed(seed)
    labels = task.train.labels
    order = torch.randperm(len(labels), generator=generator)
    place = torch.zeros_like(labels)  # which of its class a sample is, in the random order
    for label in labels.unique().tolist():
        mine = order[labels[order] == label]
        place[mine] = torch.arange(len(mine))
    turn = place * len(task.classes) + labels
    rows = turn.argsort()[:n]
    return TargetSample(task.train.pictures(rows), labels[rows], rows)


def diagnose(  # noqa: PLR0913 (all but two are by name)
    source: Source | Program | str,
    task: Task,
    *,
    method: str = "vp",
    n: int = 100,
    sample: TargetSample | None = None,
    config: Mapping[str, Any] | None = None,
    sketch: int = 0,
    options: DiagnoseOptions | None = None,
) -> Diagnosis:
    """Say before any training how well a frozen source will reprogram to a task.

    Args:
        source: a source, its reference, or a program that is built already (`method` and `config` are then unused). For
            a fitted program set `DiagnoseOptions.fit_mapping` to False, or its output map is made anew from the sample.
        task: the target task; N of its training samples are looked at.
        method: which program to build on the source, with the preset that suits the device.
        n: N, samples; the kernel has N times T rows.
        sample: the samples themselves, to compare several sources on identical ones.
        config: settings of the method; "preset" and "seed" are those of `build`.
        sketch: so many training samples to sketch the program's kernel on as well, in memory that does not grow with
            them; 0 for none.
        options: see `ntk.DiagnoseOptions`.

    Returns:
        A `Diagnosis`; print its `readings`, heed its `warnings`.

    Raises:
        CapabilityError: the source gives no gradients, or couples the samples of a batch.
        DataError: one class only, or numbers that are not finite.
        ConfigError: a setting is out of range, the program has another number of targets than the task, or N is too
            large for the memory there is.
    """
    options = options or DiagnoseOptions()
    settings = {"preset": "auto", **(config or {})}
    if isinstance(source, Program):
        program = source
    else:
        loaded = load_source(source) if isinstance(source, str) else source
        program = build(method, loaded, task, **settings)
    chosen = sample or target_sample(task, n, options.seed)
    rows = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(options.seed))[:sketch]
    batches = batches_of(task.train.pictures, task.train.labels, rows) if len(rows) else None
    found = diagnose_program(program, chosen.x, chosen.y, targets=len(task.classes), options=options, batches=batches)
    return replace(found, task=task.name, settings={} if isinstance(source, Program) else settings)
