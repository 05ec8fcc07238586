"""Optimal transport with an entropy: many small problems at once (Sinkhorn; Cuturi 2013, arXiv 1306.0895).

    minimise  sum(T * cost) - epsilon * H(T)   over T >= 0 with the given sums of rows and columns

The plan is ``T = diag(r) exp(-cost / epsilon) diag(c)``; rows and columns are scaled in turn. That is done with
logarithms, which no cost and no epsilon overflow; where the costs are known to be small against epsilon, with the
numbers themselves, which are then safe, and whose exponentials are taken once. Problems lie along the last axis in
memory, so that the short sums over M and N run over all of them at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.outputs._checks import check_above

SAFE = 40.0
"""Largest ``|cost| / epsilon`` for plain numbers: exp(-40) = 4e-18 leaves room for all products in float32."""

CACHED = 1 << 17
"""Numbers of costs that a CPU works on at a time: few enough to stay in its cache from step to step."""

_LOG2E = 1 / math.log(2)

Marginals = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How plans are found; the values of PLOT (section 4.1 and the released code).

    Attributes:
        epsilon: weight of the entropy, in units of the cost (0.1).
        iterations: of rows and columns in turn, at most (100).
        tolerance: a problem is done when its row factors change by less than that on average (0.01); None for all
            iterations.
        through: gradients flow through the plan as well (published: the plan is held fixed).
    """

    epsilon: float = 0.1
    iterations: int = 100
    tolerance: float | None = 1e-2
    through: bool = False

    def __post_init__(self) -> None:
        check_above("epsilon", self.epsilon)
        if self.iterations < 1:
            raise ConfigError(say("iterations", "must be 1 or more", self.iterations))
        if self.tolerance is not None:
            check_above("tolerance", self.tolerance)


PUBLISHED = Transport()


def sinkhorn(
    cost: Float[Tensor, " *batch m n"],
    epsilon: float = 0.1,
    iterations: int = 100,
    tolerance: float | None = None,
    *,
    marginals: Marginals | None = None,
    bound: float | None = None,
) -> Float[Tensor, " *batch m n"]:
    """Transport plans [..., M, N] of a batch of problems.

    Sums of columns are exact; those of rows as close as the iterations came. Nothing is read back from an accelerator;
    on a CPU, where that costs nothing, the loop ends with the last problem that is not done. Gradients flow through all
    iterations: give `cost.detach()` for a plan that is held fixed.

    Args:
        cost: [..., M, N]. Half precision is computed in float32.
        epsilon: weight of the entropy, above 0.
        iterations: of rows and columns in turn.
        tolerance: each problem stops for itself when the mean change of its M row factors, ``r`` above with c = 1 at
            first, falls below it (PLOT: 0.01); None for all iterations.
        marginals: sums of rows [..., M] and of columns [..., N], each of which sums to 1; None for uniform ones.
        bound: no absolute cost is above it, by the caller's word. With ``bound / epsilon`` up to 40 the plan is found
            without logarithms, several times faster.

    Raises:
        ConfigError: epsilon, iterations or tolerance are out of range.
        DataError: the cost has no rows or no columns.

    A 2 x 2 problem has the plan [[a, 1/2 - a], [1/2 - a, a]] with a = 1/2 / (1 + exp(-d / epsilon)), d half of what the
    other diagonal costs more:

    >>> plan = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.5)
    >>> [round(v, 4) for v in plan.flatten().tolist()], round(0.5 / (1 + math.exp(-1 / 0.5)), 4)
    ([0.4404, 0.0596, 0.0596, 0.4404], 0.4404)
    """
    settings = Transport(epsilon=epsilon, iterations=iterations, tolerance=tolerance)
    if cost.ndim < 2 or not cost.shape[-1] or not cost.shape[-2]:
        raise DataError(say("cost", "must be of shape [..., M, N], with a row and a column", list(cost.shape)))
    return _plan(_precise(cost), settings, marginals, bound)


def transported(
    similarity: Float[Tensor, " *batch m n"],
    settings: Transport,
    extra: Float[Tensor, " *batch m n"] | None = None,
    *,
    marginals: Marginals | None = None,
) -> Float[Tensor, " *batch"]:
    """``sum(T * similarity)`` with the plan T of the cost ``1 - similarity (+ extra)``.

    Args:
        similarity: cosines [..., M, N].
        settings: of the plan. Unless they say `through`, T gets no gradient.
        extra: added to the cost, within [-2, 2].
        marginals: as for `sinkhorn`.

    >>> transported(torch.eye(2), Transport(epsilon=0.01)).item()
    1.0
    """
    close = _precise(similarity)
    with torch.set_grad_enabled(settings.through and torch.is_grad_enabled()):
        cost = 1 - close if extra is None else 1 - close + extra
        plan = _plan(cost, settings, marginals, 2.0 if extra is None else 4.0)
    return (plan * close).sum((-2, -1))


