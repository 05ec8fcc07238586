"""Measuring one source after another, part by part: what is there already is taken, what fails is said."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

from torch import Tensor

from reprogram.catalogue import build, find, make_config
from reprogram.core.errors import ConfigError, ReprogramError, say
from reprogram.core.plain import plain
from reprogram.core.program import Program
from reprogram.core.source import Source
from reprogram.fit import FitOptions, fit
from reprogram.inputs import Place
from reprogram.media import as_unit
from reprogram.ntk import DiagnoseOptions
from reprogram.ntk.diagnose import digest
from reprogram.rank.cells import Cells
from reprogram.rank.diagnose import diagnose, target_sample
from reprogram.rank.glance import facts, glance, transferability
from reprogram.rank.options import RankOptions
from reprogram.rank.probe import Trial, probe
from reprogram.tasks import Task

RESUMABLE = 50 << 20
"""A full fit of a program of at most so many bytes keeps checkpoints, so that it goes on from the middle."""

NO_FIGURE = "zero by structure, below the noise floor, or not defined for this program"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Measured:
    """One source's numbers as they come in.

    Attributes:
        name: what the ranking calls it.
        ref: how to load it again.
        twin_of: name of the source whose architecture it has with random weights; None for an ordinary source.
        scores: by name; None where there is none, with the reason in `missing`.
        seconds: what each score cost on its own, shared work included.
        missing: reasons by score or part.
        full_rank: whether the program's kernel has full rank.
        at_chance: whether the probe is no better than a constant answer.
        validation: accuracy of the full fits, one a seed.
        notes: warnings of the diagnosis, and what could not be done.
        parts: wall seconds of every part.
    """

    name: str
    ref: str = ""
    twin_of: str | None = None
    scores: dict[str, float | None] = field(default_factory=lambda: {})
    seconds: dict[str, float] = field(default_factory=lambda: {})
    missing: dict[str, str] = field(default_factory=lambda: {})
    full_rank: bool | None = None
    at_chance: bool | None = None
    validation: list[float] = field(default_factory=lambda: [])
    notes: list[str] = field(default_factory=lambda: [])
    parts: dict[str, float] = field(default_factory=lambda: {})


@final
class Worker:
    """Everything that is the same for all sources of a ranking.

    Args:
        method: what they are ranked for.
        task: the target.
        options: settings.
        sources: how many there will be, for the time left.

    Raises:
        ConfigError: the method or a setting is unknown, or the task has too few pictures.
    """

    def __init__(self, method: str, task: Task, options: RankOptions, sources: int) -> None:
        self.card = find(method)
        make_config(self.card, options.config, preset=options.preset)  # a mistake shows before anything is loaded
        self.method, self.task, self.options = method, task, options
        self.sample = target_sample(task, options.n, options.seed)
        self.digest = digest(self.sample.x, self.sample.y)
        self.place = FitOptions(device=options.device).place()
        self.cells = Cells(options.out)
        fits = [f"fit {seed}" for seed in options.seeds] if options.validate else []
        self.clock = Clock(["scores", "diagnosis", "probe", *fits], sources)

    def measure(self, source: Source, name: str, twin_of: str | None = None) -> Measured:
        """All parts of one source; a part that fails leaves a note."""
        source.to(self.place)
        found = Measured(name=name, ref=source.spec.ref, twin_of=twin_of)
        identity = self._identity(source)
        self._part(found, "scores", identity, lambda: self._scores(source, found))
        self._part(found, "diagnosis", identity, lambda: self._diagnosis(source))
        self._part(found, "probe", identity, lambda: self._probe(source))
        for seed in self.options.seeds if self.options.validate else ():
            self._part(found, f"fit {seed}", identity, lambda s=seed: self._fit(source, s, identity))
        self.clock.sources -= 1
        return found

    def skip(self) -> None:
        """A source that cannot be had takes no time."""
        self.clock.sources -= 1

    def placed(self, source: Source) -> Tensor:
        """The sample on the source's canvas, [N, channel, height, width] in [0, 1]."""
        size = source.spec.canvas(getattr(self._settings(source), "canvas", None))
        return Place(size, size)(as_unit(self.sample.x))

    # -- parts -----------------------------------------------------------------------------------------------------

    def _part(
        self, found: Measured, part: str, identity: Mapping[str, Any], work: Callable[[], dict[str, Any]]
    ) -> None:
        key = self._key(part, identity)
        result = self.cells.get(key)
        state = "was there"
        if result is None:
            result, state = self._try(found, part, work)
            if result is not None:
                self.cells.put(key, result)
        if result is not None:
            found.parts[part] = float(result["wall"])
            _take(found, part, result)
        if self.options.progress is not None:
            self.options.progress(f"{found.name}: {part} {state}{self.clock.left(part)}")

    def _try(self, found: Measured, part: str, work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any] | None, str]:
        """Do a part: what came of it, None if it failed, and a word on how it went."""
        start = time.perf_counter()
        try:
            result = work()
        except Exception as problem:  # one source's failure is not the others'
            found.missing[part] = _words(problem)
            found.notes.append(f"{part} failed: {_words(problem)}")
            log.warning("%s: %s failed: %s", found.name, part, _words(problem))
            return None, "failed"
        took = time.perf_counter() - start
        self.clock.took(part, took)
        return plain(result | {"wall": took}), f"{took:.1f} s"

    def _scores(self, source: Source, found: Measured) -> dict[str, Any]:
        known = facts(source, twin=found.twin_of is not None)
        canvas = getattr(self._settings(source), "canvas", None)
        seen = glance(source, self.sample.x, canvas)
        told = transferability(seen, self.sample.y, len(self.task.classes))
        return {
            "scores": known.scores | told.scores,
            "seconds": known.seconds | told.seconds,
            "missing": known.missing | told.missing,
        }

    def _diagnosis(self, source: Source) -> dict[str, Any]:
        options = self.options
        found = diagnose(
            source, self.task, method=self.method, sample=self.sample,
            config={**options.config, "preset": options.preset, "seed": options.seed},
            options=DiagnoseOptions(source_samples=options.source_n, seed=options.seed),
        )  # fmt: skip
        if found.digest != self.digest:
            raise ConfigError(say("sample", "must be the same for all sources of a ranking", found.digest[:12]))
        scores = found.scores()
        missing = {name: NO_FIGURE for name, value in scores.items() if value is None}
        return {"scores": scores, "seconds": _shares(found.seconds, scores), "missing": missing,
                "full_rank": found.full_rank, "notes": list(found.warnings)}  # fmt: skip

    def _probe(self, source: Source) -> dict[str, Any]:
        options = self.options
        found = probe(self.method, source, self.task, self._trial(options.seed, options.probe_epochs),
                      samples=options.probe_samples)  # fmt: skip
        scores = {"probe_accuracy": found.accuracy, "probe_loss": found.loss}
        missing = {} if found.loss is not None else {"probe_loss": "nothing is learned by gradient"}
        return {"scores": scores, "seconds": dict.fromkeys(scores, found.seconds), "missing": missing,
                "at_chance": found.at_chance, "probe": found.card()}  # fmt: skip

    def _fit(self, source: Source, seed: int, identity: Mapping[str, Any]) -> dict[str, Any]:
        trial = self._trial(seed, self.options.validate_epochs)
        program = build(self.method, source, self.task, preset=trial.preset, seed=seed, **trial.config)
        recipe = None
        if trial.epochs is not None and program.origin is not None:
            recipe = replace(program.origin.recipe, epochs=trial.epochs)
        out = self.cells.path(self._key(f"fit {seed}", identity), ".safetensors") if _small(program) else None
        options = FitOptions(recipe=recipe, device=trial.device, progress=False)
        done = fit(program, self.task, seed=seed, out=out, resume=out is not None, options=options)
        scored = done.test or done.validation
        if scored is None:
            raise ConfigError(say("task", "must have test or validation pictures to validate on", self.task.name))
        return {"accuracy": scored.accuracy, "split": "test" if done.test else "validation",
                "interval": list(scored.interval()), "seconds": {"fit": done.seconds}}  # fmt: skip

    # -- what decides a part -----------------------------------------------------------------------------------------

    def _key(self, part: str, identity: Mapping[str, Any]) -> dict[str, Any]:
        options, key = self.options, {"part": part, **identity, "seed": self.options.seed}
        if part in ("scores", "diagnosis"):
            key |= {"sample": self.digest, "source_n": options.source_n if part == "diagnosis" else 0}
        elif part == "probe":
            key |= {"epochs": options.probe_epochs, "samples": options.probe_samples}
            key["task"] = [self.task.train.digest(), self.task.val.digest()]
        else:
            key |= {"epochs": options.validate_epochs, "seed": int(part.removeprefix("fit "))}
            key["task"] = [split.digest() for split in (self.task.train, self.task.val, self.task.test)]
        return key

    def _identity(self, source: Source) -> dict[str, Any]:
        spec = source.spec
        return {
            "source": spec.ref,
            "weights": source.fingerprint(),
            "pixels": [list(spec.input_shape), asdict(spec.preprocessing)],
            "method": self.card.name,
            "settings": asdict(self._settings(source)),
            "classes": list(self.task.classes),
        }

    def _settings(self, source: Source) -> Any:
        return make_config(self.card, self.options.config, preset=self.options.preset, source=source.spec)

    def _trial(self, seed: int, epochs: int | None) -> Trial:
        options = self.options
        return Trial(preset=options.preset, config=options.config, epochs=epochs, seed=seed, device=options.device)


