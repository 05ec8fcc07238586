"""Kernels of programs on image-text sources: right for what is learned in pictures, refused for class texts."""

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import CapabilityError
from reprogram.ntk import program_kernel
from reprogram.testing import tiny_task
from reprogram.testing.image_text import tiny_dual_source

pytest.importorskip("transformers")


def test_a_frame_has_the_kernel_of_its_jacobian():
    source, task = tiny_dual_source(), tiny_task()
    program = rp.build("vp_clip", source, task, width=2)
    x = task.train.fetch(torch.arange(3)).float() / 255
    values = next(p for p in program.parameters() if p.requires_grad)
    rows = []
    for one in x:
        scores = program(one[None])[0]
        rows += [torch.autograd.grad(s, values, retain_graph=True)[0].flatten() for s in scores]
    jacobian = torch.stack(rows).double()
    plain = (jacobian @ jacobian.T).view(3, 3, 3, 3)
    torch.testing.assert_close(program_kernel(program, x).double(), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["coop", "plot_pp"])
def test_what_is_learned_about_texts_or_repeats_pictures_is_refused(method):
    source, task = tiny_dual_source(), tiny_task()
    program = rp.build(method, source, task, tokens=2)
    with pytest.raises(CapabilityError, match=r"text side|row for each"):
        program_kernel(program, task.train.fetch(torch.arange(2)).float() / 255)
