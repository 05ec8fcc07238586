"""`rank`: which source will reprogram best to this task, before any of them is fitted in full."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

from reprogram.core.errors import ConfigError, ReprogramError, SourceError, say
from reprogram.core.plain import plain
from reprogram.core.source import Source
from reprogram.rank.agreement import Agreement, agreement
from reprogram.rank.names import SCORES
from reprogram.rank.options import RankOptions
from reprogram.rank.order import Evidence, recommend
from reprogram.rank.work import Measured, Worker
from reprogram.sources import ModuleSource, load_source
from reprogram.tasks import Task

ALL, TRAINED = "all sources", "without random twins"

Refs = Sequence[str | Source] | Mapping[str, str | Source]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRow:
    """One source.

    Attributes:
        source: its name in this ranking.
        ref: how to load it again.
        twin_of: the source whose architecture it has, with random weights; None for an ordinary source.
        position: in the recommended order, from 1; None if it could not be ranked.
        scores: by name; None where there is none, with the reason in `missing`.
        seconds: what each score costs on its own. Scores of one diagnosis share its work.
        missing: reasons by score.
        full_rank: whether the program's kernel has full rank on it; None without a diagnosis.
        at_chance: whether the probe is no better than a constant answer; None without a probe.
        validation: test accuracy of the full fits, one a seed; empty if not validated.
        parts: wall seconds of what was done: scores, diagnosis, probe, and the full fits.
        notes: warnings, and what could not be done.
        error: why the source is not ranked, else empty.
    """

    source: str
    ref: str
    twin_of: str | None
    position: int | None
    scores: Mapping[str, float | None]
    seconds: Mapping[str, float]
    missing: Mapping[str, str]
    full_rank: bool | None
    at_chance: bool | None
    validation: tuple[float, ...]
    parts: Mapping[str, float]
    notes: tuple[str, ...]
    error: str = ""

    @property
    def actual(self) -> float | None:
        """Mean accuracy of the full fits."""
        return sum(self.validation) / len(self.validation) if self.validation else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Sources in the order in which to try them.

    Attributes:
        task: name of the task.
        method: name of the method.
        rows: in the recommended order; sources that could not be ranked come last.
        reason: how the order came about.
        agreement: how well every score's order agrees with the outcome, if that was taken: "all sources" and, with
            random twins among them, "without random twins".
        sample: digest of the pictures that all scores were taken on.
        n: how many these are.
        seed: of the sample.
        warnings: about the ranking as a whole.
        seconds: wall time of this run.
    """

    task: str
    method: str
    rows: tuple[RankRow, ...]
    reason: str
    agreement: Mapping[str, tuple[Agreement, ...]]
    sample: str
    n: int
    seed: int
    warnings: tuple[str, ...]
    seconds: float

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the sources, the recommended one first."""
        return tuple(row.source for row in self.rows if row.position is not None)

    @property
    def regret(self) -> float | None:
        """Accuracy lost by taking the first of the order instead of the best; None if not validated."""
        found = [a.regret for a in self.agreement.get(ALL, ()) if a.score == "recommended"]
        return found[0] if found else None

    def table(self) -> list[dict[str, Any]]:
        """A row a source for printing: place, name, outcome, then every score that any source has."""
        names = [n for n in SCORES if any(row.scores.get(n) is not None for row in self.rows)]
        return [
            {"place": row.position, "source": row.source}
            | ({"actual": row.actual} if self.agreement else {})
            | {name: row.scores.get(name) for name in names}
            for row in self.rows
        ]

    def costs(self) -> dict[str, float]:
        """Mean seconds a source by score."""
        names = [n for n in SCORES if any(n in row.seconds for row in self.rows)]
        taken = {n: [row.seconds[n] for row in self.rows if n in row.seconds] for n in names}
        return {name: sum(seconds) / len(seconds) for name, seconds in taken.items()}

    def card(self) -> dict[str, Any]:
        """All of it, as JSON knows it."""
        return plain(
            {
                "task": self.task,
                "method": self.method,
                "n": self.n,
                "seed": self.seed,
                "sample": self.sample,
                "order": self.order,
                "reason": self.reason,
                "warnings": self.warnings,
                "rows": [asdict(row) | {"actual": row.actual} for row in self.rows],
                "costs": self.costs(),
                "scores": {name: {"label": s.label, "higher": s.higher, "kind": s.kind} for name, s in SCORES.items()},
                "agreement": {pool: [one.card() for one in found] for pool, found in self.agreement.items()},
                "regret": self.regret,
                "seconds": self.seconds,
            }
        )


def rank(sources: Refs, task: Task, *, method: str = "vp", options: RankOptions | None = None) -> Ranking:
    """Rank sources by how well they can be expected to reprogram to a task.

    All scores are taken on the same pictures of the training split. The test split is used for nothing, unless
    `options.validate` asks for the outcome.

    Args:
        sources: references for `load_source`, or sources, or a mapping of names to these.
        task: the target.
        method: what they shall be reprogrammed with.
        options: settings.

    Returns:
        Rows of scores in the recommended order. A source that fails has a row that says why.

    Raises:
        ConfigError: no source, an unknown method, a setting out of range.
        SourceError: none of the sources could be measured.

    Example:
        ranking = rank(["bundled/efficientnet-lite0", "timm/resnet18"], load_task("bundled/mnist5k"), method="blm")
        print(ranking.order, ranking.reason)
    """
    start, options = time.perf_counter(), options or RankOptions()
    named = _named(sources)
    if not named:
        raise ConfigError(say("sources", "must be one or more", list(named)))
    if options.validate and not len(task.test) + len(task.val):
        raise ConfigError(say("validate", f"needs test pictures, which {task.name} has not", options.validate))
    worker = Worker(method, task, options, len(named) * (1 + options.twins))
    measured = list[Measured]()
    for name, source in named.items():
        measured += _pair(worker, name, source)
    rows, reason = _ordered(measured)
    if not any(row.position for row in rows):
        failures = "; ".join(f"{row.source}: {row.error}" for row in rows)
        raise SourceError(f"None of the sources could be ranked. {failures}")
    return Ranking(
        task=task.name, method=worker.card.name, rows=rows, reason=reason, n=len(worker.sample.y), seed=options.seed,
        agreement=_agreements(rows, options.seed) if options.validate else {}, sample=worker.digest,
        warnings=_warnings(rows), seconds=time.perf_counter() - start,
    )  # fmt: skip


def _named(sources: Refs) -> dict[str, str | Source]:
    """Names to sources; one that comes twice gets a number."""
    if isinstance(sources, Mapping):
        return {str(name): source for name, source in sources.items()}
    if isinstance(sources, str):
        raise ConfigError(say("sources", "must be a list or a mapping", sources, f'Try ["{sources}"].'))
    made: dict[str, str | Source] = {}
    for source in sources:
        name = source if isinstance(source, str) else source.spec.ref
        count = sum(other == name or other.startswith(f"{name} (") for other in made) + 1
        made[name if count == 1 else f"{name} ({count})"] = source
    return made


def _pair(worker: Worker, name: str, given: str | Source) -> list[Measured]:
    """A source and, if twins are wanted, its random twin."""
    twins = worker.options.twins
    try:
        source = load_source(given) if isinstance(given, str) else given
    except (ReprogramError, OSError, RuntimeError, ValueError) as problem:
        for _ in range(1 + twins):
            worker.skip()
        ref = given if isinstance(given, str) else given.spec.ref
        return [Measured(name=name, ref=ref, missing={"source": " ".join(str(problem).split())})]
    found = [worker.measure(source, name)]
    if twins:
        found += _twin(worker, name, source, found[0])
    return found


def _twin(worker: Worker, name: str, source: Source, original: Measured) -> list[Measured]:
    try:
        if not isinstance(source, ModuleSource):
            raise SourceError(say("source", "must be a module to be randomised", source.spec.ref))
        seed = worker.options.seed + crc32(name.encode()) % 10_000  # twins of one shape differ
        twin = source.randomised(seed, calibrate=worker.placed(source))
    except SourceError as problem:
        worker.skip()
        original.notes.append(f"no random twin: {problem}")
        return []
    return [worker.measure(twin, f"{name} (random)", twin_of=name)]


def _ordered(measured: Sequence[Measured]) -> tuple[tuple[RankRow, ...], str]:
    """Rows in the recommended order, and the reason."""
    fate = {one.name: _verdict(one) for one in measured}
    ranked = [one for one in measured if fate[one.name] is None]
    order, reason = recommend([Evidence(name=one.name, scores=one.scores, at_chance=one.at_chance) for one in ranked])
    rows = [_row(one, order.index(one.name) + 1 if one in ranked else None, fate[one.name]) for one in measured]
    return tuple(sorted(rows, key=lambda row: (row.position is None, row.position))), reason


def _verdict(one: Measured) -> str | None:
    """None for a source that can be ranked, because it has a probe or a diagnosis; else what went wrong."""
    if one.scores.get("probe_accuracy") is not None or one.full_rank is not None:
        return None
    parts = ("source", "diagnosis", "probe")
    return "; ".join(dict.fromkeys(one.missing[part] for part in parts if part in one.missing))


def _row(one: Measured, position: int | None, gone: str | None) -> RankRow:
    return RankRow(
        source=one.name, ref=one.ref, twin_of=one.twin_of, position=position, scores=dict(one.scores),
        seconds=dict(one.seconds), missing=dict(one.missing), full_rank=one.full_rank, at_chance=one.at_chance,
        validation=tuple(one.validation), parts=dict(one.parts), notes=tuple(one.notes), error=gone or "",
    )  # fmt: skip


def _agreements(rows: Sequence[RankRow], seed: int) -> dict[str, tuple[Agreement, ...]]:
    """Every score against the outcome, over all sources and over those that are no random twins."""
    pools = {ALL: list(rows)}
    if any(row.twin_of for row in rows):
        pools[TRAINED] = [row for row in rows if row.twin_of is None]
    return {pool: tuple(_against(name, members, seed) for name in SCORES) for pool, members in pools.items()}


def _against(name: str, rows: Sequence[RankRow], seed: int) -> Agreement:
    if name == "recommended":
        score = [None if row.position is None else -float(row.position) for row in rows]
        return agreement(name, score, [row.actual for row in rows], seed=seed)
    score = [row.scores.get(name) for row in rows]
    return agreement(name, score, [row.actual for row in rows], higher=SCORES[name].higher, seed=seed)


def _warnings(rows: Sequence[RankRow]) -> tuple[str, ...]:
    """What somebody who reads only the order should know."""
    made = [f"{row.source} could not be ranked: {row.error}" for row in rows if row.position is None]
    places = {row.source: row.position or math.inf for row in rows}
    for row in rows:
        if row.twin_of and row.position and row.position < places.get(row.twin_of, math.inf):
            made.append(f"{row.source} stands above {row.twin_of}: the pretrained weights may not help on this task.")
    if rows and rows[0].at_chance:
        made.append("No source's probe did better than a constant answer: this order says little.")
    return tuple(made)
