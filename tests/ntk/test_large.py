"""The sketch of a whole split against the exact kernel of the same samples."""

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.program import Program
from reprogram.inputs import FullLinear, Patch, Place
from reprogram.ntk import batches_of, jacobian, program_kernel, sketch_kernel, spectrum
from reprogram.ntk.dynamics import alignment, centred_one_hot, flow_loss
from reprogram.outputs import FirstClasses, Linear
from reprogram.testing import tiny_source, tiny_task


def exact(program, x, y):
    found = spectrum(program_kernel(program, x), jacobian_eps=0.0)
    labels = centred_one_hot(y, 3)
    losses = flow_loss(found, labels, [10.0, 10.0 / found.mean])
    return found, alignment(found, labels), losses


@pytest.mark.parametrize("method", ["vp", "fc"])
def test_figures_are_within_their_bars(method):
    """Additive rows, and the factored ones of a full linear program; blocks of any size, any order of blocks."""
    settings = {"width": 3} if method == "vp" else {}
    program, task = rp.build(method, tiny_source(), tiny_task(), **settings), tiny_task(per_class=20)
    rows = torch.arange(36)
    x, y = task.train.fetch(rows), task.train.labels[rows]
    whole, aligned, losses = exact(program, x, y)
    told = []
    found = sketch_kernel(program, batches_of(task.train.fetch, task.train.labels, rows, size=7), columns=512,
                          progress=told.append)  # fmt: skip
    assert told[-1] == 36 and found.samples == 36 and found.targets == 3
    assert found.trace.value == pytest.approx(whole.trace, rel=1e-5)
    pairs = [(found.largest, whole.largest), (found.alignment, aligned), (found.logdet, whole.logdet())]
    for estimate, truth in [*pairs, *zip(found.flow_loss, losses.tolist(), strict=True)]:
        assert abs(estimate.value - truth) <= 4 * estimate.error + 1e-4 * abs(truth)
        assert estimate.error < 0.5 * abs(truth) + 0.5
    assert not hasattr(found, "smallest")


def test_several_plain_parts_are_one_row():
    edits = [Place(16), Patch(16, 4, site="input"), Patch(16, 3, site="normalised")]
    program = Program(edits, tiny_source(), FirstClasses(12, 3))
    task = tiny_task()
    rows = torch.arange(12)
    found = sketch_kernel(program, batches_of(task.train.fetch, task.train.labels, rows), columns=256)
    kernel = jacobian(program, task.train.fetch(rows)).gram()
    assert found.trace.value == pytest.approx(float(kernel.diagonal().sum()), rel=1e-5)


def test_what_cannot_be_sketched_is_said():
    task = tiny_task()
    batches = list(batches_of(task.train.fetch, task.train.labels, torch.arange(6)))
    both = Program([FullLinear((3, 8, 8), 16), Patch(16, 3)], tiny_source(), FirstClasses(12, 3))
    with pytest.raises(ConfigError, match="one learned part"):
        sketch_kernel(both, batches)
    probe = Program([Place(16)], tiny_source(), Linear(12, 3))
    with pytest.raises(ConfigError, match="one learned part"):
        sketch_kernel(probe, batches)
    fixed = Program([Place(16)], tiny_source(), FirstClasses(12, 3))
    with pytest.raises(CapabilityError, match="learn something"):
        sketch_kernel(fixed, batches)
