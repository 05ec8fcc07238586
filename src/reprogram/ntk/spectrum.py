"""Eigenvalues of a kernel, and which of them are more than rounding.

A kernel over N samples and T outputs is `[N, T, N, T]`, or the same numbers as a square `[NT, NT]` with rows (n, t).
Its rows are a Jacobian, `[N, T, P]`. Gram and eigensolver run in float64, whatever the Jacobian came in.

**Which eigenvalues count.** Two kinds of rounding hide small ones, and `floor` is the larger of:

- the Gram's: `NT * eps * lambda_max`, eps of the dtype in which the Gram was summed;
- the Jacobian's: `16 * u^2 * trace`, u = eps of the Jacobian's dtype. If J is off by E, then lambda_i moves by about
  `2 sqrt(lambda_i) |E|`, and an eigenvalue that is 0 becomes at most `|E|^2`: second order in u. With |E| of the order
  of `u |J|_F` and `trace = |J|_F^2`, the scale is `u^2 * trace`. Measured on random networks, f32 against f64, 1 to 20
  layers: eigenvalues that are 0 became at most 0.02 of it, and `|E|^2` was 0.02 (1 layer) to 5.3 (20 layers), 1.1 for
  EfficientNet-Lite0. 16 keeps the zeros out by far; what is just above the floor is right to its order of magnitude,
  and from 100 floors on to about a tenth.

No number below the floor is a finding. `smallest` is then None and `smallest_note` says why.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say

SINGLE = torch.finfo(torch.float32).eps
"""Eps of the Jacobian's usual dtype."""

_JACOBIAN = 16.0
_ROWS = 128  # rows a block of the Gram: measured 1.6 times as fast as whole products at M = 1,000; 64 to 512 tried


@dataclass(frozen=True, slots=True)
class EffectiveRank:
    """How many directions a kernel uses, by three counts, each from 1 to NT; 0 for a kernel that is zero.

    Attributes:
        entropy: exp of the entropy of the eigenvalues' shares.
        squares: `trace^2 / trace(K^2)`.
        largest: `trace / lambda_max`.
    """

    entropy: float
    squares: float
    largest: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Spectrum:
    """The eigenvalues and vectors of a kernel, and how far they can be trusted.

    Attributes:
        eigenvalues: float64, descending, none negative; from the dual route only those above the floor.
        vectors: one column an eigenvalue, [NT, len(eigenvalues)].
        samples: N.
        targets: T; 1 for a kernel that came as a square.
        cap: the most that the rank can be by structure, such as min(NT, P).
        floor: eigenvalues up to here are rounding.
        trace: the sum of all eigenvalues, those left out included.
    """

    eigenvalues: Float[Tensor, " kept"]
    vectors: Float[Tensor, " size kept"]
    samples: int
    targets: int
    cap: int
    floor: float
    trace: float

    @property
    def size(self) -> int:
        """NT."""
        return self.samples * self.targets

    @property
    def mean(self) -> float:
        """The mean eigenvalue, `trace / NT`."""
        return self.trace / self.size

    @property
    def rank(self) -> int:
        """Numerical rank: eigenvalues above the floor, at most `cap`."""
        return min(int((self.eigenvalues > self.floor).sum()), self.cap)

    @property
    def top(self) -> Float[Tensor, " rank"]:
        """The eigenvalues that count, descending."""
        return self.eigenvalues[: self.rank]

    @property
    def largest(self) -> float:
        """lambda_max."""
        return float(self.eigenvalues[0]) if len(self.eigenvalues) else 0.0

    @property
    def smallest(self) -> float | None:
        """lambda_min of all NT; None where it is zero by structure or below the floor, never a noise figure."""
        return self.smallest_kept if self.rank == self.size else None

    @property
    def smallest_note(self) -> str:
        """Why there is no `smallest`; empty if there is one."""
        if self.rank == self.size:
            return ""
        if self.trace == 0:
            return "the kernel is zero"
        if self.cap < self.size:
            return f"zero by structure: rank at most {self.cap} of {self.size}"
        return f"below the noise floor of {self.floor:.2g}"

    @property
    def smallest_kept(self) -> float | None:
        """lambda_r at the numerical rank r; None for a kernel that is zero."""
        return float(self.top[-1]) if self.rank else None

    @property
    def condition(self) -> float | None:
        """`lambda_max / lambda_r`; None for a kernel that is zero."""
        return self.largest / float(self.top[-1]) if self.rank else None

    def quantile(self, q: float) -> float | None:
        """The q-quantile of the top r eigenvalues, 0.5 for the median; None for a kernel that is zero.

        Raises:
            ConfigError: q is not within 0 and 1.
        """
        if not 0 <= q <= 1:
            raise ConfigError(say("q", "must be within 0 and 1", q))
        return float(torch.quantile(self.top, q)) if self.rank else None

    def effective_rank(self) -> EffectiveRank:
        """How many directions the kernel uses.

        >>> spectrum(torch.eye(4, dtype=torch.float64)).effective_rank()
        EffectiveRank(entropy=4.0, squares=4.0, largest=4.0)
        """
        if not self.rank:
            return EffectiveRank(0.0, 0.0, 0.0)
        share = self.top / self.top.sum()
        entropy = -(share * share.log()).sum()
        return EffectiveRank(float(entropy.exp()), float(1 / share.square().sum()), float(1 / share[0]))

    def logdet(self, reg: float = 1e-3) -> float | None:
        """`mean log(lambda_i + reg * mean)` over all NT; None for a kernel that is zero.

        Raises:
            ConfigError: reg is not above 0.

        >>> round(spectrum(torch.eye(3, dtype=torch.float64)).logdet(reg=0.5), 12) == round(math.log(1.5), 12)
        True
        """
        if not 0 < reg < math.inf:
            raise ConfigError(say("reg", "must be a finite number above 0", reg))
        if not self.trace:
            return None
        shift = reg * self.mean
        zeros = self.size - len(self.eigenvalues)
        return (float((self.eigenvalues + shift).log().sum()) + zeros * math.log(shift)) / self.size

    def relative(self) -> "Spectrum":
        """The same with mean eigenvalue 1: what is left when the scale of the outputs is taken out.

        >>> spectrum(torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))).relative().eigenvalues
        tensor([1.5000, 0.5000], dtype=torch.float64)
        """
        mean = self.mean or 1.0
        return replace(
            self, eigenvalues=self.eigenvalues / mean, floor=self.floor / mean, trace=self.trace / mean
        )  # fmt: skip


