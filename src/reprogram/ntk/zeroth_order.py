"""What can be said of a program's kernel where gradients do not exist or are zero: differences along random lines.

With u_i ~ N(0, I) in the space of the P learned numbers and d_i = (F(l + s u_i) - F(l - s u_i)) / (2 s), the matrix
(1/q) sum d_i d_i^T has the expectation J J^T if F is linear along the lines. For a smooth F and a small s that is the
kernel; for an F with steps it is the second moment of its slopes at the scale s, a different thing that depends on s.
Its rank is at most q, so the smallest eigenvalue of the kernel can never be told from it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, DataError, say
from reprogram.core.program import Program, evaluating

CHUNK = 64
"""Inputs to a forward pass."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Differences:
    """Estimates from q random directions; see the module's own words for what they estimate.

    Attributes:
        rows: d_i, [direction, N, T], float64.
        scale: s, the length of a step along a direction.
    """

    rows: Float[Tensor, " direction n target"]
    scale: float

    @property
    def cap(self) -> int:
        """The most that the rank of `kernel` can be: q, or NT."""
        return min(len(self.rows), self.rows[0].numel())

    def kernel(self) -> Float[Tensor, " n target m goal"]:
        """(1/q) sum d_i d_i^T as [N, T, N, T]."""
        flat = self.rows.flatten(1)
        shape = tuple(self.rows.shape[1:])
        return (flat.T @ flat / len(flat)).view(*shape, *shape)

    def trace(self) -> tuple[float, float]:
        """Trace of the kernel and its standard error, unbiased."""
        return _mean(self.rows.square().sum((1, 2)))

    def along(self, direction: Float[Tensor, " n target"]) -> tuple[float, float]:
        """v^T K v and its standard error, unbiased: the share of the kernel that a change v of the outputs can use.

        With v the gradient of a loss by the outputs, the rate at which one gradient step would lower it.
        """
        return _mean((self.rows * direction.double()).sum((1, 2)).square())


def zeroth_order_kernel(
    program: Program, x: Tensor, sigma: float = 0.05, directions: int = 256, seed: int = 0
) -> Differences:
    """Estimate a program's kernel from 2q forward passes, without any gradient.

    Args:
        program: its learned numbers are moved and put back; the source needs no gradients.
        x: inputs [N, ...], as `Split.fetch` gives them.
        sigma: s, in units of the learned numbers. Small against what they are scaled by, large against rounding: below
            about 1e-3 float32 outputs no longer differ by much more than their rounding.
        directions: q. The relative error of an entry falls as 1 / sqrt(q).
        seed: of the directions.

    Returns:
        The differences; all exactly zero if no step changed any output.

    Raises:
        CapabilityError: the program learns nothing.
        ConfigError: sigma or directions are out of range.
        DataError: an output is not finite.
    """
    if not 0 < sigma < float("inf"):
        raise ConfigError(say("sigma", "must be a finite number above 0", sigma))
    if directions < 1:
        raise ConfigError(say("directions", "must be 1 or more", directions))
    learned = [p for p in program.parameters() if p.requires_grad]
    if not learned:
        raise CapabilityError(say("program", "must learn something for it to have a kernel", program.source.spec.ref))
    start = [p.detach().clone() for p in learned]
    try:
        with evaluating(program):
            rows = [_difference(program, x, sigma, learned, start, seed + i * 1_000_003) for i in range(directions)]
    finally:
        _put(learned, start)
    found = torch.stack(rows)
    if not bool(found.isfinite().all()):
        raise DataError(say("outputs", "must be finite", "NaN or infinity", "Try a smaller sigma."))
    return Differences(rows=found, scale=sigma)


@torch.no_grad()
def _difference(
    program: Program, x: Tensor, sigma: float, learned: list[torch.nn.Parameter], start: list[Tensor], seed: int
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    step = [sigma * torch.randn(p.shape, generator=generator).to(p) for p in start]
    _put(learned, [p + s for p, s in zip(start, step, strict=True)])
    above = _outputs(program, x)
    _put(learned, [p - s for p, s in zip(start, step, strict=True)])
    return (above - _outputs(program, x)) / (2 * sigma)


@torch.no_grad()
def _put(learned: list[torch.nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(learned, values, strict=True):
        parameter.copy_(value)


def _outputs(program: Program, x: Tensor) -> Tensor:
    return torch.cat([program(part.to(program.source.device)).double().cpu() for part in x.split(CHUNK)])


def _mean(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error (infinite from one value)."""
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    return float(values.mean()), error
