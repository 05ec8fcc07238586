"""The one door to Optuna: trials asked for, told, kept in a file, and taken up again after a kill.

A trial is marked as cut off when it begins, and the mark is taken away when it ends well or badly. So whatever ends the
process, the next one knows which trials were under way, and tries their settings again first.
"""

import importlib
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, final

from reprogram.core.errors import ConfigError, missing_extra, say
from reprogram.search.options import Pruner
from reprogram.search.result import State, Trial
from reprogram.search.space import Axis, Choices, Range

CUT, FACTS = "cut", "facts"


def _optuna() -> ModuleType:
    try:
        found = importlib.import_module("optuna")
    except ImportError as problem:
        raise missing_extra("optuna", "search", "A search") from problem
    found.logging.set_verbosity(found.logging.ERROR)
    return found


@contextmanager
def _quiet() -> Generator[None]:
    """Optuna warns of interfaces that may change; those used here are tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@final
class Asked:
    """A trial under way: settings to try, and a place to report how it goes."""

    def __init__(self, trial: Any, space: Mapping[str, Axis]) -> None:
        self.trial = trial
        trial.set_user_attr(CUT, True)
        self.settings = {name: _suggested(trial, name, axis) for name, axis in space.items()}

    @property
    def number(self) -> int:
        """From 0."""
        return self.trial.number

    def falls_behind(self, accuracy: float, epoch: int) -> bool:
        """Report the best validation accuracy so far; true if the pruner wants no more of this trial."""
        self.trial.report(accuracy, epoch)
        return bool(self.trial.should_prune())


@final
class Trials:
    """The trials of one search.

    Args:
        space: what is searched.
        name: of the search; other searches in the same storage are left alone.
        storage: address for SQLAlchemy; None for memory.
        pruner: see `SearchOptions`.
        epochs: of a trial at most.
        seed: of the choice.

    Raises:
        MissingExtraError: optuna is not installed.
        ConfigError: the storage cannot be used.
    """

    def __init__(
        self, space: Mapping[str, Axis], name: str, storage: str | None, *, pruner: Pruner, epochs: int, seed: int
    ) -> None:  # fmt: skip
        self._space, self._optuna = space, _optuna()
        with _quiet():
            try:
                kept = None if storage is None else self._optuna.storages.RDBStorage(storage)
                self._study = self._optuna.create_study(
                    storage=kept, study_name=name, direction="maximize", load_if_exists=True,
                    pruner=self._pruner(pruner, epochs),
                )  # fmt: skip
            except Exception as problem:  # SQLAlchemy's and its drivers' own kinds
                if isinstance(problem, ImportError) or type(problem).__module__.partition(".")[0] not in _FOREIGN:
                    raise
                cause = " ".join(str(problem).split())[:200]
                raise ConfigError(say("storage", "must be a place for an SQLite file", storage, cause)) from problem
        self._take_up()
        begun = len(self._study.get_trials(deepcopy=False))  # another draw than at the start of the earlier run
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed * 1_000_003 + begun)

    def ask(self) -> Asked:
        """The next trial; one that was cut off comes first."""
        with _quiet():
            return Asked(self._study.ask(), self._space)

    def tell(self, asked: Asked, state: State, facts: Mapping[str, Any]) -> None:
        """How a trial ended. `facts` are fields of `Trial`; a complete one has its accuracy among them."""
        states = self._optuna.trial.TrialState
        asked.trial.set_user_attr(FACTS, dict(facts))
        asked.trial.set_user_attr(CUT, state == "cut")
        with _quiet():
            if state == "complete":
                self._study.tell(asked.trial, facts["accuracy"])
            else:
                self._study.tell(asked.trial, state=states.PRUNED if state == "pruned" else states.FAIL)

    def all(self) -> list[Trial]:
        """Every trial that has ended, in the order in which they began."""
        found: list[Trial] = []
        for one in self._study.get_trials(deepcopy=False):
            if one.state.is_finished():
                facts = {k: v for k, v in one.user_attrs.get(FACTS, {}).items() if k not in ("settings", "source")}
                settings = {name: _value(self._space[name], v) for name, v in one.params.items() if name in self._space}
                source = str(settings.pop("source", ""))
                found.append(
                    Trial(number=one.number, source=source, settings=settings, state=_state(one), **facts)
                )  # fmt: skip
        return found

    def size(self) -> float:
        """How many different settings there are; infinite with a range of numbers."""
        total = 1.0
        for axis in self._space.values():
            if isinstance(axis, Choices):
                total *= len(axis.values)
            else:
                total *= axis.high - axis.low + 1 if axis.whole else float("inf")
        return total

    def importance(self) -> dict[str, float]:
        """Shares of the variance of accuracy that settings explain; empty where there are too few trials."""
        complete = [t for t in self._study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
        if len({t.value for t in complete}) < 2 or len(complete) < 4:
            return {}
        with _quiet():
            try:
                found = self._optuna.importance.get_param_importances(self._study)
            except (ImportError, ValueError, RuntimeError):  # without scikit-learn; settings that never varied
                return {}
        return {name: float(share) for name, share in found.items()}

    def _take_up(self) -> None:
        """Trials that were under way when a process ended are failed, and their settings put first in the queue."""
        states, trials = self._optuna.trial.TrialState, self._study.get_trials(deepcopy=False)
        again = {one.user_attrs.get("retry_of") for one in trials}
        for one in trials:
            if one.state == states.RUNNING:
                self._study.tell(one.number, state=states.FAIL)
            cut = one.state == states.RUNNING or (one.state == states.FAIL and one.user_attrs.get(CUT, False))
            if cut and one.number not in again:
                with _quiet():
                    self._study.enqueue_trial(one.params, user_attrs={"retry_of": one.number})

    def _pruner(self, name: Pruner, epochs: int) -> Any:
        kinds = self._optuna.pruners
        if name == "hyperband":
            return kinds.HyperbandPruner(min_resource=1, max_resource=max(1, epochs))
        return kinds.MedianPruner() if name == "median" else kinds.NopPruner()


_FOREIGN = frozenset({"sqlalchemy", "sqlite3", "alembic", "optuna"})


def address(storage: str | Path) -> tuple[str, Path | None]:
    """A storage as SQLAlchemy wants it, and the file it is, if it is one.

    >>> address("sqlite:///a/b.db"), address("postgresql://host/name")[1]
    (('sqlite:///a/b.db', PosixPath('a/b.db')), None)
    """
    text = str(storage)
    if text.startswith("sqlite:///"):
        return text, Path(text.removeprefix("sqlite:///"))
    if "://" in text:
        return text, None
    return f"sqlite:///{text}", Path(text)


def _state(one: Any) -> State:
    if one.state.name == "COMPLETE":
        return "complete"
    if one.state.name == "PRUNED":
        return "pruned"
    return "cut" if one.user_attrs.get(CUT, True) else "failed"


def _suggested(trial: Any, name: str, axis: Axis) -> Any:
    if isinstance(axis, Choices):
        labels = axis.by_label()
        return labels[trial.suggest_categorical(name, list(labels))]
    if axis.whole:
        return trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(name, axis.low, axis.high, log=axis.log)


def _value(axis: Axis, kept: Any) -> Any:
    if isinstance(axis, Range):
        return kept
    return axis.by_label()[kept]