@torch.no_grad()
def gram(
    rows: Float[Tensor, " *rows param"], other: Float[Tensor, " *others width"] | None = None, *, tile: int = 256
) -> Float[Tensor, " size others_size"]:
    """Inner products of rows in float64, `[M, M']`, without a float64 copy of the rows: `tile` columns at a time.

    Args:
        rows: [..., P], M rows in all; any float dtype, any strides.
        other: the other side, [..., P]; None for the rows themselves, of which the lower half only is computed.
        tile: columns a step; the memory beside the result is `(M + M') * tile * 8` bytes.

    Raises:
        DataError: the two sides have different lengths of row.

    >>> gram(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    tensor([[5., 6.],
            [6., 9.]], dtype=torch.float64)
    """
    left = rows.flatten(0, -2)
    right = None if other is None else other.flatten(0, -2)
    if right is not None and right.shape[1] != left.shape[1]:
        raise DataError(say("other", f"must have rows of {left.shape[1]} numbers", right.shape[1]))
    result = torch.zeros(len(left), len(left if right is None else right), dtype=torch.float64, device=left.device)
    for start in range(0, left.shape[1], tile):
        part = left[:, start : start + tile].double()
        if right is None:
            _add_lower(result, part)
        else:
            result.addmm_(part, right[:, start : start + tile].double().T)
    return result if right is not None else _mirror(result)


def product_gram(
    rows: Float[Tensor, " sample target row"], factor: Float[Tensor, " sample factor"]
) -> Float[Tensor, " size size"]:
    """The Gram matrix of the outer products of each row and its sample's factor, which are never formed, `[NT, NT]`.

    >>> product_gram(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[3.0, 4.0]]))
    tensor([[ 25.,  50.],
            [ 50., 100.]], dtype=torch.float64)
    """
    n, targets = rows.shape[:2]
    outer = gram(rows)
    outer.view(n, targets, n, targets).mul_(gram(factor).view(n, 1, n, 1))
    return outer


