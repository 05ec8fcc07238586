"""Runs an experiment cell by cell; a run that was stopped goes on where it was."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reprogram.core.errors import ConfigError, say
from reprogram.experiments import (
    architectures,
    attention_role,
    backdoor,
    depth,
    efficiency,
    layers,
    prefix_limits,
    width,
)
from reprogram.experiments.cells import Ledger
from reprogram.experiments.experiment import Experiment, of, values
from reprogram.experiments.measure import Bench, Cell
from reprogram.experiments.note import Findings, card, write_all
from reprogram.experiments.options import Options
from reprogram.experiments.study import Study, conduct
from reprogram.experiments.study_note import study_card, write_study

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT for module in (depth, width, architectures, layers)
}

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY for module in (prefix_limits, attention_role, efficiency, backdoor)
}

Tell = Callable[[str], None]


def run(name: str, options: Options, tell: Tell = lambda _: None) -> tuple[dict[str, Any], dict[str, Path]]:
    """Run an experiment, or what is left of it, and write what it found.

    Args:
        name: one of `EXPERIMENTS` or `STUDIES`.
        options: how.
        tell: is given a line after each cell, with the time that is left.

    Returns:
        What `result.json` holds, and the files by name.

    Raises:
        ConfigError: no such experiment, sources where it takes none, or options that a study has no use for.
        SourceError, DataError: a source or a task cannot be loaded.
    """
    if name in STUDIES:
        studied = conduct(STUDIES[name], options, tell)
        return study_card(studied), write_study(studied)
    if name not in EXPERIMENTS:
        raise ConfigError(say("experiment", f"must be one of {[*EXPERIMENTS, *STUDIES]}", name))
    experiment = EXPERIMENTS[name]
    if options.sources and not experiment.ready:
        raise ConfigError(say("sources", f"must be left out for {name}, which trains its own", list(options.sources)))
    start = time.perf_counter()
    bench = Bench(options)
    rows = _measure(experiment, bench, cells(experiment, options), tell)
    claims = [c for m in values(rows, "method") for c in experiment.claims(of(rows, method=m), m)]
    found = Findings(experiment=experiment, options=options, rows=rows, claims=claims, task=bench.task,
                     samples=bench.samples, shared=bench.shared, seconds=time.perf_counter() - start)  # fmt: skip
    return card(found), write_all(found)


def cells(experiment: Experiment, options: Options) -> list[Cell]:
    """Everything that is to be measured, seed by seed, so that a run that is stopped has something of all designs."""
    seeds = 1 if options.quick else options.seeds
    made: list[Cell] = []
    for seed in range(seeds):
        sources = options.sources or experiment.designs(options, seed)
        made += [Cell(source=s, method=m, seed=seed) for s in sources for m in options.methods]
    return made


def _measure(experiment: Experiment, bench: Bench, todo: Sequence[Cell], tell: Tell) -> list[dict[str, Any]]:
    ledger = Ledger(bench.options.out / "cells")
    keys = [bench.key(cell) | {"experiment": experiment.name} for cell in todo]
    left = sum(not ledger.has(key) for key in keys)
    if left < len(todo):
        tell(f"{len(todo) - left} of {len(todo)} cells are there already.")
    rows: list[dict[str, Any]] = []
    start, done = time.perf_counter(), 0
    for cell, key in zip(todo, keys, strict=True):
        new = not ledger.has(key)
        rows.append(ledger.row(key, lambda cell=cell: bench.measure(cell, experiment.extra)))
        if new:
            done += 1
            rest = (time.perf_counter() - start) / done * (left - done)
            tell(f"{len(rows)}/{len(todo)} {cell.name}: {_result(rows[-1])}, {_time(rest)} left")
    return rows


def _result(row: dict[str, Any]) -> str:
    return "no result" if row.get("accuracy") is None else f"accuracy {row['accuracy']:.1%}"


def _time(seconds: float) -> str:
    """For people.

    >>> _time(59), _time(61)
    ('59 s', '2 min')
    """
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(-(-seconds // 60))} min"
