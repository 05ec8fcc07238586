"""Trap 1: edits compile without a graph break. Run without the runtime shape checker (trap 6)."""

import pytest
import torch

from reprogram.core.program import Program
from reprogram.inputs import Additive, Place, SampleMask, around_mask
from reprogram.outputs import BayesianMap, Identity
from reprogram.testing import tiny_source
from tests.core.test_slot import Shift

pytestmark = pytest.mark.compile


def programs(source):
    return {
        "input": Program([Place(16, 8), Additive(around_mask(16, 8, 8), squash="sigmoid")], source, BayesianMap(12, 3)),
        "hidden": Program([Place(16), Shift("hidden.0"), Shift("stem")], source, Identity()),
        "mask": Program([Place(16), SampleMask(16, patch=4)], source, Identity()),
    }


@pytest.mark.parametrize("name", ["input", "hidden", "mask"])
def test_fullgraph_equals_eager(name):
    program = programs(tiny_source())[name].eval()
    x = torch.rand(2, 3, 16, 16)
    torch._dynamo.reset()
    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), program(x))
    compiled(x).square().sum().backward()
    got = [p.grad.clone() for p in program.parameters() if p.grad is not None]
    program.zero_grad()
    program(x).square().sum().backward()
    expected = [p.grad for p in program.parameters() if p.grad is not None]
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-5)


def test_two_compiled_programs_on_one_source_keep_apart():
    source = tiny_source()
    torch._dynamo.reset()
    a = Program([Shift("hidden.0", value=0.1)], source, Identity())
    b = Program([Shift("hidden.0", value=0.9)], source, Identity())
    x = torch.rand(2, 3, 16, 16)
    fast_a, fast_b = (torch.compile(p, fullgraph=True, backend="aot_eager") for p in (a, b))
    for _ in range(2):
        torch.testing.assert_close(fast_a(x), a(x))
        torch.testing.assert_close(fast_b(x), b(x))
    assert not torch.allclose(a(x), b(x))


@pytest.mark.parametrize("method", ["blm", "smm"])
def test_fit_with_compile_equals_fit_without(method):
    from reprogram.catalogue import build
    from reprogram.fit import FitOptions, fit
    from reprogram.testing import tiny_task

    task, settings = tiny_task(), {"epochs": 1, "batch_size": 8}
    settings |= {"patch": 4} if method == "smm" else {}
    torch._dynamo.reset()
    results = []
    for use in (False, True):
        program = build(method, tiny_source(), task, **settings)
        results.append(fit(program, task, options=FitOptions(progress=False, compile=use)))
    torch.testing.assert_close(results[0].test.scores, results[1].test.scores, rtol=1e-3, atol=1e-3)
