"""The diagnosis of a built program: both kernels from one sweep, then eigenvalues, then what follows from them.

The cost is that of the sweep, N (F + T B) for forward and input-only backward passes: the source's own kernel is made
from the same passes, on the first few of the samples because its Gram matrices are what costs.
"""

import hashlib
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.program import Observing, Program, evaluating
from reprogram.core.source import local_module
from reprogram.ntk import dynamics
from reprogram.ntk.diagnosis import Curves, Diagnosis
from reprogram.ntk.follow import follow
from reprogram.ntk.kernel import Jacobian, SourceKernel, jacobian, start_recording
from reprogram.ntk.large import TIME, sketch_kernel
from reprogram.ntk.readings import of_sketch, readings
from reprogram.ntk.signs import below_rounding, beyond_chance, duplicates, signs
from reprogram.ntk.spectrum import Spectrum, spectrum
from reprogram.ntk.sweep import CHUNK, check_source

NAMES = (
    "source_lambda_min", "source_lambda_max", "source_rank", "program_lambda_min", "program_lambda_max", "program_rank",
    "program_cap", "reachable", "gf_loss", "gf_loss_relative", "ce_rate", "alignment", "effective_rank", "condition",
    "trace", "logdet_reg", "loo_accuracy",
)  # fmt: skip
DRAWN = 4000
"""Points of a curve at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnoseOptions:
    """How to diagnose.

    Attributes:
        source_samples: of how many of the first samples the source kernel is made; 0 for none of it.
        fit_mapping: make a statistical output map from the samples first, as training would; False takes it as it is.
        follow: steps of real gradient descent to set beside the predicted loss curve; each costs N (F + B).
        chunk: samples to a forward pass.
        seed: of the label shuffles.
    """

    source_samples: int = 10
    fit_mapping: bool = True
    follow: int = 0
    chunk: int = CHUNK
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("source_samples", 0), ("follow", 0), ("chunk", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(say(name, f"must be {least} or more", getattr(self, name)))


def diagnose(
    program: Program,
    x: Tensor,
    y: Tensor,
    *,
    targets: int | None = None,
    options: DiagnoseOptions | None = None,
    batches: Iterable[tuple[Tensor, Tensor]] | None = None,
) -> Diagnosis:
    """Say what a program's and its source's kernels predict, on N labelled samples.

    Args:
        program: built, not necessarily fitted. Its output map is made from the samples unless options say otherwise,
            and put back afterwards.
        x: [N, ...], as `Split.fetch` gives them. The source kernel is of the first few, so mix the classes.
        y: [N] class numbers.
        targets: T, if it is known otherwise; must be the program's then.
        options: how.
        batches: many more samples to sketch the program's kernel on, through the same output map; see `ntk.large`.

    Raises:
        DataError: one class only, labels that do not fit, or numbers that are not finite.
        CapabilityError: the source gives no gradients, or couples the samples of a batch.
        ConfigError: it would not fit into memory, or the program has another number of targets.
    """
    options = options or DiagnoseOptions()
    _check_labels(x, y)
    with _kept(program), evaluating(program):
        examination = _Examination(program, x, y, options)
        examination.check(targets)
        return examination.run(batches)


@dataclass(slots=True, eq=False)
class _Evidence:
    """What the sweep gave, and what was made of it."""

    found: Jacobian
    source: SourceKernel | None
    y: Tensor
    labels: Tensor
    mine: Spectrum | None = None
    theirs: Spectrum | None = None

    @property
    def residual(self) -> Tensor:
        """[N, T], centred labels less scores."""
        return self.labels - self.found.scores.double()


@final
class _Examination:
    """One diagnosis under way."""

    def __init__(self, program: Program, x: Tensor, y: Tensor, options: DiagnoseOptions) -> None:
        self.program, self.x, self.y, self.options = program, x, y, options
        self.seconds: dict[str, float] = {}

    def run(self, batches: Iterable[tuple[Tensor, Tensor]] | None) -> Diagnosis:
        with self._timed("mapping"):
            if self.options.fit_mapping:
                fit_mapping(self.program, self.x, self.y, self.options.chunk)
        evidence = self._sweep()
        with self._timed("eigenvalues"):
            self._decompose(evidence)
        with self._timed("figures"):
            values, facts = _values(evidence, self.options.seed)
            facts["duplicates"] = float(duplicates(self.x))
            curves = _curves(evidence, max(50, self.options.follow))
        large = None
        with self._timed("sketch"):
            if batches is not None and evidence.found.parts:
                large = sketch_kernel(self.program, batches, chunk=self.options.chunk, seed=self.options.seed)
        with self._timed("following"):
            if self.options.follow and curves.predicted:
                actual = follow(
                    self.program, self.x, evidence.labels, curves.rate, self.options.follow, self.options.chunk
                )
                curves = replace(curves, actual=actual)
        found = self._diagnosis(evidence, values, facts, curves)
        return found if large is None else replace(found, sketch=large, readings=found.readings + of_sketch(large))

    @torch.no_grad()
    def check(self, targets: int | None) -> None:
        """The labels must be among the program's targets; one sample tells how many it has."""
        check_source(self.program.source)
        found = self.program(self.x[:1].to(self.program.source.device)).shape[1]
        if targets not in (None, found):
            remedy = "Take the program of this task, or the task of this program."
            raise ConfigError(say("program", f"must have {targets} targets", found, remedy))
        if int(self.y.max()) >= found:
            raise DataError(say("y", f"must be class numbers below {found}", int(self.y.max())))

    def _sweep(self) -> _Evidence:
        wanted = min(self.options.source_samples, len(self.x))
        source = recording = None
        with self._timed("sweep"):
            if wanted and local_module(self.program.source) is not None:
                recording = start_recording(self.program, self.x, wanted)
            found = jacobian(self.program, self.x, chunk=self.options.chunk,
                             recording=recording.taps if recording else None)  # fmt: skip
        with self._timed("source kernel"):
            if recording is not None:
                source = recording.finish(self.program, self.x[:wanted], found.scores.shape[1])
        y = self.y.to(found.scores.device)
        return _Evidence(found, source, y, dynamics.centred_one_hot(y, found.scores.shape[1]))

    def _decompose(self, evidence: _Evidence) -> None:
        found, source = evidence.found, evidence.source
        evidence.mine = found.spectrum() if found.parts else None
        if source is not None:
            evidence.theirs = spectrum(source.kernel, cap=source.cap, jacobian_eps=found.precision)

    def _diagnosis(
        self, evidence: _Evidence, values: dict[str, float | None], facts: dict[str, float], curves: Curves
    ) -> Diagnosis:
        found, program, source = evidence.found, self.program, evidence.source
        n, targets = found.scores.shape
        of_source = 0 if source is None else source.kernel.shape[0]
        origin, lost = program.origin, bool(facts.get("below_rounding"))
        return Diagnosis(
            source=program.source.spec.ref, task=origin.task.name if origin and origin.task else "",
            method=origin.method if origin else "by hand", mapping=repr(program.output), samples=n, targets=targets,
            parameters=found.parameters, source_samples=of_source,
            precision=f"Jacobian at eps {found.precision:.1e}, Gram and eigenvalues in float64",
            program=evidence.mine, source_spectrum=evidence.theirs, values=values,
            readings=readings(values, evidence.mine, evidence.theirs, (n, of_source), lost=lost),
            warnings=(*_limits(evidence), *signs(evidence.mine, evidence.theirs, found.said, facts, n)),
            curves=curves, routes={**found.routes, **_source_route(source)}, seconds=dict(self.seconds),
            digest=digest(self.x, self.y), seed=self.options.seed, below_rounding=lost,
        )  # fmt: skip

    @contextmanager
    def _timed(self, stage: str) -> Generator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


