"""Sketches and Lanczos quadrature: exact where they say so, and within their error bars where they do not."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError
from reprogram.ntk.dynamics import alignment, flow_loss
from reprogram.ntk.lanczos import Estimate, density, logdet_estimate
from reprogram.ntk.sketch import Sketch, SketchResult
from reprogram.ntk.spectrum import gram, rows_spectrum, spectrum

often = settings(deadline=None, max_examples=20, derandomize=True)

N, T, P = 40, 5, 220
SPECTRA = {
    "steep": torch.logspace(0, -6, 200).double() * 100,
    "power": 100 / torch.arange(1, 201).double(),
    "short": torch.cat([torch.logspace(0, -9, 80).double() * 100, torch.zeros(120).double()]),
    "flat": torch.linspace(1, 0.1, 200).double(),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def known(name: str) -> tuple[Tensor, Tensor]:
    """Rows [N, T, P] whose kernel has these eigenvalues, and labels that lie more along the large ones."""
    values = SPECTRA[name]
    left, right = torch.linalg.qr(draw(200, 200, seed=1))[0], torch.linalg.qr(draw(P, 200, seed=2))[0]
    y = left @ (draw(200, seed=3) * (0.1 + (values / values.max()).sqrt()))
    return ((left * values.sqrt()) @ right.T).reshape(N, T, P).float(), y.reshape(N, T)


def sketched(rows: Tensor, y: Tensor, columns: int, seed: int = 0, block: int = 7, **factor: Tensor) -> Sketch:
    made = Sketch(columns, seed)
    for i in range(0, len(rows), block):
        made.add(rows[i : i + block], y[i : i + block], **{k: v[i : i + block] for k, v in factor.items()})
    return made


def figures(found: SketchResult) -> list[Estimate]:
    return [found.largest, found.logdet, found.alignment, *found.flow_loss]


@pytest.mark.parametrize("columns", [64, 160])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_truth_is_within_the_bars(name, columns):
    """Over 8 sketches, the root mean square of (estimate - truth) / bar is at most 1.5, for each figure."""
    rows, y = known(name)
    exact = rows_spectrum(rows)
    times = [by / exact.mean for by in (0.1, 1.0, 10.0)]
    truth = [exact.largest, exact.logdet(), alignment(exact, y), *flow_loss(exact, y, times).tolist()]
    off = torch.tensor(
        [
            [(e.value - t) / e.error for e, t in zip(figures(made.finish(times)), truth, strict=True)]
            for made in (sketched(rows, y, columns, seed, N) for seed in range(8))
        ]
    )
    assert float(off.square().mean(0).sqrt().max()) < 1.5
    assert float(off.abs().max()) < 4


@pytest.mark.parametrize("name", ["power", "flat"])
def test_far_too_few_columns_are_admitted(name):
    """32 columns for 200 directions: the bias cannot be taken out, and the bars reach to what is certain."""
    rows, y = known(name)
    exact = rows_spectrum(rows)
    times = [by / exact.mean for by in (1.0, 10.0)]
    truth = [exact.logdet(), *flow_loss(exact, y, times).tolist()]
    for seed in range(6):
        found = sketched(rows, y, 32, seed, N).finish(times)
        for made, t in zip([found.logdet, *found.flow_loss], truth, strict=True):
            assert abs(made.value - t) < made.error
    assert found.logdet.error > 0.5 * abs(found.logdet.value - math.log(1.001 * exact.mean))


def test_the_norm_of_the_kernel_is_not_biased():
    """The mean over 300 sketches of `|K|_F^2`, known to 0.4 %; dividing by k^2 instead is off by 3 %."""
    rows, y = known("flat")
    k, flat = gram(rows), y.flatten()
    top = float(flat @ k @ flat) / float(flat @ flat)
    each = torch.tensor([(top / sketched(rows, y, 32, s, N)._alignment().value) ** 2 for s in range(300)])
    assert float(each.mean()) == pytest.approx(float(k.square().sum()), rel=0.015)


def test_more_columns_are_closer_and_say_so():
    rows, y = known("steep")
    exact = rows_spectrum(rows)
    times = [1 / exact.mean]
    truth = [exact.largest, exact.logdet(), alignment(exact, y), *flow_loss(exact, y, times).tolist()]
    error, bar = [], []
    for columns in (64, 512):
        made = [figures(sketched(rows, y, columns, seed, N).finish(times)) for seed in range(4)]
        error.append([sum(abs(m[i].value - t) for m in made) for i, t in enumerate(truth)])
        bar.append([sum(m[i].error for m in made) for i in range(len(truth))])
    for i in range(len(truth)):
        assert bar[1][i] < 0.6 * bar[0][i]
    assert sum(a < b for a, b in zip(error[1], error[0], strict=True)) >= 3


def test_what_is_exact_is_exact():
    rows, y = known("power")
    found = sketched(rows, y, 32).finish()
    k, flat = gram(rows), y.flatten()
    assert found.trace.value == pytest.approx(float(k.trace()), rel=1e-12)
    assert found.trace.error == 0.0
    norms = [sketched(rows, y, 32, seed).finish().alignment.value for seed in range(3)]
    assert len(set(norms)) == 3  # |K|_F is estimated
    exact = float(flat @ k @ flat)
    assert float(sketched(rows, y, 32)._pulled.square().sum()) == pytest.approx(exact, rel=1e-9)


def test_no_smallest_eigenvalue_from_a_sketch():
    names = {f.name for f in dataclasses.fields(SketchResult)}
    assert names == {"columns", "samples", "targets", "trace", "largest", "alignment", "logdet", "times", "flow_loss"}


def test_an_outer_product_is_sketched_without_being_formed():
    """(S1 g) * (S2 f) is the product of the whole row with the rows of S1 and S2 multiplied column by column."""
    g, f, y = draw(12, 3, 9).float(), draw(12, 5, seed=1).float(), draw(12, 3, seed=2)
    made = sketched(g, y, 64, factor=f)
    one, two = made._signs
    whole = torch.einsum("ntd,nq->ntdq", g.double(), f.double()).flatten(2)
    signs = torch.einsum("dk,qk->dqk", one, two).flatten(0, 1)
    plain = (whole @ signs.double()).flatten(0, 1)
    torch.testing.assert_close(made._small, plain.T @ plain, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(made._inner, plain.T @ y.flatten(), rtol=1e-5, atol=1e-4)
    assert made.finish().trace.value == pytest.approx(float(whole.square().sum()), rel=1e-12)


def test_the_full_linear_program_within_the_bars():
    g, f, y = draw(40, 3, 20).float(), draw(40, 10, seed=1).float(), draw(40, 3, seed=2)
    exact = spectrum(gram(g).reshape(40, 3, 40, 3) * gram(f)[:, None, :, None])
    times = [1 / exact.mean]
    truth = [exact.largest, exact.logdet(), alignment(exact, y), float(flow_loss(exact, y, times))]
    for seed in range(3):
        for made, t in zip(figures(sketched(g, y, 256, seed, factor=f).finish(times)), truth, strict=True):
            assert abs(made.value - t) < 4 * made.error


@often
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_blocks_are_independent_jobs(seed, cuts):
    rows, y = draw(30, 2, 6, seed=seed).float(), draw(30, 2, seed=seed + 1)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    whole, joined = Sketch(16, groups=4), Sketch(16, groups=4)
    whole.add(rows, y)
    ends = [0, *sorted(cuts), 30]
    for a, b in itertools.pairwise(ends):
        part = Sketch(16, groups=4)
        if b > a:
            part.add(rows[order[a:b]], y[order[a:b]])
        joined.merge(part)
    assert (joined.samples, joined.targets) == (30, 2)
    one, other = whole.finish([0.1]), joined.finish([0.1])
    assert other.trace.value == pytest.approx(one.trace.value)
    for a, b in zip(figures(one), figures(other), strict=True):
        assert b.value == pytest.approx(a.value, rel=1e-4, abs=1e-6)


def test_what_a_sketch_holds_does_not_grow():
    def held(made: Sketch) -> int:
        parts = [made._small, made._inner, made._pulled, *made._signs]
        return sum(p.numel() * p.element_size() for p in parts)

    rows, y = draw(300, 2, 11).float(), draw(300, 2, seed=1)
    assert held(sketched(rows[:10], y[:10], 32)) == held(sketched(rows, y, 32)) == 8 * (32 * 32 + 32 + 11) + 11 * 32


def test_half_precision_rows_and_more_columns_than_rows():
    rows, y = draw(6, 2, 30), draw(6, 2, seed=1)
    low = rows.bfloat16()
    exact = rows_spectrum(low)
    found = sketched(low, y, 512).finish([1 / exact.mean])
    assert found.trace.value == pytest.approx(exact.trace, rel=1e-9)
    assert abs(found.largest.value - exact.largest) < 4 * found.largest.error
    assert abs(found.logdet.value - exact.logdet()) < 4 * found.logdet.error


def test_bad_blocks_are_refused_and_leave_no_trace():
    rows, y = draw(6, 2, 5).float(), draw(6, 2, seed=1)
    clean = sketched(rows, y, 32)
    made = Sketch(32)
    for bad, target in ((rows.clone(), y), (rows, y.clone())):
        (bad if target is y else target)[2, 1] = math.nan
        with pytest.raises(DataError, match="finite"):
            made.add(bad, target)
    made.add(rows, y)
    for wrong in ((rows[:, :1], y[:, :1]), (rows[:, :, :4], y)):
        with pytest.raises(DataError, match="blocks before"):
            made.add(*wrong)
    with pytest.raises(DataError, match="blocks before"):
        made.add(rows, y, draw(6, 3).float())
    other = Sketch(32)
    other.add(rows[:, :, :4], y)
    with pytest.raises(DataError, match="shape"):
        made.merge(other)
    assert made.finish([1.0]) == clean.finish([1.0])


def test_bad_settings_and_nothing_to_tell():
    for wrong in (lambda: Sketch(8), lambda: Sketch(64, groups=1), lambda: Sketch(32).merge(Sketch(32, seed=1)),
                  lambda: Sketch(32).merge(Sketch(40)), lambda: Sketch(32).finish([-1.0]),
                  lambda: Sketch(32).finish(reg=0.0)):  # fmt: skip
        with pytest.raises(ConfigError):
            wrong()
    with pytest.raises(DataError, match="must have seen"):
        Sketch(32).finish()
    for rows, y in ((torch.zeros(2, 2, 3), torch.ones(2, 2)), (torch.ones(2, 2, 3), torch.zeros(2, 2))):
        made = Sketch(32)
        made.add(rows, y)
        with pytest.raises(DataError, match="must have seen"):
            made.finish()


# --- Lanczos ----------------------------------------------------------------------------------------------------------


def matrix(name: str) -> Tensor:
    left = torch.linalg.qr(draw(200, 200, seed=1))[0]
    return (left * SPECTRA[name]) @ left.T


@pytest.mark.parametrize("name", SPECTRA)
def test_quadrature_of_a_known_spectrum(name):
    k = matrix(name)
    exact = spectrum(k, jacobian_eps=0.0)
    made = logdet_estimate(lambda v: k @ v, 200, probes=10, steps=40)
    assert abs(made.value - exact.logdet()) < 4 * made.error
    found = density(lambda v: k @ v, 200, probes=10, steps=40)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(10).double())
    assert float(found.nodes.max()) == pytest.approx(exact.largest, rel=1e-6)
    for at in (0.01 * exact.largest, 0.3 * exact.largest):
        share = float((exact.eigenvalues <= at).double().mean())
        assert abs(found.cumulative(at).value - share) < 0.06
    assert 0 < found.error < 0.2


def test_all_steps_are_a_full_eigensolver():
    """Then each probe holds the eigenvalues themselves, however ill-conditioned: the basis stays orthogonal."""
    k = matrix("steep")[:60, :60]
    exact = torch.linalg.eigvalsh(k)
    found = density(lambda v: k @ v, 60, probes=2, steps=100)
    for nodes in found.nodes:
        torch.testing.assert_close(nodes, exact, rtol=1e-6, atol=1e-10)


def test_quadrature_is_exact_for_low_powers_of_each_probe():
    k = matrix("power")
    found = density(lambda v: k @ v, 200, probes=3, steps=4, seed=5)
    generator = torch.Generator().manual_seed(5)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        z = torch.randint(0, 2, (200,), generator=generator).double() * 2 - 1
        for power in range(8):
            plain = float(z @ torch.linalg.matrix_power(k, power) @ z) / 200
            assert float((nodes**power * weights).sum()) == pytest.approx(plain, rel=1e-9)


def test_a_space_that_is_soon_exhausted():
    q = torch.linalg.qr(draw(50, 3))[0]
    k = q * torch.tensor([3.0, 2.0, 1.0]).double() @ q.T
    found = density(lambda v: k @ v, 50, probes=40, steps=20)
    assert found.cumulative(1e-9).value == pytest.approx(0.94, abs=4 * found.cumulative(1e-9).error)
    exact = spectrum(k, jacobian_eps=0.0).logdet()
    made = logdet_estimate(lambda v: k @ v, 50, probes=40, steps=20)
    assert abs(made.value - exact) < 4 * made.error
    nothing = density(torch.zeros_like, 5, probes=2, steps=3)
    assert nothing.cumulative(0.0) == Estimate(1.0, 0.0)


def test_bad_products_and_settings():
    with pytest.raises(DataError, match="shape"):
        density(lambda v: v[:-1], 5)
    with pytest.raises(DataError, match="inf or nan"):
        density(lambda v: v / 0, 5)
    with pytest.raises(DataError, match="not zero"):
        logdet_estimate(torch.zeros_like, 5)
    for wrong in ({"probes": 1}, {"steps": 0}):
        with pytest.raises(ConfigError):
            density(lambda v: v, 5, **wrong)
    with pytest.raises(ConfigError, match="reg"):
        logdet_estimate(lambda v: v, 5, reg=0.0)