@torch.no_grad()
def spectrum(
    kernel: Float[Tensor, " *shape"], *, cap: int | None = None, eps: float | None = None, jacobian_eps: float = SINGLE
) -> Spectrum:
    """The spectrum of a kernel, [N, T, N, T] or [M, M], by a dense float64 eigensolver.

    Args:
        kernel: symmetric and positive semi-definite, up to rounding.
        cap: the most that its rank can be by structure; NT if None.
        eps: of the dtype in which the Gram was summed; the kernel's own dtype if None.
        jacobian_eps: of the dtype in which its Jacobian was computed; 0 for exact numbers.

    Raises:
        DataError: not square, not symmetric, not finite, or an eigenvalue is negative beyond rounding.
        ConfigError: the cap is negative.

    A linear model `f(x) = w . x` has the kernel `X X^T` whatever w is; three inputs in two dimensions:

    >>> s = spectrum(gram(torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])), cap=2)
    >>> s.eigenvalues, s.rank, s.smallest, s.smallest_note
    (tensor([9., 4., 0.], dtype=torch.float64), 2, None, 'zero by structure: rank at most 2 of 3')
    """
    samples, targets, square = _square(kernel)
    values, vectors = torch.linalg.eigh(square)
    noise = _noise(samples * targets, torch.finfo(kernel.dtype).eps if eps is None else eps, jacobian_eps)
    values, floor = _settle(values.flip(0), float(square.diagonal().sum()), noise)
    return Spectrum(eigenvalues=values, vectors=vectors.flip(1), samples=samples, targets=targets,
                    cap=_capped(cap, samples * targets), floor=floor, trace=float(square.diagonal().sum()))  # fmt: skip


@torch.no_grad()
def rows_spectrum(
    rows: Float[Tensor, " sample target param"], *, cap: int | None = None, jacobian_eps: float | None = None
) -> Spectrum:
    """The spectrum of `J J^T` for a Jacobian J, [N, T, P], by the smaller of the two Grams.

    For P < NT that is the dual `J^T J`, [P, P], with the same eigenvalues save zeros; a vector v of it becomes
    `J v / sqrt(lambda)`. Only what is above the floor is kept then.

    Args:
        rows: J, in the dtype in which it was computed.
        cap: a smaller bound on the rank than min(NT, P), such as the width of a bottleneck.
        jacobian_eps: of the dtype in which J was computed, if that is not the one it came in.

    Raises:
        DataError: an entry is not finite (the message names the sample), or there is none.
        ConfigError: the cap is negative.

    >>> rows_spectrum(torch.tensor([[[3.0]], [[4.0]]])).eigenvalues
    tensor([25.], dtype=torch.float64)
    """
    samples, targets, params = rows.shape
    size = samples * targets
    if not rows.numel():
        raise DataError(say("rows", "must not be empty", (samples, targets, params)))
    cap = _capped(cap, min(size, params))
    jacobian_eps = torch.finfo(rows.dtype).eps if jacobian_eps is None else jacobian_eps
    flat = rows.flatten(0, 1)
    if params >= size:
        kernel = gram(flat).reshape(samples, targets, samples, targets)
        return spectrum(kernel, cap=cap, jacobian_eps=jacobian_eps)
    _check_rows(rows)
    dual = gram(flat.T)
    values, vectors = torch.linalg.eigh(dual)
    trace = float(dual.diagonal().sum())
    values, floor = _settle(values.flip(0), trace, _noise(size, torch.finfo(torch.float64).eps, jacobian_eps))
    rank = min(int((values > floor).sum()), cap)
    basis = vectors.flip(1)[:, :rank] / values[:rank].sqrt()
    lifted = torch.cat([part.double() @ basis for part in flat.split(1024)]) if rank else flat.new_zeros(size, 0)
    return Spectrum(eigenvalues=values[:rank], vectors=lifted.double(), samples=samples, targets=targets, cap=cap,
                    floor=floor, trace=trace)  # fmt: skip


def contrasts(targets: int) -> Float[Tensor, " target contrast"]:
    """An orthonormal basis, [T, T - 1], of what softmax sees of T scores: everything but their common shift.

    Raises:
        ConfigError: there is only one target, which leaves nothing.

    >>> contrasts(2)
    tensor([[ 0.7071],
            [-0.7071]], dtype=torch.float64)
    """
    if targets < 2:
        raise ConfigError(say("targets", "must be 2 or more for a softmax", targets))
    basis = torch.ones(targets, targets - 1, dtype=torch.float64).triu()
    below = torch.arange(1, targets, dtype=torch.float64)
    basis[1:].diagonal().copy_(-below)
    return basis / (below * (below + 1)).sqrt()


