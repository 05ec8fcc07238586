"""What a kernel says of training: loss curves, what is in reach at all, and the held-out error.

All of it is about the linearised program, `F(lambda) ~ F_0 + J (lambda - lambda_0)`, trained from its start on the
squared loss. With `K = J J^T = U diag(lambda) U^T` and the residual `r = y - F_0`, everything reads off `U^T r`. A
spectrum may be thin, with the vectors of the non-zero eigenvalues only; what of r lies outside them never moves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.ntk.spectrum import Spectrum, spectrum

TIE = 1e-6
"""Scores as close as this, relative to the labels' size or their own, are equal: they came from float32."""
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges that `choose_ridge` tries, relative to the mean eigenvalue."""


def centred_one_hot(y: Integer[Tensor, " sample"], targets: int) -> Float[Tensor, " sample target"]:
    """Labels as `one_hot(y) - 1/T`, [N, T] in float64: each row sums to 0.

    Raises:
        ConfigError: T is below 2.
        DataError: a label is not from 0 to T - 1, or there is none.

    >>> centred_one_hot(torch.tensor([1]), 2)
    tensor([[-0.5000,  0.5000]], dtype=torch.float64)
    """
    if targets < 2:
        raise ConfigError(say("targets", "must be 2 or more", targets))
    if not len(y) or int(y.min()) < 0 or int(y.max()) >= targets:
        got = [int(v) for v in y if not 0 <= int(v) < targets][:4]
        raise DataError(say("y", f"must hold labels from 0 to {targets - 1}", got))
    return torch.nn.functional.one_hot(y.long(), targets).double() - 1 / targets


@torch.no_grad()
def flow_loss(
    spectrum: Spectrum, residual: Float[Tensor, " sample target"], times: Sequence[float]
) -> Float[Tensor, " time"]:
    """Squared loss under gradient flow, `L(t) = 1/2 sum_i exp(-2 lambda_i t) (u_i . r)^2`, the unreachable included.

    Args:
        spectrum: of the kernel of the same samples.
        residual: `y - F_0`, [N, T].
        times: t, the learning rate times the steps; 0 gives the loss at the start.

    Raises:
        DataError: the residual does not fit the spectrum, or is not finite.
        ConfigError: a time is negative.

    One sample, `lambda = 2`, r = 1: `1/2 exp(-4 t)`.

    >>> one = spectrum(torch.tensor([[2.0]], dtype=torch.float64))
    >>> torch.allclose(flow_loss(one, torch.ones(1, 1), [0.0, 1.0]), torch.tensor([0.5, 0.5 * math.exp(-4)]).double())
    True
    """
    shares, rest = _shares(spectrum, residual)
    t = _column("times", times, shares.device)
    return 0.5 * ((-2 * t * spectrum.eigenvalues).exp() @ shares + rest)


@torch.no_grad()
def descent_loss(
    spectrum: Spectrum, residual: Float[Tensor, " sample target"], rate: float, steps: Sequence[int]
) -> Float[Tensor, " step"]:
    """The same after whole steps of gradient descent: `1/2 sum_i (1 - rate lambda_i)^(2 steps) (u_i . r)^2`.

    It grows without bound for a rate above `stability_limit`, and is inf where float64 ends.

    Raises:
        DataError: the residual does not fit the spectrum, or is not finite.
        ConfigError: the rate or a number of steps is negative.

    Half of the residual goes in a step of `rate * lambda = 1/2`:

    >>> descent_loss(spectrum(torch.eye(1, dtype=torch.float64)), torch.ones(1, 1), 0.5, [0, 1, 2])
    tensor([0.5000, 0.1250, 0.0312], dtype=torch.float64)
    """
    if not 0 <= rate < math.inf:
        raise ConfigError(say("rate", "must be a finite number, 0 or more", rate))
    shares, rest = _shares(spectrum, residual)
    shrink = (1 - rate * spectrum.eigenvalues).square().pow(_column("steps", steps, shares.device))
    return 0.5 * (torch.where(shares > 0, shrink * shares, 0.0).sum(1) + rest)


def stability_limit(spectrum: Spectrum) -> float:
    """The learning rate from which gradient descent diverges, `2 / lambda_max`; inf for a kernel that is zero."""
    return 2 / spectrum.largest if spectrum.largest else math.inf


@torch.no_grad()
def reachable_curve(spectrum: Spectrum, y: Float[Tensor, " sample target"]) -> Float[Tensor, " rank"]:
    """The share of `|y|^2` within the top 1, 2, ..., r eigenvectors, r the numerical rank.

    Raises:
        DataError: y does not fit the spectrum, is not finite, or is zero.
    """
    shares, _ = _shares(spectrum, y)
    return (shares[: spectrum.rank].cumsum(0) / _energy(y)).clamp_max(1.0)


def reachable(spectrum: Spectrum, y: Float[Tensor, " sample target"]) -> float:
    """`|P_range y|^2 / |y|^2`: how much of y the linearised program can fit at all; 1 at full rank.

    Raises:
        DataError: y does not fit the spectrum, is not finite, or is zero.

    Rows (1, 1) span one of two directions; y = (1, 0) is half in it:

    >>> round(reachable(spectrum(torch.ones(2, 2, dtype=torch.float64)), torch.tensor([[1.0], [0.0]])), 12)
    0.5
    """
    curve = reachable_curve(spectrum, y)
    return float(curve[-1]) if len(curve) else 0.0


@torch.no_grad()
def alignment(kernel: Spectrum | Float[Tensor, " *shape"], y: Float[Tensor, " sample target"]) -> float:
    """Kernel-target alignment, `y . K y / (|y|^2 |K|_F)`, from 0 to 1; 0 for a kernel that is zero.

    Args:
        kernel: [N, T, N, T] or [NT, NT], or its spectrum.
        y: centred labels, [N, T].

    Raises:
        DataError: y does not fit the kernel, is not finite, or is zero.

    It is 1 exactly for `K = y y^T`:

    >>> y = centred_one_hot(torch.tensor([0, 1, 1]), 2)
    >>> round(alignment(torch.outer(y.flatten(), y.flatten()), y), 12)
    1.0
    """
    if isinstance(kernel, Spectrum):
        shares, _ = _shares(kernel, y)
        quadratic, norm = float(shares @ kernel.eigenvalues), float(kernel.eigenvalues.norm())
    else:
        flat = y.flatten().double()
        if kernel.numel() != len(flat) ** 2:
            raise DataError(say("y", "must have a number for each row of the kernel", (tuple(y.shape), kernel.shape)))
        square = kernel.reshape(len(flat), len(flat)).double()
        quadratic, norm = float(flat @ square @ flat), float(square.norm())
    energy = _energy(y)
    return quadratic / (energy * norm) if norm else 0.0


@torch.no_grad()
def complexity(spectrum: Spectrum, y: Float[Tensor, " sample target"], ridge: float = 1e-3) -> float:
    """`sqrt(2 y . (K + rho)^-1 y / N)`, the shape of a bound on the generalisation error; smaller is better.

    Args:
        spectrum: of the kernel.
        y: centred labels.
        ridge: rho relative to the mean eigenvalue.

    Raises:
        DataError: y does not fit the spectrum, is not finite, or the kernel is zero.
        ConfigError: the ridge is not above 0.
    """
    inside, outside = _inverse(spectrum, ridge)
    shares, rest = _shares(spectrum, y)
    return math.sqrt(2 * (float(shares @ inside) + rest * outside) / len(y))


@torch.no_grad()
def held_out(
    spectrum: Spectrum, residual: Float[Tensor, " sample target"], ridge: float
) -> Float[Tensor, " sample target"]:
    """What ridge regression misses of each sample when fitted on all others, exactly, without fitting anything.

    With `Q = (K + rho)^-1`, the error of sample n is `Q_nn^-1 (Q r)_n`, its T outputs left out together: Q_nn is T x T.

    Args:
        spectrum: of the kernel.
        residual: `y - F_0`, [N, T].
        ridge: rho relative to the mean eigenvalue of the kernel of all samples; it stays the same for each fit.

    Raises:
        DataError: the residual does not fit the spectrum, is not finite, or the kernel is zero.
        ConfigError: the ridge is not above 0.

    Two samples with `K = 1` throughout and rho = 1: each is predicted as half of the other's residual.

    >>> same = spectrum(torch.ones(2, 2, dtype=torch.float64))
    >>> held_out(same, torch.tensor([[1.0], [0.0]]), ridge=1.0).flatten().round(decimals=12).tolist()
    [1.0, -0.5]
    """
    r = _fitting(spectrum, residual)
    inside, outside = _inverse(spectrum, ridge)
    vectors = spectrum.vectors
    solved = vectors @ (inside * (vectors.T @ r))
    blocks = vectors.reshape(*residual.shape, -1)
    inverse = (blocks * inside) @ blocks.mT
    if vectors.shape[1] < len(r):
        solved = solved + outside * (r - vectors @ (vectors.T @ r))
        one = torch.eye(residual.shape[1], dtype=torch.float64, device=r.device)
        inverse = inverse + outside * (one - blocks @ blocks.mT)
    return torch.linalg.solve(inverse, solved.reshape(residual.shape))


def leave_one_out(
    spectrum: Spectrum,
    residual: Float[Tensor, " sample target"],
    ridge: float,
    base: Float[Tensor, " sample target"] | None = None,
) -> Float[Tensor, " sample target"]:
    """Scores [N, T] of each sample by the linearised program fitted to all others; see `held_out`.

    Args:
        spectrum: of the kernel.
        residual: `y - base`, [N, T].
        ridge: relative to the mean eigenvalue.
        base: F_0, the scores before training; zero if None.

    Raises:
        DataError: the residual does not fit the spectrum, is not finite, or the kernel is zero.
        ConfigError: the ridge is not above 0.
    """
    predicted = residual.double() - held_out(spectrum, residual, ridge)
    return predicted if base is None else predicted + base.double()


def choose_ridge(
    spectrum: Spectrum, residual: Float[Tensor, " sample target"], grid: Sequence[float] = RIDGES
) -> float:
    """The ridge of the grid with the least leave-one-out squared error.

    A leave-one-out score at the ridge that was chosen by the same samples is a little too good.

    Raises:
        DataError: the residual does not fit the spectrum, is not finite, or the kernel is zero.
        ConfigError: the grid is empty, or a ridge is not above 0.
    """
    if not grid:
        raise ConfigError(say("grid", "must have a ridge", grid))
    return min(grid, key=lambda ridge: float(held_out(spectrum, residual, ridge).square().sum()))


def loo_accuracy(scores: Float[Tensor, " sample target"], y: Integer[Tensor, " label"]) -> float:
    """Share of samples whose highest score is their label's; `scores` from `leave_one_out`.

    Scores that are equal up to rounding share the point, because rounding knows the label: what no kernel can tell
    apart is `r - r` here, up to its last digits.

    Raises:
        DataError: not one label a sample.

    >>> loo_accuracy(torch.tensor([[0.5, 0.5 + 1e-9], [0.1, 0.9]]), torch.tensor([1, 1]))
    0.75
    """
    if len(y) != len(scores) or not len(y):
        raise DataError(say("y", f"must have one label for each of the {len(scores)} samples, at least one", len(y)))
    top = scores.double().max(1, keepdim=True).values
    first = (scores >= top - TIE * (1 + top.abs())).double()
    return float((first.gather(1, y.long().unsqueeze(1)) / first.sum(1, keepdim=True)).mean())


@torch.no_grad()
def cross_entropy_rate(
    scores: Float[Tensor, " sample target"],
    y: Integer[Tensor, " sample"],
    kernel: Float[Tensor, " sample target sample target"],
) -> float:
    """`g . K g` for `g = (softmax(scores) - y) / N`: how fast the mean cross-entropy falls when gradient flow starts.

    It equals the squared gradient norm, which one backward pass gives without a kernel.

    Raises:
        ConfigError: there is only one target.
        DataError: a label is out of range.

    Two equal scores, `K = 1` (two independent outputs): g = (-1/2, 1/2), rate 1/2.

    >>> eye = torch.eye(2, dtype=torch.float64).reshape(1, 2, 1, 2)
    >>> cross_entropy_rate(torch.zeros(1, 2), torch.tensor([0]), eye)
    0.5
    """
    excess = scores.double().softmax(1) - 1 / scores.shape[1] - centred_one_hot(y, scores.shape[1])
    g = excess / len(y)
    return float(torch.einsum("nt,ntms,ms->", g, kernel.double(), g))


@dataclass(frozen=True, slots=True)
class HadamardBounds:
    """What is known of lambda_min of a full linear program without its kernel.

    Attributes:
        diagonal: at least this, `lambda_min(K_z) * min_n (|x_n|^2 + 1)`.
        block: at least this too, `lambda_min(X X^T + 1) * min_n lambda_min(J_n J_n^T)`; can hold where the first is 0.
        upper: at most this, the smallest diagonal entry.
    """

    diagonal: float
    block: float
    upper: float


@torch.no_grad()
def hadamard_bounds(
    gradients: Float[Tensor, " sample target sample target"], inputs: Float[Tensor, " sample sample"]
) -> HadamardBounds:
    """Bounds on lambda_min of `K_fc[(n,t),(m,s)] = <g_nt, g_ms> (<x_n, x_m> + 1)`, by Schur's product theorem.

    Args:
        gradients: K_z, the Gram of the gradients at the source's input.
        inputs: `X X^T + 1`, the Gram of the task's samples with a one appended.

    Raises:
        DataError: either is not symmetric, positive semi-definite and finite.
    """
    diagonal = inputs.diagonal().double()
    blocks = torch.einsum("ntns->nts", gradients).double()
    least = torch.linalg.eigvalsh(blocks)[:, 0].clamp_min(0).min()
    upper = (torch.einsum("ntnt->nt", gradients).double() * diagonal[:, None]).min()
    return HadamardBounds(
        diagonal=(spectrum(gradients).smallest or 0.0) * float(diagonal.min()),
        block=(spectrum(inputs).smallest or 0.0) * float(least),
        upper=float(upper),
    )


def _fitting(spectrum: Spectrum, values: Tensor) -> Tensor:
    """[N, T] as a float64 vector that goes with the spectrum."""
    if values.numel() != spectrum.size:
        need = f"must have {spectrum.samples} x {spectrum.targets} numbers, one for each row of the kernel"
        raise DataError(say("residual", need, tuple(values.shape)))
    flat = values.flatten().to(spectrum.vectors.device, torch.float64)
    if not bool(flat.isfinite().all()):
        raise DataError(say("residual", "must be finite", [float(v) for v in flat[~flat.isfinite()][:4]]))
    return flat


def _shares(spectrum: Spectrum, values: Tensor) -> tuple[Tensor, float]:
    """`(u_i . r)^2` for each eigenvector, and `|r|^2` of what is outside all of them."""
    r = _fitting(spectrum, values)
    inner = spectrum.vectors.T @ r
    thin = len(inner) < len(r)
    return inner.square(), float((r - spectrum.vectors @ inner).square().sum()) if thin else 0.0


def _energy(y: Tensor) -> float:
    energy = float(y.double().square().sum())
    if not energy > 0:
        raise DataError(say("y", "must not be zero throughout", energy))
    return energy


def _inverse(spectrum: Spectrum, ridge: float) -> tuple[Tensor, float]:
    """Eigenvalues of `(K + rho)^-1`: within the vectors, and outside them."""
    if not 0 < ridge < math.inf:
        raise ConfigError(say("ridge", "must be a finite number above 0", ridge))
    if not spectrum.trace:
        raise DataError(say("kernel", "must not be zero", "all zero", "Nothing that the program learns moves a score."))
    rho = ridge * spectrum.mean
    return 1 / (spectrum.eigenvalues + rho), 1 / rho


def _column(name: str, values: Sequence[float], device: torch.device) -> Tensor:
    column = torch.tensor(values, dtype=torch.float64, device=device).reshape(-1, 1)
    if not bool((column >= 0).all()):
        raise ConfigError(say(name, "must be 0 or more", list(values)))
    return column