@torch.no_grad()
def fit_mapping(program: Program, x: Tensor, y: Tensor, chunk: int = CHUNK) -> None:
    """Make a statistical output map from N labelled samples, as training would at its start; others stay.

    Args:
        program: whose output map is meant.
        x: [N, ...].
        y: [N] class numbers.
        chunk: samples to a forward pass.
    """
    output = program.output
    if not isinstance(output, Observing):
        return
    output.forget()
    for rows in torch.arange(len(x)).split(chunk):
        said = program.source(x[rows].to(program.source.device), program.input, output.reading)
        output.observe(said, y[rows].to(said.logits.device))
    output.refresh()


def _values(evidence: _Evidence, seed: int) -> tuple[dict[str, float | None], dict[str, float]]:
    """All figures, and what the warnings need besides."""
    found, mine, theirs = evidence.found, evidence.mine, evidence.theirs
    facts = {"targets": float(found.scores.shape[1])}
    values: dict[str, float | None] = dict.fromkeys(NAMES)
    if theirs is not None:
        values |= {"source_lambda_min": theirs.smallest, "source_lambda_max": theirs.largest,
                   "source_rank": float(theirs.rank)}  # fmt: skip
    if mine is None:
        return values, facts
    n, targets = found.scores.shape
    slope = (found.scores.double().softmax(1) - torch.nn.functional.one_hot(evidence.y, targets)) / n
    values |= {"program_lambda_max": mine.largest, "program_rank": float(mine.rank), "program_cap": float(mine.cap),
               "program_lambda_min": mine.smallest, "ce_rate": found.slope(slope), "trace": mine.mean,
               "reachable": dynamics.reachable(mine, evidence.labels)}  # fmt: skip
    facts["reachable"] = values["reachable"] or 0.0
    if mine.largest > 0:
        values |= _of_spectrum(evidence, mine)
        if below_rounding(mine, found.scores, found.precision):
            values["program_lambda_min"], facts["below_rounding"] = None, 1.0
        facts["beyond_chance"] = beyond_chance(mine, evidence.y, targets, seed)
    return values, facts


