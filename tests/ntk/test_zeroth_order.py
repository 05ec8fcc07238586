"""The kernel from finite differences: right on smooth models, with its error; what it says of hard ones."""

import pytest
import torch
from torch import nn

from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.program import Program
from reprogram.inputs import Additive, Place, full_mask
from reprogram.ntk.zeroth_order import zeroth_order_kernel
from reprogram.outputs import FirstClasses
from reprogram.sources import wrap


def program(activation: nn.Module, *, size: int = 4, targets: int = 2) -> Program:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 24), activation, nn.Linear(24, 3))
    source = wrap(net, input_shape=(3, size, size))
    return Program([Place(size), Additive(full_mask(size))], source, FirstClasses(3, targets))


def exact(made: Program, x: torch.Tensor) -> torch.Tensor:
    """J J^T by plain autograd, output by output."""
    out = made(x)
    (learned,) = [p for p in made.parameters() if p.requires_grad]
    rows = [torch.autograd.grad(v, learned, retain_graph=True)[0].flatten().double() for v in out.flatten()]
    jacobian = torch.stack(rows)
    return (jacobian @ jacobian.T).view(*out.shape, *out.shape)


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def test_it_is_the_kernel_of_a_smooth_model_as_directions_grow():
    made, x = program(nn.Tanh()), torch.rand(5, 3, 4, 4)
    truth = exact(made, x)
    errors = {q: error(zeroth_order_kernel(made, x, 0.01, q, seed=1).kernel(), truth) for q in (50, 800, 3200)}
    assert errors[3200] < errors[800] < errors[50]
    assert errors[3200] < 0.07
    # E |K_hat - K|^2 = (tr(K)^2 + |K|^2) / q
    trace = float(truth.view(10, 10).trace())
    expected = (1 + (trace / float(truth.norm())) ** 2) ** 0.5
    for q, found in errors.items():
        assert 0.4 < found * q**0.5 / expected < 2


def test_trace_and_directions_are_unbiased_and_know_their_error():
    made, x = program(nn.Tanh()), torch.rand(5, 3, 4, 4)
    truth = exact(made, x).view(10, 10)
    v = torch.randn(5, 2)
    wanted = {"trace": float(truth.trace()), "along": float(v.flatten().double() @ truth @ v.flatten().double())}
    off = {"trace": [], "along": []}
    for seed in range(20):
        found = zeroth_order_kernel(made, x, 0.01, 100, seed=seed)
        for name, (value, bar) in {"trace": found.trace(), "along": found.along(v)}.items():
            off[name].append((value - wanted[name]) / bar)
    for values in off.values():
        assert abs(sum(values) / 20) < 0.8  # in standard errors; 0.22 is one standard deviation of this mean
        assert sum(abs(z) < 1.5 for z in values) >= 10


def test_the_rank_is_at_most_the_number_of_directions():
    found = zeroth_order_kernel(program(nn.Tanh()), torch.rand(5, 3, 4, 4), 0.01, 4)
    assert found.cap == 4
    eigenvalues = torch.linalg.eigvalsh(found.kernel().view(10, 10))
    assert int((eigenvalues > 1e-12 * eigenvalues.max()).sum()) == 4


class Sign(nn.Module):
    def forward(self, x):
        return torch.sign(x)


def test_a_hard_model_has_no_gradient_kernel_but_has_slopes_at_a_scale():
    made, x = program(Sign()), torch.rand(5, 3, 4, 4)
    assert float(exact(made, x).abs().max()) == 0
    wide, narrow = (zeroth_order_kernel(made, x, s, 200).trace()[0] for s in (0.3, 0.1))
    assert narrow > wide > 0  # a step looks the steeper the closer one looks
    tiny = zeroth_order_kernel(made, x, 1e-6, 20)
    assert tiny.trace() == (0.0, 0.0)


def test_the_program_is_put_back_and_seeds_repeat():
    made, x = program(nn.Tanh()), torch.rand(3, 3, 4, 4)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    made.train()
    one, two = (zeroth_order_kernel(made, x, 0.1, 3, seed=4).rows for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, zeroth_order_kernel(made, x, 0.1, 3, seed=5).rows)
    assert made.training
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())


def test_bad_input_is_refused_and_leaves_the_program_as_it_was():
    made, x = program(nn.Tanh()), torch.rand(3, 3, 4, 4)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError):
            zeroth_order_kernel(made, x, wrong)
    with pytest.raises(ConfigError):
        zeroth_order_kernel(made, x, 0.1, 0)
    with pytest.raises(DataError):
        zeroth_order_kernel(made, torch.full((1, 3, 4, 4), float("nan")), 0.1, 2)
    assert all(float(p.detach().abs().max()) == 0 for p in made.parameters() if p.requires_grad)
    fixed = Program([Place(4)], made.source, FirstClasses(3, 2))
    with pytest.raises(CapabilityError):
        zeroth_order_kernel(fixed, x)
