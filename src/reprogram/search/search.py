"""`search`: trials of a method's settings and of sources, ranked by validation; test is scored once, for the winner.

Every trial is an ordinary fit on the task's training and validation splits; it is not shown the test split. The best
program so far is kept as a file beside the trials, so that a search that was killed goes on with nothing lost but the
trial under way.
"""

import hashlib
import logging
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch

from reprogram.catalogue import build, find, load, make_config
from reprogram.core.errors import ConfigError, DataError, FitError, ReprogramError, say
from reprogram.core.method import Method
from reprogram.core.program import Program, learns
from reprogram.core.source import Source
from reprogram.fit import FitOptions, FitResult, Metrics, evaluate, fit
from reprogram.fit.workspace import Workspace
from reprogram.search.options import SearchOptions
from reprogram.search.result import SearchResult, Trial
from reprogram.search.space import Axis, Choices, space_of
from reprogram.search.study import Asked, Trials, address
from reprogram.sources import load_source
from reprogram.store import save
from reprogram.tasks import Task

Sources = str | Source | Sequence[str | Source]


def search(
    method: str | Method, sources: Sources, task: Task, options: SearchOptions | None = None
) -> SearchResult:  # fmt: skip
    """Search the settings of a method, and sources if there are several, for the best validation accuracy.

    Args:
        method: its name, or a card of your own.
        sources: a reference for `load_source`, a source, or several of them: then the source is searched, too.
        task: needs a validation split.
        options: settings; see `SearchOptions`.

    Returns:
        All trials in order, and the winner's program as it was fitted.

    Raises:
        ConfigError: a setting is unknown, there is nothing to search, or the storage cannot be used.
        DataError: the task has no validation split.
        FitError: no trial came to an end; the message says why the first ones did not.
        BusyError: another search is using the same place.
        MissingExtraError: optuna is not installed.

    Example:
        found = search("autovp", "bundled/efficientnet-lite0", load_task("bundled/digits"), SearchOptions(trials=20))
        print(found.best.settings, found.test.accuracy)
    """
    start, options = time.perf_counter(), options or SearchOptions()
    if not len(task.val):
        raise DataError(say(f"{task.name}.val", "must have examples to rank trials by", 0, "Load it with val=0.1."))
    card = find(method) if isinstance(method, str) else method
    make_config(card, options.pinned, preset=options.preset)
    known = _loaded(sources)
    with _place(options) as (storage, folder):
        run = _Run(card, known, task, options, folder)
        trials = run.all_trials(storage)
        run.go(trials)
        program, validation = run.winner(trials)
        ranked = _ranked(trials.all(), run.refs)
    test = evaluate(program, task.test) if len(task.test) else None
    out = None if options.out is None else Path(options.out)
    if out is not None:
        facts = {"val_accuracy": validation.accuracy, "test_accuracy": test.accuracy if test else None,
                 "test_inputs": len(test) if test else 0, "trials": len(ranked)}  # fmt: skip
        save(program, out, metrics=facts, seed=options.seed)
    return SearchResult(
        method=card.name, task=task.name, trials=ranked, program=program, validation=validation, test=test,
        space={name: str(axis) for name, axis in run.space.items()}, pinned=dict(options.pinned),
        importance=trials.importance(), seed=options.seed, seconds=time.perf_counter() - start, out=out,
        folder=folder,
    )  # fmt: skip


class _Pruned(Exception):
    """A trial fell behind."""


class _OutOfTime(Exception):
    """The search may take no longer."""


@dataclass(slots=True)
class _Watch:
    """Listens to a fit for the pruner and the clock."""

    asked: Asked
    deadline: float | None
    accuracy: float | None = None
    loss: float | None = None
    epochs: int = 0

    def event(self, kind: str, **facts: Any) -> None:
        """After every epoch the pruner is asked; at every step the clock is looked at."""
        if kind == "epoch":
            self.epochs = facts["epoch"] + 1
            if facts.get("best"):
                self.accuracy, self.loss = facts.get("val_accuracy"), facts.get("val_loss")
            best = self.accuracy if self.accuracy is not None else 0.0
            if self.asked.falls_behind(best, facts["epoch"]) and self.epochs < facts["epochs"]:
                raise _Pruned
        if kind in ("step", "epoch") and self.deadline is not None and time.perf_counter() > self.deadline:
            raise _OutOfTime

    def close(self) -> None:
        """Nothing to close."""

    def facts(self) -> dict[str, Any]:
        """What is known of a trial that did not come to its end."""
        return {"accuracy": self.accuracy, "loss": self.loss, "epochs": self.epochs}