def _of_spectrum(evidence: _Evidence, mine: Spectrum) -> dict[str, float | None]:
    residual, n = evidence.residual, len(evidence.y)
    whole = float(residual.square().sum()) / 2
    absolute, relative = (float(v) for v in dynamics.flow_loss(mine, residual, [TIME, TIME / mine.mean]))
    left_out = dynamics.leave_one_out(mine, residual, dynamics.choose_ridge(mine, residual), evidence.found.scores)
    return {
        "gf_loss": absolute / n,
        "gf_loss_relative": relative / whole if whole > 0 else None,
        "alignment": dynamics.alignment(mine, evidence.labels),
        "effective_rank": mine.effective_rank().entropy,
        "condition": mine.condition,
        "logdet_reg": mine.logdet(),
        "loo_accuracy": dynamics.loo_accuracy(left_out, evidence.y),
    }


def _curves(evidence: _Evidence, steps: int) -> Curves:
    mine, theirs = evidence.mine, evidence.theirs
    own = _drawn(theirs.eigenvalues[: theirs.rank]) if theirs is not None else ()
    if mine is None or mine.largest <= 0:
        return Curves(source=own)
    rate = 1 / mine.largest
    predicted = dynamics.descent_loss(mine, evidence.residual, rate, range(steps + 1)) / len(evidence.y)
    reach = _drawn(dynamics.reachable_curve(mine, evidence.labels))
    return Curves(program=_drawn(mine.eigenvalues[: mine.rank]), source=own, reach=reach, rate=rate,
                  predicted=_drawn(predicted))  # fmt: skip


def _drawn(values: Tensor) -> tuple[float, ...]:
    return tuple(float(v) for v in values[:DRAWN])


def _limits(evidence: _Evidence) -> list[str]:
    """What limits the figures, apart from what they say."""
    found, source = evidence.found, evidence.source
    seen, targets = len(evidence.y.unique()), found.scores.shape[1]
    limits: list[str] = []
    if seen < targets:
        limits.append(f"Only {seen} of {targets} classes are among the samples: all figures are about these. Take more "
                      "samples.")  # fmt: skip
    if found.precision > 1e-5:
        limits.append(f"Half precision: the Jacobian carries a relative error of {found.precision:.0e}, and the noise "
                      "floor is raised accordingly. Load the source in float32 for more.")  # fmt: skip
    if source is not None and source.rest:
        slow = f"{source.parameters - source.layerwise:,} of the source's {source.parameters:,} numbers"
        which = ", ".join(source.rest[:3])
        limits.append(f"{slow} went through autograd one output at a time ({which}, …): right, but slow.")
    if found.outputs < targets:
        limits.append(f"The label mapping can move only {found.outputs} of the {targets} targets independently: the "
                      "source puts these pictures into too few of its classes. No kernel read through it has full "
                      "rank; a method with another output map may do better.")  # fmt: skip
    if not found.parts:
        limits.append("The program learns nothing by gradients, so only the source has a kernel.")
    return limits


def _source_route(source: SourceKernel | None) -> dict[str, str]:
    if source is None:
        return {}
    return {"source": f"layer by layer for {source.layerwise:,} of {source.parameters:,} numbers"}


def digest(x: Tensor, y: Tensor) -> str:
    """SHA-256 over samples and labels, in order."""
    found = hashlib.sha256(f"{x.dtype} {tuple(x.shape)}\n".encode())
    for value in (x, y):
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _check_labels(x: Tensor, y: Tensor) -> None:
    if y.ndim != 1 or len(x) != len(y) or y.dtype.is_floating_point:
        raise DataError(say("y", f"must be {len(x)} class numbers", f"{list(y.shape)} of {y.dtype}"))
    if not len(y) or int(y.min()) < 0:
        raise DataError(say("y", "must be class numbers from 0 on, and at least one", y[:10].tolist()))
    if len(y.unique()) < 2:
        remedy = "With one class there is nothing to tell apart; mix the classes, or take more samples."
        raise DataError(say("y", "must have samples of two classes or more", f"{len(y)} of one class", remedy))


@contextmanager
def _kept(program: Program) -> Generator[None]:
    """Whatever the diagnosis does to a program's numbers is undone."""
    output = program.output
    state = {name: value.detach().clone() for name, value in program.state_dict().items()}
    counts = output.statistics() if isinstance(output, Observing) else None
    try:
        yield
    finally:
        program.load_state_dict(state)
        if counts is not None and isinstance(output, Observing):
            output.load_statistics(counts)
