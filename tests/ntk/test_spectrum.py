"""Spectra: equal to plain linear algebra, the same by either Gram, and silent about what is only rounding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, DataError
from reprogram.ntk.spectrum import SINGLE, contrasts, gram, project_softmax, rows_spectrum, spectrum

often = settings(deadline=None, max_examples=40, derandomize=True)
seeds = st.integers(0, 2**31)
few = st.integers(1, 6)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(n: int, seed: int) -> Tensor:
    return torch.linalg.qr(draw(n, n, seed=seed))[0]


def kernel_of(rows: Tensor) -> Tensor:
    n, t, _ = rows.shape
    return torch.einsum("ntp,msp->ntms", rows, rows).reshape(n, t, n, t)


def graded(values: Tensor, size: int, params: int, seed: int) -> Tensor:
    """Rows [size, 1, params] whose Gram has these eigenvalues and zeros else."""
    left, right = rotation(size, seed)[:, : len(values)], rotation(params, seed + 1)[:, : len(values)]
    return (left * values.sqrt() @ right.T).unsqueeze(1)


# --- the Gram ---------------------------------------------------------------------------------------------------------


@often
@given(n=few, t=few, p=st.integers(1, 40), tile=st.integers(1, 50), seed=seeds, dtype=st.sampled_from(["f", "d", "b"]))
def test_gram_is_the_plain_product(n, t, p, tile, seed, dtype):
    rows = draw(n, t, p, seed=seed).to({"f": torch.float32, "d": torch.float64, "b": torch.bfloat16}[dtype])
    plain = rows.double().flatten(0, 1)
    torch.testing.assert_close(gram(rows, tile=tile), plain @ plain.T, rtol=1e-12, atol=1e-12)
    others = draw(3, p, seed=seed + 1)
    torch.testing.assert_close(gram(rows, others, tile=tile), plain @ others.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 127, 128, 129, 300])
def test_gram_of_several_blocks_is_exactly_symmetric(size):
    rows = draw(size, 70).float()
    made = gram(rows, tile=32)
    assert torch.equal(made, made.T)
    torch.testing.assert_close(made, rows.double() @ rows.double().T)


def test_gram_of_a_transposed_view_and_of_rows_that_do_not_match():
    rows = draw(9, 5).float()
    torch.testing.assert_close(gram(rows.T, tile=4), rows.double().T @ rows.double())
    with pytest.raises(DataError, match="rows of 5 numbers, got 4"):
        gram(rows, rows[:, :4])


def test_a_full_linear_program_is_the_hadamard_product_of_two_small_grams():
    g, x = draw(4, 3, 7), torch.cat([draw(4, 5, seed=1), torch.ones(4, 1, dtype=torch.float64)], 1)
    long = torch.einsum("ntd,nx->ntdx", g, x).flatten(2)
    short = kernel_of(g) * gram(x)[:, None, :, None]
    torch.testing.assert_close(gram(long).reshape(4, 3, 4, 3), short, rtol=1e-14, atol=1e-14)


# --- eigenvalues ------------------------------------------------------------------------------------------------------


@often
@given(n=few, t=few, p=st.integers(1, 40), seed=seeds)
def test_dual_and_primal_agree(n, t, p, seed):
    rows = draw(n, t, p, seed=seed)
    one, other = rows_spectrum(rows), spectrum(kernel_of(rows), cap=min(n * t, p), jacobian_eps=0.0)
    assert one.rank == other.rank == min(n * t, p)
    torch.testing.assert_close(one.top, other.top, rtol=1e-9, atol=1e-12)
    assert (one.size, one.cap, one.smallest_note) == (other.size, other.cap, other.smallest_note)
    assert one.trace == pytest.approx(other.trace)
    assert one.logdet() == pytest.approx(other.logdet(), abs=1e-9)
    assert one.effective_rank().entropy == pytest.approx(other.effective_rank().entropy)
    for made in (one, other):
        u = made.vectors[:, : made.rank]
        torch.testing.assert_close(u.T @ u, torch.eye(made.rank).double(), rtol=0, atol=1e-8)
        square = kernel_of(rows).reshape(n * t, n * t)
        torch.testing.assert_close(u * made.top @ u.T, square, rtol=1e-8, atol=1e-8)


@often
@given(n=st.integers(2, 8), t=few, p=st.integers(1, 60), seed=seeds)
def test_a_subset_interlaces(n, t, p, seed):
    """Cauchy: `lambda_{i + m} <= mu_i <= lambda_i`, m rows left out: lambda_min can only fall as samples come."""
    rows = draw(n, t, p, seed=seed)
    whole = torch.linalg.eigvalsh(kernel_of(rows).reshape(n * t, -1)).flip(0)
    part = spectrum(kernel_of(rows[:-1]), jacobian_eps=0.0).eigenvalues
    slack = 1e-10 * float(whole[0])
    assert bool((part <= whole[: len(part)] + slack).all())
    assert bool((part >= whole[t:] - slack).all())


@often
@given(n=few, t=few, p=st.integers(1, 40), scale=st.floats(0.01, 100), seed=seeds)
def test_invariances(n, t, p, scale, seed):
    rows = draw(n, t, p, seed=seed)
    base = rows_spectrum(rows)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for same in (rows[order], torch.einsum("ntp,ts->nsp", rows, rotation(t, seed)), rows @ rotation(p, seed)):
        torch.testing.assert_close(rows_spectrum(same).top, base.top, rtol=1e-8, atol=1e-10)
    other = rows_spectrum(rows * scale)
    assert other.rank == base.rank
    torch.testing.assert_close(other.top, base.top * scale**2, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(other.relative().top, base.relative().top, rtol=1e-8, atol=1e-10)
    assert other.condition == pytest.approx(base.condition, rel=1e-6)
    assert other.logdet() == pytest.approx(base.logdet() + 2 * math.log(scale), abs=1e-8)
    assert base.relative().mean == pytest.approx(1.0)


def test_the_sources_kernel_caps_the_programs():
    """`K_delta = G W W^T G^T <= s_max(W)^2 G G^T`, eigenvalue by eigenvalue."""
    g, w = draw(5, 2, 12), draw(12, 30, seed=1)
    source = rows_spectrum(g).eigenvalues
    program = rows_spectrum(g @ w).eigenvalues
    assert bool((program <= torch.linalg.matrix_norm(w, 2) ** 2 * source[: len(program)] + 1e-9).all())


def test_figures_of_known_eigenvalues():
    values = torch.tensor([4.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    q = rotation(4, 3)
    found = spectrum((q * values @ q.T).reshape(2, 2, 2, 2))
    assert (found.samples, found.targets, found.rank, found.smallest_note) == (2, 2, 4, "")
    assert found.largest == pytest.approx(4.0)
    assert found.smallest == pytest.approx(1.0)
    assert found.smallest_kept == pytest.approx(1.0)
    assert found.condition == pytest.approx(4.0)
    assert (found.trace, found.mean) == (pytest.approx(8.0), pytest.approx(2.0))
    assert found.quantile(0.5) == pytest.approx(1.5)
    used = found.effective_rank()
    assert used.entropy == pytest.approx(math.exp(0.5 * math.log(2) + 0.25 * math.log(4) + 0.25 * math.log(8)))
    assert (used.squares, used.largest) == (pytest.approx(64 / 22), pytest.approx(2.0))
    assert found.logdet(0.5) == pytest.approx((math.log(5) + math.log(3) + 2 * math.log(2)) / 4)
    for wrong in (lambda: found.quantile(1.5), lambda: found.logdet(0.0), lambda: found.logdet(math.inf)):
        with pytest.raises(ConfigError):
            wrong()


# --- what is only rounding --------------------------------------------------------------------------------------------


def test_a_short_program_has_no_smallest_eigenvalue():
    for dtype in (torch.float32, torch.float64):
        found = rows_spectrum(draw(10, 3, 7).to(dtype))
        assert (found.rank, found.cap, found.smallest) == (7, 7, None)
        assert found.smallest_note == "zero by structure: rank at most 7 of 30"
        assert found.smallest_kept > found.floor


def test_a_bottleneck_that_nobody_declared_is_found():
    rows = (draw(20, 2, 5) @ draw(5, 60, seed=1)).float()
    found = rows_spectrum(rows)
    assert (found.rank, found.cap, found.smallest) == (5, 40, None)
    assert found.smallest_note.startswith("below the noise floor of ")
    assert rows_spectrum(rows, cap=5).smallest_note == "zero by structure: rank at most 5 of 40"


@pytest.mark.parametrize("params", [4, 50])
def test_duplicated_samples_are_exact_zeros(params):
    rows = draw(6, 2, params).float()
    rows[4] = rows[1]
    found = rows_spectrum(rows)
    assert found.rank == min(10, params)
    assert found.smallest is None
    square = kernel_of(rows.double()).reshape(12, 12)
    null = torch.zeros(12, dtype=torch.float64)
    null[[2, 8]] = torch.tensor([1.0, -1.0], dtype=torch.float64)
    assert float((square @ null).abs().max()) == 0.0


def test_one_sample_one_output_and_nothing_at_all():
    one = spectrum(torch.tensor([[3.0]], dtype=torch.float64))
    assert (one.rank, one.smallest, one.condition) == (1, 3.0, 1.0)
    for zero in (spectrum(torch.zeros(2, 3, 2, 3)), rows_spectrum(torch.zeros(2, 3, 4)),
                 rows_spectrum(torch.zeros(2, 3, 9))):  # fmt: skip
        assert (zero.rank, zero.largest, zero.smallest, zero.smallest_kept, zero.condition) == (
            0,
            0.0,
            None,
            None,
            None,
        )
        assert (zero.smallest_note, zero.logdet(), zero.quantile(0.5)) == ("the kernel is zero", None, None)
        assert zero.effective_rank().entropy == 0.0
        assert zero.relative().trace == 0.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("size", "params"), [(40, 200), (120, 60)])
def test_what_a_rounded_jacobian_leaves_of_graded_eigenvalues(seed, size, params):
    """Down to 1e-18 of the largest: right where it is kept, 11 % from 100 floors on, and gone where it is not."""
    exact = torch.logspace(0, -18, 30, dtype=torch.float64) * 7
    found = rows_spectrum(graded(exact, size, params, seed).float())
    truth = exact[: found.rank]
    assert 15 <= found.rank < 30
    assert found.smallest is None
    off = (found.top / truth).log().abs()
    assert float(off.max()) < math.log(2)
    assert float(off[truth > 100 * found.floor].max()) < math.log(1.11)
    assert bool((exact[found.rank :] < 2 * found.floor).all())


@pytest.mark.parametrize("seed", range(3))
def test_rounding_turns_no_zero_into_an_eigenvalue(seed):
    rows = graded(torch.linspace(1, 0.1, 9, dtype=torch.float64), 60, 80, seed)
    found = rows_spectrum(rows.float())
    assert found.rank == 9
    noise = float(found.eigenvalues[9])
    assert noise < found.floor / 100
    assert rows_spectrum(rows).floor < found.floor  # float64 rows resolve more


@pytest.mark.parametrize(("layers", "act"), [(1, nn.ReLU), (6, nn.GELU), (12, nn.Tanh)])
def test_the_noise_of_real_backward_passes_is_below_the_floor(layers, act):
    """Networks of width 32 have rank 32 at most; their f32 Jacobians say so, and agree with f64 above the floor."""
    torch.manual_seed(layers)
    parts: list[nn.Module] = [nn.Linear(200, 32), act()]
    for _ in range(layers - 1):
        parts += [nn.Linear(32, 32), act()]
    net = nn.Sequential(*parts, nn.Linear(32, 10))
    x = torch.randn(12, 200)
    single, double = jacobian(net, x), jacobian(net.double(), x.double())
    found, exact = rows_spectrum(single), rows_spectrum(double)
    assert found.rank == exact.rank <= 32
    torch.testing.assert_close(found.top, exact.top, rtol=1e-4, atol=0)
    assert float((single.double() - double).norm() ** 2) < 100 * SINGLE**2 * found.trace


def jacobian(net: nn.Module, x: Tensor) -> Tensor:
    x = x.requires_grad_(True)
    y = net(x)
    rows = [torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)[0] for t in range(y.shape[1])]
    return torch.stack(rows, 1)


def test_precisions_of_gram_and_jacobian_are_told_apart():
    rows = graded(torch.tensor([1.0, 1e-9], dtype=torch.float64), 5, 9, 0)
    square = kernel_of(rows)
    assert spectrum(square).rank == 2
    assert spectrum(square.float()).rank == 1  # a float32 Gram
    assert spectrum(square, eps=SINGLE).rank == 1  # the same, said by the caller
    assert spectrum(square, jacobian_eps=torch.finfo(torch.bfloat16).eps).rank == 1
    assert rows_spectrum(rows.bfloat16()).rank == 1
    assert rows_spectrum(rows, jacobian_eps=1e-2).rank == 1


# --- softmax ----------------------------------------------------------------------------------------------------------


@often
@given(n=few, t=st.integers(2, 6), seed=seeds)
def test_softmax_sees_the_kernel_without_common_shifts(n, t, seed):
    kernel = kernel_of(draw(n, t, n * t + 3, seed=seed))
    centre = torch.block_diag(*[torch.eye(t).double() - 1 / t] * n)
    plain = torch.linalg.eigvalsh(centre @ kernel.reshape(n * t, n * t) @ centre).flip(0)
    seen = spectrum(project_softmax(kernel))
    assert seen.rank == n * (t - 1)
    assert bool((plain[n * (t - 1) :].abs() < 1e-10 * plain[0]).all())
    torch.testing.assert_close(seen.eigenvalues, plain[: n * (t - 1)], rtol=1e-8, atol=1e-10)
    basis = contrasts(t)
    torch.testing.assert_close(basis.T @ basis, torch.eye(t - 1).double())
    assert float(basis.sum(0).abs().max()) < 1e-12


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2, 2), (4,), (2, 2, 2), (0, 0), (2, 0, 2, 0)])
def test_shapes_that_are_no_kernel(shape):
    with pytest.raises(DataError, match="must be"):
        spectrum(torch.zeros(*shape))


def test_kernels_that_are_none():
    good = kernel_of(draw(3, 2, 9)).reshape(6, 6)
    off = good.clone()
    off[0, 1] += 1e-3
    with pytest.raises(DataError, match="symmetric"):
        spectrum(off)
    with pytest.raises(DataError, match="positive semi-definite"):
        spectrum(good - 2 * torch.eye(6).double() * float(good[0, 0]))
    with pytest.raises(DataError, match="positive semi-definite"):
        spectrum(-torch.eye(2))
    with pytest.raises(ConfigError, match="cap"):
        spectrum(good, cap=-1)
    with pytest.raises(ConfigError, match="2 or more for a softmax"):
        project_softmax(torch.ones(2, 1, 2, 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [3, 30])
def test_numbers_that_are_not_finite_are_named(bad, params):
    rows = draw(5, 2, params)
    rows[3, 1, 2] = bad
    with pytest.raises(DataError, match="sample 3, output 1"):
        rows_spectrum(rows)
    kernel = kernel_of(draw(5, 2, 30))
    kernel[2, 0, 4, 1] = bad
    with pytest.raises(DataError, match="sample 2, output 0"):
        spectrum(kernel)


def test_rows_without_a_number():
    for shape in ((0, 2, 3), (2, 2, 0)):
        with pytest.raises(DataError, match="empty"):
            rows_spectrum(torch.zeros(*shape))