@final
class _Run:
    """One search under way."""

    def __init__(
        self, card: Method, sources: Mapping[str, Source], task: Task, options: SearchOptions, folder: Path | None
    ) -> None:
        self.card, self.sources, self.options, self.folder = card, sources, options, folder
        self.refs = list(sources)
        self.task = replace(task, splits={**task.splits, "test": task.test.subset(torch.empty(0, dtype=torch.int64))})
        self.space = self._space()
        self.best: tuple[int, Program] | None = None

    def _space(self) -> dict[str, Axis]:
        first = self.sources[self.refs[0]]
        config = make_config(self.card, self.options.pinned, preset=self.options.preset, source=first.spec)
        stated, pinned = self.options.space, list(self.options.pinned)
        space = space_of(self.card, config, stated=stated, pinned=pinned, learns=self._learns(first))
        if len(self.refs) > 1:
            space = {"source": Choices(tuple(self.refs)), **space}
        if not space:
            remedy = "Name settings to try with space={...}, or pin fewer."
            raise ConfigError(say("space", f"must hold a setting of {self.card.name} to search", {}, remedy))
        return space

    def _learns(self, source: Source) -> bool:
        """Whether its programs learn by gradient, as far as one can be built with the pinned settings."""
        try:
            program = build(self.card, source, self.task, preset=self.options.preset, **self.options.pinned)
        except ReprogramError:
            return True
        return learns(program)

    def all_trials(self, storage: str | None) -> Trials:
        """The trials of exactly this search, new or taken up."""
        epochs = self.space.get("recipe.epochs")
        most = max(int(e) for e in epochs.ends()) if epochs is not None else self._epochs()
        return Trials(self.space, f"{self.card.name}-{self.identity}", storage, pruner=self.options.pruner,
                      epochs=most, seed=self.options.seed)  # fmt: skip

    def _epochs(self) -> int:
        config = make_config(self.card, self.options.pinned, preset=self.options.preset)
        recipe = getattr(config, "recipe", None)
        return recipe.epochs if recipe is not None else 1

    @cached_property
    def identity(self) -> str:
        """Hash of all that the outcome of a trial depends on."""
        space = {name: str(axis) for name, axis in self.space.items()}
        prints = {ref: source.fingerprint() for ref, source in self.sources.items()}
        parts = (self.task.name, self.task.train.digest(), self.task.val.digest(), prints, space,
                 sorted((k, repr(v)) for k, v in self.options.pinned.items()), self.options.preset,
                 self.options.seed)  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def go(self, trials: Trials) -> None:
        """Trial after trial, until there are enough, time is up, or there is nothing new to try."""
        seconds = self.options.seconds
        deadline = None if seconds is None else time.perf_counter() + seconds
        while len(ended := [t for t in trials.all() if t.state != "cut"]) < self.options.trials:
            different = {repr((t.source, sorted(t.settings.items(), key=str))) for t in ended}
            if len(different) >= trials.size() or (deadline is not None and time.perf_counter() > deadline):
                return
            asked = trials.ask()
            try:
                self._one(trials, asked, ended, deadline)
            except _OutOfTime:
                trials.tell(asked, "cut", {})
                return
            except Exception as problem:  # a mistake of ours: not tried again, but not hidden either
                trials.tell(asked, "failed", {"reason": f"{type(problem).__name__}: {problem}"})
                raise
            except BaseException:
                trials.tell(asked, "cut", {})
                raise
            self._heard(trials)

    def _heard(self, trials: Trials) -> None:
        if self.options.heard is not None:
            now = trials.all()
            done = sum(t.state != "cut" for t in now)
            self.options.heard(self._named(now[-1]), done, self.options.trials)

    def _named(self, trial: Trial) -> Trial:
        return trial if trial.source else replace(trial, source=self.refs[0])

    def _one(self, trials: Trials, asked: Asked, ended: Sequence[Trial], deadline: float | None) -> None:
        start, watch = time.perf_counter(), _Watch(asked, deadline)
        settings = dict(asked.settings)
        ref = str(settings.pop("source", self.refs[0]))
        twin = next((t for t in ended if t.state == "complete" and dict(t.settings) == settings
                     and (t.source or self.refs[0]) == ref), None)  # fmt: skip
        if twin is not None:
            facts = {"accuracy": twin.accuracy, "loss": twin.loss, "learned": twin.learned, "epochs": 0}
            trials.tell(asked, "complete", facts | {"same_as": twin.number})
            return
        try:
            result = self._fit(ref, settings, watch)
        except _Pruned:
            trials.tell(asked, "pruned", watch.facts() | {"seconds": time.perf_counter() - start})
        except (ReprogramError, torch.OutOfMemoryError) as problem:
            reason = " ".join(str(problem).split())
            trials.tell(asked, "failed", watch.facts() | {"reason": reason, "seconds": time.perf_counter() - start})
        else:
            self._complete(trials, asked, result, ended)

    def _fit(self, ref: str, settings: Mapping[str, Any], watch: _Watch | None) -> FitResult:
        options = FitOptions(progress=False, device=self.options.device, listener=watch)
        config = {**self.options.pinned, **settings}
        program = build(self.card, self.sources[ref], self.task, preset=self.options.preset, seed=self.options.seed,
                        **config)  # fmt: skip
        with _hushed():
            return fit(program, self.task, seed=self.options.seed, options=options)

    def _complete(self, trials: Trials, asked: Asked, result: FitResult, ended: Sequence[Trial]) -> None:
        """Keep the program if it is the best, then tell; in this order, so that a kill between loses nothing."""
        metrics = result.validation
        assert metrics is not None
        loss = metrics.loss if metrics.loss == metrics.loss else None
        facts = {"accuracy": metrics.accuracy, "loss": loss, "epochs": len(result.history),
                 "learned": result.program.count().effective, "seconds": result.seconds}  # fmt: skip
        mine = Trial(number=asked.number, source="", settings={}, state="complete", accuracy=metrics.accuracy,
                     loss=loss)  # fmt: skip
        first = all(mine.order < t.order for t in ended if t.state == "complete")
        if first:
            self.best = (asked.number, result.program)
            if self.folder is not None:
                save(result.program, self._file(asked.number), seed=self.options.seed)
        trials.tell(asked, "complete", facts)
        if first and self.folder is not None:
            for old in self.folder.glob(f"trial-{self.identity}-*.safetensors"):
                if old != self._file(asked.number):
                    with suppress(OSError):
                        old.unlink()

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"trial-{self.identity}-{number}.safetensors"

    def winner(self, trials: Trials) -> tuple[Program, Metrics]:
        """The best trial's program: as it is in memory, from its file, or fitted again, which gives the same."""
        complete = sorted((t for t in trials.all() if t.state == "complete"), key=lambda t: t.order)
        if not complete:
            raise FitError(_nothing(trials.all()))
        best = self._named(complete[0])
        if self.best is not None and self.best[0] == best.number:
            program = self.best[1]
        elif self.folder is not None and self._file(best.number).exists():
            program = load(self._file(best.number), self.sources[best.source])
        else:
            program = self._fit(best.source, best.settings, None).program
        return program, evaluate(program, self.task.val)