@final
class Clock:
    """How long the rest will take, from what the parts took so far."""

    def __init__(self, parts: list[str], sources: int) -> None:
        self.parts, self.sources = parts, sources
        self.seconds: dict[str, list[float]] = {part: [] for part in parts}

    def took(self, part: str, seconds: float) -> None:
        """A part was done."""
        self.seconds[part].append(seconds)

    def left(self, part: str) -> str:
        """The time left after this part of the present source, in words; empty while a part is still unknown.

        >>> clock = Clock(["probe"], 3)
        >>> clock.took("probe", 90.0)
        >>> clock.left("probe")
        ', about 3 min left'
        """
        last = self.parts.index(part) + 1
        rounds = {name: self.sources - (i < last) for i, name in enumerate(self.parts)}
        if any(n > 0 and not self.seconds[name] for name, n in rounds.items()):
            return ""
        rest = sum(n * sum(s) / len(s) for name, n in rounds.items() if n > 0 and (s := self.seconds[name]))
        if rest < 60:
            return ", under a minute left" if rest > 0 else ""
        return f", about {math.ceil(rest / 60)} min left"


def _shares(stages: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """What each figure of a diagnosis costs on its own: the stages it needs, the shared ones counted for each."""

    def total(name: str) -> float:
        needs = {"mapping", "sweep", "eigenvalues"}
        if name == "ce_rate":
            needs = {"mapping", "sweep"}
        elif name.startswith("source_"):
            needs = {"sweep", "source kernel", "eigenvalues"}
        return sum(seconds for stage, seconds in stages.items() if stage in needs)

    return {name: total(name) for name in names}


def _take(found: Measured, part: str, result: Mapping[str, Any]) -> None:
    """Enter a part's numbers."""
    if part.startswith("fit "):
        found.validation.append(float(result["accuracy"]))
        return
    found.scores |= result["scores"]
    found.seconds |= result["seconds"]
    found.missing |= result["missing"]
    found.notes += result.get("notes", [])
    found.full_rank = result.get("full_rank", found.full_rank)
    found.at_chance = result.get("at_chance", found.at_chance)


def _small(program: Program) -> bool:
    return 4 * program.count().allocated <= RESUMABLE


def _words(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return text if isinstance(problem, ReprogramError) else f"{type(problem).__name__}: {text}"