def project_softmax(
    kernel: Float[Tensor, " sample target sample target"],
) -> Float[Tensor, " sample contrast sample contrast"]:
    """The kernel as cross-entropy sees it, [N, T - 1, N, T - 1] in the basis `contrasts`.

    Softmax ignores a shift of all T scores of a sample, so that the kernel as it is has N directions without effect.
    The eigenvalues do not depend on the basis.

    Raises:
        ConfigError: there is only one target.

    Moving both scores of the only sample alike changes nothing:

    >>> project_softmax(torch.ones(1, 2, 1, 2, dtype=torch.float64)).item()
    0.0
    """
    basis = contrasts(kernel.shape[1]).to(kernel.device)
    return torch.einsum("ntms,ta,sb->namb", kernel.double(), basis, basis)


def _add_lower(result: Tensor, part: Tensor) -> None:
    for i in range(0, len(part), _ROWS):
        end = min(i + _ROWS, len(part))
        result[i:end, :end].addmm_(part[i:end], part[:end].T)


def _mirror(result: Tensor) -> Tensor:
    for i in range(0, len(result), _ROWS):
        block = result[i : i + _ROWS, i : i + _ROWS]
        block.copy_(block.tril() + block.tril(-1).T)
        result[:i, i : i + _ROWS] = result[i : i + _ROWS, :i].T
    return result


def _square(kernel: Tensor) -> tuple[int, int, Tensor]:
    """N, T and the kernel as an exactly symmetric float64 [NT, NT]."""
    shape = tuple(kernel.shape)
    if len(shape) not in (2, 4) or shape[: len(shape) // 2] != shape[len(shape) // 2 :] or not kernel.numel():
        raise DataError(say("kernel", "must be [N, T, N, T] or [M, M], and not empty", shape))
    samples, targets = shape[0], shape[1] if len(shape) == 4 else 1
    square = kernel.reshape(samples * targets, samples * targets).double()
    _check_finite(square, targets)
    off = float((square - square.T).abs().max())
    most = float(square.abs().max())
    if off > 10 * len(square) * torch.finfo(kernel.dtype).eps * most:
        raise DataError(say("kernel", "must be symmetric", f"a difference of {off:.2g} between K and its transpose"))
    return samples, targets, (square + square.T) / 2


def _check_finite(square: Tensor, targets: int) -> None:
    bad = (~square.isfinite()).any(1)
    if bool(bad.any()):
        whole = ~square.diagonal().isfinite()  # the rows to blame; their columns hit everybody else's rows
        sample, target = divmod(int((whole if bool(whole.any()) else bad).int().argmax()), targets)
        raise DataError(say("kernel", "must be finite", f"inf or nan at sample {sample}, output {target}",
                            "Check the source's activations for this input, and its precision."))  # fmt: skip


def _check_rows(rows: Tensor) -> None:
    bad = ~rows.sum(-1, dtype=torch.float64).isfinite()
    if bool(bad.any()):
        sample, target = divmod(int(bad.flatten().int().argmax()), rows.shape[1])
        raise DataError(say("rows", "must be finite", f"inf or nan at sample {sample}, output {target}",
                            "Check the source's activations for this input, and its precision."))  # fmt: skip


def _noise(size: int, eps: float, jacobian_eps: float) -> tuple[float, float]:
    """What of lambda_max, and what of the trace, is rounding."""
    return size * eps, _JACOBIAN * jacobian_eps**2


def _settle(values: Tensor, trace: float, noise: tuple[float, float]) -> tuple[Tensor, float]:
    """Descending eigenvalues without negative ones, and the floor."""
    floor = max(noise[0] * float(values[0].clamp_min(0)), noise[1] * max(trace, 0.0))
    least = float(values[-1])
    if least < -max(floor, torch.finfo(torch.float64).tiny):
        raise DataError(say("kernel", "must be positive semi-definite",
                            f"an eigenvalue of {least:.3g}, beyond rounding ({floor:.2g})",
                            "J J^T always is; if it was summed in a lower precision, say so by `eps`."))  # fmt: skip
    return values.clamp_min(0.0), floor


def _capped(cap: int | None, most: int) -> int:
    if cap is not None and cap < 0:
        raise ConfigError(say("cap", "must be 0 or more", cap))
    return most if cap is None else min(cap, most)
