"""Training in the linearised regime: closed forms against descent, refitting and autograd, done the long way."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError
from reprogram.ntk.dynamics import (
    RIDGES,
    alignment,
    centred_one_hot,
    choose_ridge,
    complexity,
    cross_entropy_rate,
    descent_loss,
    flow_loss,
    hadamard_bounds,
    held_out,
    leave_one_out,
    loo_accuracy,
    reachable,
    reachable_curve,
    stability_limit,
)
from reprogram.ntk.spectrum import Spectrum, contrasts, gram, project_softmax, rows_spectrum, spectrum

often = settings(deadline=None, max_examples=40, derandomize=True)
seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(2, 7), st.integers(1, 4), st.integers(1, 30))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel_of(rows: Tensor) -> Tensor:
    n, t, _ = rows.shape
    return gram(rows).reshape(n, t, n, t)


def both(rows: Tensor) -> tuple[Spectrum, Spectrum]:
    """All eigenvectors, and (where P < NT) only those of the range."""
    return spectrum(kernel_of(rows), jacobian_eps=0.0), rows_spectrum(rows)


# --- loss curves ------------------------------------------------------------------------------------------------------


@often
@given(shape=shapes, seed=seeds)
def test_descent_is_what_a_linear_model_does(shape, seed):
    """`F = J w` from w = 0, squared loss, plain gradient descent."""
    n, t, p = shape
    rows, y = draw(n, t, p, seed=seed), draw(n, t, seed=seed + 1)
    jac, w, losses = rows.flatten(0, 1), torch.zeros(p).double(), []
    rate = 0.7 / float(torch.linalg.matrix_norm(jac, 2) ** 2)
    for _ in range(31):
        off = y.flatten() - jac @ w
        losses.append(0.5 * float(off @ off))
        w = w + rate * jac.T @ off
    for found in both(rows):
        made = descent_loss(found, y, rate, [0, 1, 7, 30])
        plain = torch.tensor([losses[i] for i in (0, 1, 7, 30)], dtype=torch.float64)
        torch.testing.assert_close(made, plain, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("params", [3, 40])
def test_flow_is_descent_by_ever_smaller_steps(params):
    rows, y = draw(5, 2, params), draw(5, 2, seed=1)
    for found in both(rows):
        time = 1.5 / found.largest
        small = [float(descent_loss(found, y, time / steps, [steps])) for steps in (1000, 2000)]
        exact = float(flow_loss(found, y, [time]))
        assert small[0] - exact == pytest.approx(2 * (small[1] - exact), rel=1e-2)  # first order, to this very limit
        assert small[1] == pytest.approx(exact, rel=5e-3)


def test_flow_solves_its_differential_equation():
    """`dr/dt = -K r` by Runge-Kutta steps."""
    rows, r = draw(4, 2, 5), draw(4, 2, seed=1)
    k, state, step = gram(rows), r.flatten(), 1e-3
    for _ in range(500):
        a = -k @ state
        b = -k @ (state + step / 2 * a)
        c = -k @ (state + step / 2 * b)
        d = -k @ (state + step * c)
        state = state + step / 6 * (a + 2 * b + 2 * c + d)
    for found in both(rows):
        assert float(flow_loss(found, r, [0.5])) == pytest.approx(0.5 * float(state @ state), rel=1e-7)


@often
@given(shape=shapes, seed=seeds)
def test_flow_falls_from_the_start_to_the_floor(shape, seed):
    n, t, p = shape
    rows, r = draw(n, t, p, seed=seed), draw(n, t, seed=seed + 1)
    energy = 0.5 * float(r.square().sum())
    full, thin = both(rows)
    ends = [0.0, 0.1, 1.0, 10.0, 1e9 / float(thin.top[-1])]
    made = flow_loss(thin, r, ends)
    torch.testing.assert_close(flow_loss(full, r, ends[:4]), made[:4], rtol=1e-8, atol=1e-10)
    assert float(made[0]) == pytest.approx(energy)
    assert bool((made.diff() <= 1e-12).all())
    assert float(made[-1]) == pytest.approx(energy * (1 - reachable(thin, r)), abs=1e-9)


def test_too_large_a_rate_diverges():
    found = spectrum(torch.diag(torch.tensor([4.0, 1.0]).double()))
    limit = stability_limit(found)
    assert limit == 0.5
    r = torch.ones(2, 1)
    below, above = (descent_loss(found, r, limit * by, [0, 50, 100000]) for by in (0.99, 1.01))
    assert float(below[1]) < float(below[0])
    assert float(above[1]) > float(above[0])
    assert float(above[2]) == math.inf
    assert stability_limit(spectrum(torch.zeros(2, 2))) == math.inf


# --- reach and alignment ----------------------------------------------------------------------------------------------


@often
@given(shape=shapes, seed=seeds)
def test_reachable_is_what_least_squares_explains(shape, seed):
    n, t, p = shape
    rows, y = draw(n, t, p, seed=seed), draw(n, t, seed=seed + 1)
    jac = rows.flatten(0, 1)
    rest = y.flatten() - jac @ torch.linalg.lstsq(jac, y.flatten(), driver="gelsd").solution
    share = 1 - float(rest.square().sum() / y.square().sum())
    for found in both(rows):
        assert reachable(found, y) == pytest.approx(share, abs=1e-8)
        curve = reachable_curve(found, y)
        assert len(curve) == found.rank
        assert bool((curve.diff() >= 0).all())


@often
@given(shape=shapes, seed=seeds, scale=st.floats(0.1, 10))
def test_alignment_is_a_cosine(shape, seed, scale):
    n, t, p = shape
    rows, y = draw(n, t, p, seed=seed), draw(n, t, seed=seed + 1)
    k, flat = gram(rows), y.flatten()
    plain = float(flat @ k @ flat / ((flat @ flat) * (k * k).sum().sqrt()))
    for kernel in (k, kernel_of(rows), kernel_of(rows) * scale, *both(rows)):
        assert alignment(kernel, y * scale) == pytest.approx(plain, rel=1e-9)
    assert 0 <= plain <= 1


def test_a_kernel_that_is_zero_reaches_nothing():
    zero, y = spectrum(torch.zeros(2, 2, 2, 2)), centred_one_hot(torch.tensor([0, 1]), 2)
    assert (reachable(zero, y), alignment(zero, y), alignment(torch.zeros(4, 4), y)) == (0.0, 0.0, 0.0)
    assert flow_loss(zero, y, [0.0, 5.0]).tolist() == pytest.approx([0.5, 0.5])
    for wrong in (lambda: held_out(zero, y, 0.1), lambda: complexity(zero, y)):
        with pytest.raises(DataError, match="not be zero"):
            wrong()


@often
@given(shape=shapes, seed=seeds, ridge=st.floats(1e-6, 10))
def test_complexity_by_solving(shape, seed, ridge):
    n, t, p = shape
    rows, y = draw(n, t, p, seed=seed), draw(n, t, seed=seed + 1)
    k = gram(rows)
    rho = ridge * float(k.diagonal().mean())
    solved = torch.linalg.solve(k + rho * torch.eye(n * t).double(), y.flatten())
    for found in both(rows):
        assert complexity(found, y, ridge) == pytest.approx(math.sqrt(2 * float(y.flatten() @ solved) / n), rel=1e-6)


# --- leave one out ----------------------------------------------------------------------------------------------------


def refit(k: Tensor, y: Tensor, base: Tensor, rho: float) -> Tensor:
    """Scores of each sample from a ridge regression on the others, fitted anew for each."""
    n, t = y.shape
    scores = torch.empty(n, t).double()
    for i in range(n):
        mine = torch.arange(i * t, (i + 1) * t)
        rest = torch.tensor([j for j in range(n * t) if j // t != i])
        solved = torch.linalg.solve(
            k[rest][:, rest] + rho * torch.eye(len(rest)).double(), (y - base).flatten()[rest]
        )  # fmt: skip
        scores[i] = base[i] + k[mine][:, rest] @ solved
    return scores


@often
@given(shape=shapes, seed=seeds, ridge=st.floats(1e-4, 10))
def test_leave_one_out_is_refitting(shape, seed, ridge):
    n, t, p = shape
    rows, y, base = draw(n, t, p, seed=seed), draw(n, t, seed=seed + 1), draw(n, t, seed=seed + 2)
    k = gram(rows)
    plain = refit(k, y, base, ridge * float(k.diagonal().mean()))
    for found in both(rows):
        torch.testing.assert_close(leave_one_out(found, y - base, ridge, base), plain, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(held_out(found, y - base, ridge), y - plain, rtol=1e-7, atol=1e-8)
    labels = torch.randint(0, t, (n,), generator=torch.Generator().manual_seed(seed))
    hits = sum(int(plain[i].argmax()) == int(labels[i]) for i in range(n))
    assert loo_accuracy(plain, labels) == hits / n


def test_leave_one_out_keeps_its_digits_at_a_tiny_ridge():
    rows, y = draw(6, 2, 40), draw(6, 2, seed=1)
    k = gram(rows)
    plain = refit(k, y, torch.zeros(6, 2).double(), 1e-9 * float(k.diagonal().mean()))
    torch.testing.assert_close(leave_one_out(spectrum(kernel_of(rows)), y, 1e-9), plain, rtol=1e-6, atol=1e-8)


def test_the_ridge_with_the_least_error_is_taken():
    rows = draw(12, 2, 30)
    y = (rows @ draw(30, seed=1)) + 3 * draw(12, 2, seed=2)
    found, k = rows_spectrum(rows), gram(rows)
    zero = torch.zeros(12, 2).double()
    errors = [float((y - refit(k, y, zero, ridge * float(k.diagonal().mean()))).square().sum()) for ridge in RIDGES]
    best = RIDGES[errors.index(min(errors))]
    assert choose_ridge(found, y) == best
    assert choose_ridge(found, y, [RIDGES[0]]) == RIDGES[0]
    clean = rows @ draw(30, seed=1)
    assert choose_ridge(found, clean) <= best
    with pytest.raises(ConfigError, match="grid"):
        choose_ridge(found, y, [])


def test_leave_one_out_ranks_a_task_that_can_be_learned_above_one_that_cannot():
    y = torch.arange(40) % 2
    x = draw(40, 6) * 0.5 + 2.0 * (y[:, None] - 0.5)
    rows = torch.einsum("nd,ts->ntds", x, torch.eye(2).double()).flatten(2)
    target = centred_one_hot(y, 2)
    found = rows_spectrum(rows)
    assert loo_accuracy(leave_one_out(found, target, 1e-2), y) == 1.0
    shuffled = y[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    noise = leave_one_out(found, centred_one_hot(shuffled, 2), 1e-2)
    assert loo_accuracy(noise, shuffled) < 0.8


# --- cross-entropy ----------------------------------------------------------------------------------------------------


def test_the_rate_of_cross_entropy_is_the_squared_gradient():
    rows, base, y = draw(6, 3, 11), draw(6, 3, seed=1), torch.tensor([0, 1, 2, 2, 1, 0])
    w = torch.zeros(11, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(base + rows @ w, y).backward()
    assert cross_entropy_rate(base, y, kernel_of(rows)) == pytest.approx(float(w.grad.square().sum()), rel=1e-12)
    shifted = kernel_of(rows) + draw(6, 6, seed=3)[:, None, :, None] ** 2  # what moves all three scores alike
    assert cross_entropy_rate(base, y, shifted) == pytest.approx(cross_entropy_rate(base, y, kernel_of(rows)), rel=1e-9)
    seen = torch.einsum("nt,ta->na", (base.softmax(1) - centred_one_hot(y, 3) - 1 / 3) / 6, contrasts(3))
    rate = torch.einsum("na,namb,mb->", seen, project_softmax(kernel_of(rows)), seen)
    assert float(rate) == pytest.approx(float(w.grad.square().sum()), rel=1e-12)


# --- bounds -----------------------------------------------------------------------------------------------------------


@often
@given(n=st.integers(1, 6), t=st.integers(1, 3), d=st.integers(1, 12), dx=st.integers(1, 8), seed=seeds)
def test_bounds_of_the_full_linear_program_hold(n, t, d, dx, seed):
    g = kernel_of(draw(n, t, d, seed=seed))
    x = gram(draw(n, dx, seed=seed + 1)) + 1
    exact = float(torch.linalg.eigvalsh((g * x[:, None, :, None]).reshape(n * t, n * t))[0])
    bounds = hadamard_bounds(g, x)
    slack = 1e-9 * float(g.max() * x.max())
    assert max(bounds.diagonal, bounds.block) <= exact + slack
    assert exact <= bounds.upper + slack


def test_the_block_bound_can_hold_where_the_other_is_zero():
    rows = draw(6, 2, 4)  # 12 rows in 4 dimensions
    x = gram(draw(6, 9, seed=1)) + 1
    bounds = hadamard_bounds(kernel_of(rows), x)
    exact = spectrum(kernel_of(rows) * x[:, None, :, None]).smallest
    assert bounds.diagonal == 0.0
    assert 0 < bounds.block <= exact <= bounds.upper


# --- bad input --------------------------------------------------------------------------------------------------------


def test_labels_and_residuals_that_do_not_fit():
    found = spectrum(kernel_of(draw(3, 2, 9)))
    good = torch.ones(3, 2)
    bad = torch.full((3, 2), math.nan)
    for wrong in (lambda: flow_loss(found, torch.ones(2, 2), [1.0]), lambda: flow_loss(found, bad, [1.0]),
                  lambda: reachable(found, torch.zeros(3, 2)), lambda: alignment(found, torch.zeros(3, 2)),
                  lambda: alignment(torch.eye(6), torch.ones(2, 2)), lambda: held_out(found, bad, 0.1),
                  lambda: centred_one_hot(torch.tensor([0, 3]), 3), lambda: centred_one_hot(torch.tensor([-1]), 3),
                  lambda: loo_accuracy(good, torch.tensor([0]))):  # fmt: skip
        with pytest.raises(DataError):
            wrong()
    for wrong in (lambda: flow_loss(found, good, [-1.0]), lambda: descent_loss(found, good, -1.0, [1]),
                  lambda: descent_loss(found, good, 1.0, [-1]), lambda: held_out(found, good, 0.0),
                  lambda: complexity(found, good, math.inf),
                  lambda: centred_one_hot(torch.tensor([0]), 1)):  # fmt: skip
        with pytest.raises(ConfigError):
            wrong()
