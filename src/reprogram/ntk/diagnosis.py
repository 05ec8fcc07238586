"""What a diagnosis says: numbers with what they predict, how far to trust them, and plain warnings."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, final

from reprogram.core.errors import ConfigError, say
from reprogram.ntk.sketch import SketchResult
from reprogram.ntk.spectrum import Spectrum


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One figure.

    Attributes:
        name: "source lambda_min", ...
        value: the figure, or None where there is none; `shown` then says why.
        shown: what a table prints.
        predicts: one sentence.
        trust: one sentence on how far.
    """

    name: str
    value: float | None
    shown: str
    predicts: str
    trust: str

    def card(self) -> dict[str, Any]:
        """As JSON knows it."""
        return {"name": self.name, "value": _finite(self.value), "shown": self.shown, "predicts": self.predicts,
                "trust": self.trust}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """What a report draws.

    Attributes:
        program: eigenvalues of the program kernel, descending, those above the noise floor.
        source: eigenvalues of the source kernel.
        reach: share of the label energy within the top 1, 2, ... eigenvectors of the program kernel.
        rate: step size that the two loss curves belong to.
        predicted: squared loss after 0, 1, ... steps of gradient descent as the kernel has it, a sample.
        actual: the same measured by training, or empty.
    """

    program: tuple[float, ...] = ()
    source: tuple[float, ...] = ()
    reach: tuple[float, ...] = ()
    rate: float = 0.0
    predicted: tuple[float, ...] = ()
    actual: tuple[float, ...] = ()

    def card(self) -> dict[str, Any]:
        """As JSON knows it."""
        rows = {name: [_finite(v) for v in getattr(self, name)] for name in self.__slots__ if name != "rate"}
        return {**rows, "rate": _finite(self.rate)}


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Diagnosis:
    """Will this source reprogram well to these data? What its kernels say before any training.

    Attributes:
        source: reference of the source.
        task: name of the task.
        method: name of the method, or "by hand".
        mapping: which output map the kernel was read through.
        samples: N.
        targets: T.
        parameters: P, learned numbers of the program.
        source_samples: how many of the N samples the source kernel is of; 0 if there is none.
        precision: of the Jacobian's arithmetic, for people.
        program: spectrum of the program kernel; None if the program learns nothing.
        source_spectrum: of the kernel of the source's own parameters; None where it was not asked for.
        values: every figure by name; None where there is none. The names are `scores()`'s.
        readings: the same figures in words.
        warnings: signs of failure, and what limits these figures.
        curves: for the report.
        routes: how the derivatives were found.
        seconds: what each stage took.
        digest: of the samples; figures of two sources compare only if it is the same.
        seed: of the sample and the label shuffles.
        settings: of the method, where it was built for the diagnosis.
        sketch: figures of the program kernel on many more samples, with error bars, where it was asked for.
        below_rounding: the program moves the scores by less than their rounding, so that its spectrum says nothing.
    """

    source: str
    task: str
    method: str
    mapping: str
    samples: int
    targets: int
    parameters: int
    source_samples: int
    precision: str
    program: Spectrum | None
    source_spectrum: Spectrum | None
    values: Mapping[str, float | None]
    readings: tuple[Reading, ...]
    warnings: tuple[str, ...]
    curves: Curves
    routes: Mapping[str, str]
    seconds: Mapping[str, float]
    digest: str
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    below_rounding: bool = False
    sketch: SketchResult | None = None

    @property
    def full_rank(self) -> bool:
        """The program kernel has no eigenvalue that is zero by structure or lost in noise."""
        return self.program is not None and self.program.rank == self.program.size and not self.below_rounding

    def scores(self) -> dict[str, float | None]:
        """The figures that sources are ranked by; None where a figure would be rounding noise."""
        return dict(self.values)

    def comparable(self, other: "Diagnosis") -> None:
        """Check that two diagnoses are of the same samples, so that their figures may be set side by side.

        Raises:
            ConfigError: they are not; the message says what differs.
        """
        for name in ("digest", "samples", "targets", "source_samples", "method"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                remedy = "Diagnose both on the identical sample, method and mapping."
                raise ConfigError(say(name, f"must be {mine!r} to compare with {self.source}", theirs, remedy))

    def card(self) -> dict[str, Any]:
        """Everything but the eigenvectors, as JSON knows it."""
        return {
            "source": self.source,
            "task": self.task,
            "method": self.method,
            "mapping": self.mapping,
            "seed": self.seed,
            "settings": {k: _plain(v) for k, v in self.settings.items()},
            "samples": self.samples,
            "targets": self.targets,
            "parameters": self.parameters,
            "source_samples": self.source_samples,
            "precision": self.precision,
            "scores": {k: _finite(v) for k, v in self.values.items()},
            "program": _brief(self.program, self.values["program_lambda_min"]),
            "source_kernel": _brief(self.source_spectrum, self.values["source_lambda_min"]),
            "below_rounding": self.below_rounding,
            "sketch": None if self.sketch is None else asdict(self.sketch),
            "readings": [r.card() for r in self.readings],
            "warnings": list(self.warnings),
            "curves": self.curves.card(),
            "routes": dict(self.routes),
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "digest": self.digest,
        }  # fmt: skip


def _plain(value: object) -> bool | int | float | str:
    if isinstance(value, bool | int | str):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _brief(spectrum: Spectrum | None, smallest: float | None) -> dict[str, Any] | None:
    if spectrum is None:
        return None
    return {
        "size": spectrum.size,
        "rank": spectrum.rank,
        "cap": spectrum.cap,
        "noise_floor": spectrum.floor,
        "lambda_max": spectrum.largest,
        "lambda_min": smallest,
        "lambda_min_note": spectrum.smallest_note,
        "trace": spectrum.trace,
    }
