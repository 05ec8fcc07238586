"""What a kernel too large to hold says, from one pass over its rows: a Johnson-Lindenstrauss sketch.

With S a [P, k] matrix of random signs, `Y = J S / sqrt(k)` has `Y Y^T` close to `K = J J^T`, and the same eigenvalues
as the small `Y^T Y`, [k, k]. So Y is never held: a block of rows adds its part of `Y^T Y`, of `Y^T r`, and of what is
exact (the trace, `|r|^2`, and `J^T r` where there is no second factor). Memory does not grow with N, blocks may come in
any order, and sketches of disjoint blocks add up (`merge`).

A row of a full linear program is an outer product `g x f` with P Q entries; it is sketched as `(S1 g) * (S2 f)`.

Estimates carry error bars: spread over groups of columns (a jackknife) together with the whole of the bias that the
groups reveal, although the bias is also taken out. Where it shrinks too slowly with k to be taken out, the bar reaches
to what is known for certain (a loss is 0 or more): take more columns. lambda_min cannot be had from a sketch at all:
with k < NT it is 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.ntk.lanczos import Estimate
from reprogram.ntk.spectrum import gram

_SLOW = 0.83  # of what a bias that falls as 1/k shows at half of the columns; 0.86 for 1/sqrt(k), 0.74 for a logarithm
_BLOCK = 4096  # rows of S in float32 at a time; the whole is held as int8


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchResult:
    """Figures of a kernel from its sketch; there is no lambda_min among them.

    Attributes:
        columns: k.
        samples: N.
        targets: T.
        trace: exact.
        largest: lambda_max.
        alignment: `r . K r / (|r|^2 |K|_F)`.
        logdet: as `Spectrum.logdet`.
        times: t of `flow_loss`.
        flow_loss: as `dynamics.flow_loss`, an estimate for each time.
    """

    columns: int
    samples: int
    targets: int
    trace: Estimate
    largest: Estimate
    alignment: Estimate
    logdet: Estimate
    times: tuple[float, ...]
    flow_loss: tuple[Estimate, ...]


@final
class Sketch:
    """A running sketch: `add` blocks of rows, then `finish`.

    Args:
        columns: k; the error falls with it, as 1/sqrt(k) or better, and memory grows with k^2.
        seed: of S; only sketches of the same seed can be merged.
        groups: of columns, for the error bars.

    Raises:
        ConfigError: fewer than 2 groups, or fewer than 4 columns a group.

    >>> sketch = Sketch(64)
    >>> sketch.add(torch.ones(3, 2, 5), torch.tensor([[1.0, -1.0]]).expand(3, 2))
    >>> sketch.finish().trace
    Estimate(value=30.0, error=0.0)
    """

    def __init__(self, columns: int, seed: int = 0, groups: int = 8) -> None:
        if groups < 2 or columns < 4 * groups:
            raise ConfigError(say("columns", "must be 4 or more for each of 2 or more groups", (columns, groups)))
        self.columns, self.seed, self.groups = columns, seed, groups
        self.samples = self.targets = 0
        self._trace = self._energy = 0.0
        self._small = torch.zeros(columns, columns, dtype=torch.float64)  # k Y^T Y, without the division by k
        self._inner = torch.zeros(columns, dtype=torch.float64)
        self._pulled: Tensor | None = None  # J^T r, exact; None with factors
        self._signs: tuple[Tensor, ...] = ()

    @property
    def mean(self) -> float:
        """The mean eigenvalue so far, `trace / NT`, exact; the unit in which to choose `times`."""
        return self._trace / max(self.samples * self.targets, 1)

    @torch.no_grad()
    def add(
        self,
        rows: Float[Tensor, " batch target param"],
        targets: Float[Tensor, " batch target"],
        factor: Float[Tensor, " batch factor"] | None = None,
    ) -> None:
        """Take in a block of samples.

        Args:
            rows: J, or the first factors g of its rows.
            targets: r, the centred labels or residuals of the same samples.
            factor: f, one a sample, if a row of J is the outer product of g and f.

        Raises:
            DataError: shapes differ from the blocks before, or a number is not finite; nothing is taken in then.
        """
        self._check(rows, targets, factor)
        signs = self._signs or self._draw(rows, factor)
        flat, r = rows.flatten(0, 1), targets.flatten().double()
        projected = _project(flat, signs[0])
        norms, pulled = _exact(flat, r)
        if factor is not None:
            projected = projected * _project(factor, signs[1]).repeat_interleave(rows.shape[1], 0)
            norms = norms * factor.double().square().sum(1).repeat_interleave(rows.shape[1])
        small, trace, energy = gram(projected.T).cpu(), float(norms.sum()), float(r.square().sum())
        if not math.isfinite(trace + energy + float(small.trace())):
            got = f"inf or nan in samples {self.samples} to {self.samples + len(rows) - 1}"
            raise DataError(say("rows", "must be finite, and so must the targets", got))
        self._signs, self.targets, self.samples = signs, rows.shape[1], self.samples + len(rows)
        self._trace, self._energy = self._trace + trace, self._energy + energy
        self._small += small
        self._inner += (projected.double().T @ r).cpu()
        if factor is None:
            self._pulled = pulled if self._pulled is None else self._pulled + pulled

    def merge(self, other: "Sketch") -> None:
        """Take in all that another sketch of the same S has seen; it stays as it is.

        Raises:
            ConfigError: the seeds or numbers of columns differ.
            DataError: the rows have other shapes.
        """
        if (self.columns, self.seed) != (other.columns, other.seed):
            need = f"must have {self.columns} columns and seed {self.seed}"
            raise ConfigError(say("other", need, (other.columns, other.seed)))
        if not other.samples:
            return
        if self.samples and (self.targets, self._shape) != (other.targets, other._shape):
            need = f"must have rows of the shape {(self.targets, *self._shape)}"
            raise DataError(say("other", need, (other.targets, *other._shape)))
        self.targets, self._signs = other.targets, other._signs
        self.samples, self._trace, self._energy = (
            self.samples + other.samples, self._trace + other._trace, self._energy + other._energy)  # fmt: skip
        self._small = self._small + other._small
        self._inner = self._inner + other._inner
        if other._pulled is not None:
            self._pulled = other._pulled.clone() if self._pulled is None else self._pulled + other._pulled

    def finish(self, times: Sequence[float] = (), reg: float = 1e-3) -> SketchResult:
        """The figures, each with an error bar; more blocks can be added afterwards.

        Args:
            times: t of the flow loss, such as `10 / sketch.mean`.
            reg: of the log-determinant, relative to the mean eigenvalue.

        Raises:
            ConfigError: a time is negative, or reg is not above 0.
            DataError: there is nothing to describe: no rows, all of them zero, or all targets zero.
        """
        if any(not 0 <= t < math.inf for t in times) or not 0 < reg < math.inf:
            raise ConfigError(say("times", "must be 0 or more, and reg above 0", (list(times), reg)))
        if not self._trace or not self._energy:
            got = {"samples": self.samples, "trace": self._trace, "energy of the targets": self._energy}
            raise DataError(say("sketch", "must have seen rows and targets that are not all zero", got))
        value, bias, spread, slow = self._jackknife(times, reg)
        limit = torch.tensor([self.mean, math.log((1 + reg) * self.mean), *[0.0] * len(times)], dtype=torch.float64)
        spread[0] = spread[0].maximum((value[0] - bias[0]) * math.sqrt(2 / self.columns))  # one large eigenvalue's law
        error = torch.where(slow, (value - limit).abs(), (spread.square() + bias.square()).sqrt())
        value = value - bias
        value[0] = value[0].clamp(self.mean, self._trace)
        value[1] = value[1].clamp_max(limit[1])
        value[2:] = value[2:].clamp(0.0, self._energy / 2)
        made = [Estimate(float(v), float(e)) for v, e in zip(value, error, strict=True)]
        return SketchResult(columns=self.columns, samples=self.samples, targets=self.targets,
                            trace=Estimate(self._trace, 0.0), largest=made[0], alignment=self._alignment(),
                            logdet=made[1], times=tuple(times), flow_loss=tuple(made[2:]))  # fmt: skip

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(len(signs) for signs in self._signs)

    def _check(self, rows: Tensor, targets: Tensor, factor: Tensor | None) -> None:
        if targets.shape != rows.shape[:2] or (factor is not None and len(factor) != len(rows)):
            raise DataError(say("targets", f"must have the shape {tuple(rows.shape[:2])} of the rows", targets.shape))
        shape = (rows.shape[2],) if factor is None else (rows.shape[2], factor.shape[1])
        if self._signs and (self.targets, self._shape) != (rows.shape[1], shape):
            need = f"must be as in the blocks before, {(self.targets, *self._shape)}"
            raise DataError(say("rows", need, (rows.shape[1], *shape)))

    def _draw(self, rows: Tensor, factor: Tensor | None) -> tuple[Tensor, ...]:
        """S, or its two factors: signs in order from one generator, the same on every machine."""
        generator = torch.Generator().manual_seed(self.seed)
        sizes = [rows.shape[2]] if factor is None else [rows.shape[2], factor.shape[1]]
        return tuple(_signs(n, self.columns, generator).to(rows.device) for n in sizes)

    def _jackknife(self, times: Sequence[float], reg: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """lambda_max, logdet and the losses: from all columns, their bias, standard error, and where the bias is slow.

        The bias is taken to fall as 1/k. Then half of the columns have twice of it; where they have less, it falls more
        slowly than that, and what is left of it is unknown.
        """
        everything = torch.arange(self.columns)
        whole = self._figures(everything, times, reg)
        parts = everything.tensor_split(self.groups)
        left = [torch.cat([p for p in parts if p is not out]) for out in parts]
        each = torch.stack([self._figures(keep, times, reg) for keep in left])
        halves = torch.stack([self._figures(keep, times, reg) for keep in everything.tensor_split(2)])
        bias = (self.groups - 1) * (each.mean(0) - whole)
        spread = ((self.groups - 1) / self.groups * (each - each.mean(0)).square().sum(0)).sqrt()
        slow = (bias.abs() > 2 * spread) & ((halves.mean(0) - whole).abs() < _SLOW * bias.abs())
        return whole, bias, spread, slow

    def _figures(self, keep: Tensor, times: Sequence[float], reg: float) -> Tensor:
        """lambda_max, logdet and the loss at each time, as if only these columns had been drawn."""
        values, vectors = torch.linalg.eigh(self._small[keep][:, keep] / len(keep))
        values = values.clamp_min(0.0)
        size, shift = self.samples * self.targets, reg * self.mean
        zeros = max(size - len(values), 0)
        logdet = ((values[-size:] + shift).log().sum() + zeros * math.log(shift)) / size
        inner = (vectors.T @ self._inner[keep]).square() / len(keep)  # lambda_i (u_i . r)^2
        tiny = float(values[-1]) * 1e-14
        losses = [0.5 * (self._energy - (inner * _falls(values, t, tiny)).sum()) for t in times]
        return torch.stack([values[-1], logdet, *losses])

    def _alignment(self) -> Estimate:
        """`|K|_F^2` without bias, from pairs of different columns; jackknifed column by column."""
        k = self.columns
        off = self._small.square()
        off.fill_diagonal_(0.0)
        inner = self._inner.square()
        quadratic = inner.mean() if self._pulled is None else self._pulled.square().sum()
        norm = (off.sum() / (k * (k - 1))).sqrt()
        value = float(quadratic / (self._energy * norm))
        norms = ((off.sum() - 2 * off.sum(0)) / ((k - 1) * (k - 2))).sqrt()
        less = (inner.sum() - inner) / (k - 1) if self._pulled is None else quadratic
        each = less / (self._energy * norms)
        return Estimate(value, float(((k - 1) / k * (each - each.mean()).square().sum()).sqrt()))


def _falls(values: Tensor, t: float, tiny: float) -> Tensor:
    """`(1 - exp(-2 t lambda)) / lambda`, and `2 t` at 0."""
    safe = values.clamp_min(tiny)
    return torch.where(values > tiny, -torch.expm1(-2 * t * safe) / safe, 2 * t)


def _signs(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    made = torch.empty(rows, columns, dtype=torch.int8)
    for part in made.split(_BLOCK):
        part.copy_(torch.randint(0, 2, part.shape, generator=generator, dtype=torch.int8) * 2 - 1)
    return made


def _project(rows: Tensor, signs: Tensor) -> Tensor:
    """`rows @ signs` in float32."""
    result = torch.zeros(len(rows), signs.shape[1], device=rows.device)
    for start in range(0, rows.shape[1], _BLOCK):
        end = start + _BLOCK
        result.addmm_(rows[:, start:end].float(), signs[start:end].float())
    return result


def _exact(rows: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """`|row|^2` [rows] and `rows^T r` [P] in float64, without a float64 copy."""
    norms = rows.new_zeros(len(rows), dtype=torch.float64)
    pulled: list[Tensor] = []
    for part in rows.split(_BLOCK, 1):
        exact = part.double()
        norms += exact.square().sum(1)
        pulled.append(exact.T @ r)
    return norms, torch.cat(pulled).cpu()