def _precise(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def _plan(cost: Tensor, settings: Transport, marginals: Marginals | None, bound: float | None) -> Tensor:
    """[..., M, N], some problems at a time where that is faster."""
    m, n = cost.shape[-2:]
    problems = cost.reshape(-1, m, n)
    if marginals is None:
        sums = [problems.new_full((1, k), 1 / k) for k in (m, n)]
    else:
        sums = [s.to(problems.dtype).expand(*cost.shape[:-2], s.shape[-1]).reshape(-1, s.shape[-1]) for s in marginals]
    solve = _plain if bound is not None and bound <= SAFE * settings.epsilon else _logarithmic
    here = cost.device.type == "cpu" and not problems.requires_grad
    some = max(1, CACHED // (m * n)) if here else max(1, len(problems))
    parts = list[Tensor]()
    for start in range(0, len(problems), some):
        block = slice(start, start + some)
        rows, columns = (s if marginals is None else s[block] for s in sums)
        plan = solve(_last(problems[block]), settings, (_last(rows), _last(columns)))
        parts.append(plan.permute(2, 0, 1))
    return torch.cat(parts).view(cost.shape) if parts else cost


def _last(value: Tensor) -> Tensor:
    """[problems, ...] as [..., problems], in that order in memory."""
    return value.movedim(0, -1).contiguous()


def _plain(cost: Tensor, settings: Transport, sums: Marginals) -> Tensor:
    """A block [M, N, problems] with the factors themselves."""
    kernel = torch.exp2(cost * (-_LOG2E / settings.epsilon))  # several times faster than exp
    rows, columns = sums
    r, c = _scaled(
        lambda c: rows / (kernel * c).sum(1),
        lambda r: columns / (kernel * r[:, None]).sum(0),
        lambda r: r,
        torch.ones_like(cost[0]),
        settings,
    )
    return kernel * r[:, None] * c


def _logarithmic(cost: Tensor, settings: Transport, sums: Marginals) -> Tensor:
    """The same with their logarithms, to the base 2."""
    limits = torch.finfo(cost.dtype)
    per_bit = _LOG2E / max(settings.epsilon, 2 * limits.tiny)
    least = cost.detach().amin((0, 1))  # the plan does not depend on it, and exponents are most exact near 0
    kernel = ((least - cost) * per_bit).clamp_min(limits.min / 8)
    rows, columns = (s.log2() for s in sums)
    r, _ = _scaled(
        lambda c: rows - _log2_sum(kernel + c, 1),
        lambda r: columns - _log2_sum(kernel + r[:, None], 0),
        lambda r: torch.exp2(r + least * per_bit),
        torch.zeros_like(cost[0]),
        settings,
    )
    shares = kernel + r[:, None]
    return torch.exp2(columns + (shares - _log2_sum(shares, 0)))


def _log2_sum(bits: Tensor, axis: int) -> Tensor:
    """``log2(sum(2 ** bits))`` along an axis that has a finite number in it."""
    top = bits.detach().amax(axis, keepdim=True)
    return torch.exp2(bits - top).sum(axis).log2() + top.squeeze(axis)


def _scaled(
    of_columns: Callable[[Tensor], Tensor],
    of_rows: Callable[[Tensor], Tensor],
    factor: Callable[[Tensor], Tensor],
    c: Tensor,
    settings: Transport,
) -> tuple[Tensor, Tensor]:
    """Row and column factors, or their logarithms; a problem that is done keeps its own.

    Args:
        of_columns: row factors [M, problems] that go with given column factors.
        of_rows: column factors [N, problems] that go with given row factors.
        factor: what the tolerance is about.
        c: first column factors.
        settings: when to stop.
    """
    r = of_columns(c)
    c = of_rows(r)
    if settings.tolerance is None:
        for _ in range(settings.iterations - 1):
            r = of_columns(c)
            c = of_rows(r)
        return r, c
    before = factor(r.detach())
    done = (before - 1).abs().mean(0) < settings.tolerance
    for _ in range(settings.iterations - 1):
        if _all_here(done):
            break
        r = torch.where(done, r, of_columns(c))
        c = torch.where(done, c, of_rows(r))
        now = factor(r.detach())
        done = done | ((now - before).abs().mean(0) < settings.tolerance)  # not in place: gradients need each
        before = now
    return r, c


def _all_here(done: Tensor) -> bool:
    """All are done, as far as that can be known for nothing: on a CPU, outside of a compiler."""
    compiler: Any = torch.compiler
    return done.device.type == "cpu" and not compiler.is_compiling() and bool(done.all())