@contextmanager
def _hushed() -> Generator[None]:
    """A search is made of rates that do not suit; the engine need not warn of each."""
    log = logging.getLogger("reprogram")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _nothing(trials: Sequence[Trial]) -> str:
    failed = list(dict.fromkeys(t.reason for t in trials if t.reason))
    if failed:
        return f"None of {len(trials)} trials came to an end. {' '.join(failed[:3])}"
    return (
        f"None of {len(trials)} trials came to an end in the time there was. Give it more `seconds`, or fewer epochs."
    )


def _ranked(trials: Sequence[Trial], refs: Sequence[str]) -> tuple[Trial, ...]:
    named = [t if t.source else replace(t, source=refs[0]) for t in trials]
    complete = sorted((t for t in named if t.state == "complete"), key=lambda t: t.order)
    return (*complete, *(t for t in named if t.state != "complete"))


def _loaded(sources: Sources) -> dict[str, Source]:
    """Sources by reference, all loaded before the first trial."""
    several = [sources] if isinstance(sources, str) or not isinstance(sources, Sequence) else list(sources)
    found: dict[str, Source] = {}
    for one in several:
        source = load_source(one) if isinstance(one, str) else one
        found[one if isinstance(one, str) else source.spec.ref] = source
    if not found or len(found) < len(several):
        got = [s if isinstance(s, str) else s.spec.ref for s in several]
        raise ConfigError(say("sources", "must be one or more, each once", got))
    return found


@contextmanager
def _place(options: SearchOptions) -> Generator[tuple[str | None, Path | None]]:
    """The storage's address and the folder beside it, locked against a second search."""
    if options.storage is None and options.out is None:
        yield None, None
        return
    if options.storage is None:
        assert options.out is not None
        with Workspace(options.out) as place:
            yield f"sqlite:///{place.folder / 'search.db'}", place.folder
        return
    url, path = address(os.fspath(options.storage))
    if path is None:
        yield url, None
        return
    with Workspace(path) as place:
        yield url, place.folder
