"""Edits against plain references."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.task import Sample, TaskSpec
from reprogram.inputs import Additive, Patch, Place, SampleMask, around_mask, frame_mask, full_mask, padded, pattern
from reprogram.testing import tiny_source

sizes = st.integers(1, 24)


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, st.integers(1, 24), st.one_of(st.none(), st.integers(1, 24)))
def test_place_always_fills_the_canvas_and_centres(height, width, canvas, inner):
    if inner is not None and inner > canvas:
        with pytest.raises(ConfigError):
            Place(canvas, inner)
        return
    place = Place(canvas, inner)
    out = place(torch.full((1, 3, height, width), 0.75))
    assert out.shape == (1, 3, canvas, canvas)
    h, w = place.size(height, width)
    assert max(h, w) == (inner or min(max(height, width), canvas))
    top, left = (canvas - h + 1) // 2, (canvas - w + 1) // 2
    inside = out[..., top : top + h, left : left + w]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.75))
    assert float(out.sum()) == pytest.approx(0.75 * 3 * h * w, rel=1e-4)


def test_place_keeps_values_in_range_and_small_images_exact():
    x = (torch.rand(2, 3, 9, 9) > 0.5).float()
    assert float(Place(32, 32)(x).max()) <= 1
    assert float(Place(32, 32)(x).min()) >= 0
    assert torch.equal(Place(16)(x)[..., 4:13, 4:13], x)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 20), st.data(), st.sampled_from(["none", "sigmoid", "tanh", "clamp"]), st.booleans())
def test_additive_equals_the_formula(canvas, data, squash, hole):
    h, w = data.draw(st.integers(1, canvas)), data.draw(st.integers(1, canvas))
    if h == w == canvas:
        with pytest.raises(ConfigError, match="leave pixels"):
            around_mask(canvas, h, w)
        return
    mask = around_mask(canvas, h, w)
    edit = Additive(mask, squash=squash, init="normal", squash_hole=hole)
    dense = torch.zeros(3, canvas * canvas)
    dense[:, mask.flatten()] = edit.values.detach()
    dense = dense.view(3, canvas, canvas)
    act = {"none": lambda v: v, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "clamp": lambda v: v.clamp(0, 1)}[squash]
    x = torch.rand(2, 3, canvas, canvas)
    expected = x + (act(dense * mask) if hole else act(dense) * mask)
    torch.testing.assert_close(edit(x), expected)
    assert edit.effective() == edit.values.numel() == 3 * int(mask.sum())


@pytest.mark.parametrize(("size", "numbers"), [(32, 147_456), (64, 138_240), (128, 101_376), (192, 39_936)])
def test_effective_numbers_of_the_padded_prompt(size, numbers):
    """The table of section 2.1 of the vision spec."""
    assert 3 * int(around_mask(224, size, size).sum()) == numbers


def test_masks():
    assert int(frame_mask(8, 1).sum()) == 28
    assert bool(frame_mask(8, 4).all()) and bool(frame_mask(8, 9).all()) and bool(full_mask(8).all())
    with pytest.raises(ConfigError, match="at least 1"):
        frame_mask(8, 0)
    with pytest.raises(ConfigError, match="fit the canvas"):
        around_mask(8, 9, 3)


def test_additive_refuses_other_sizes():
    with pytest.raises(ConfigError, match=r"images of \[3, 8, 8\]"):
        Additive(full_mask(8))(torch.rand(1, 3, 9, 9))


def test_input_is_not_changed_in_place():
    x = torch.rand(1, 3, 8, 8)
    before = x.clone()
    Additive(full_mask(8), init="normal")(x)
    Patch(8, 3)(x)
    SampleMask(8, patch=2)(x)
    assert torch.equal(x, before)


def test_gradient_of_additive_in_float64():
    edit = Additive(around_mask(6, 3, 2), squash="sigmoid", init="normal").double()
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)

    def run(values):
        return torch.func.functional_call(edit, {"values": values}, (x,))

    assert torch.autograd.gradcheck(run, (edit.values.detach().requires_grad_(),))


def test_patch_places():
    patch = Patch(8, 3)
    out = patch(torch.zeros(1, 3, 8, 8))
    assert torch.equal(out[0, :, :3, :3], patch.values.detach())
    torch.testing.assert_close(out.abs().sum(), patch.values.abs().sum())
    random = Patch(8, 3, where="random")
    places = {tuple(random(torch.zeros(1, 3, 8, 8)).abs().sum((0, 1)).nonzero()[0].tolist()) for _ in range(50)}
    assert len(places) > 5
    random.eval()
    assert torch.equal(random(torch.zeros(1, 3, 8, 8)), random(torch.zeros(1, 3, 8, 8)))


@pytest.mark.parametrize(("layers", "channels", "numbers"), [(5, 3, 26_499), (6, 3, 102_339)])
def test_generator_has_the_papers_size(layers, channels, numbers):
    edit = SampleMask(16, layers=layers, channels=channels)
    assert sum(p.numel() for p in edit.generator.parameters()) == numbers


@pytest.mark.parametrize("canvas", [16, 18, 23])
def test_mask_is_block_copy_with_replicated_edges(canvas):
    edit = SampleMask(canvas, patch=4).eval()
    x = torch.rand(2, 3, canvas, canvas)
    cells = edit.generator(x)
    rows = torch.arange(canvas).div(4, rounding_mode="floor").clamp(max=cells.shape[-1] - 1)
    torch.testing.assert_close(edit.mask(x), cells[..., rows, :][..., rows])
    if canvas % 4 == 0:
        torch.testing.assert_close(edit.mask(x), F.interpolate(cells, scale_factor=4, mode="nearest"))


def test_sample_mask_starts_as_no_change_and_trains():
    edit = SampleMask(16, patch=4)
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(edit(x), x)
    edit(x).sum().backward()
    assert float(edit.values.grad.abs().sum()) > 0


@pytest.mark.parametrize("bad", [{"patch": 3}, {"patch": 32}, {"patch": 0}, {"layers": 4}])
def test_sample_mask_refuses(bad):
    with pytest.raises(ConfigError):
        SampleMask(64, **bad)


def test_conv_biases_before_batch_norm_are_not_effective():
    edit = SampleMask(16, patch=4).double()
    edit.values.data.normal_()
    edit(torch.rand(4, 3, 16, 16, dtype=torch.float64)).square().sum().backward()
    dead = sum(p.numel() for p in edit.parameters() if p.grad.abs().max() < 1e-10)
    assert edit.effective() == sum(p.numel() for p in edit.parameters()) - dead


def test_compositions_refuse_a_frame_of_nothing():
    spec = tiny_source().spec
    task = TaskSpec(name="t", classes=("a", "b"), sample=Sample(shape=(3, 16, 16)))
    with pytest.raises(ConfigError, match="inner"):
        padded(spec, task)
    assert len(padded(spec, task, inner=8)) == 2
    assert pattern("watermark", spec, task)[1].site == "normalised"
    with pytest.raises(CapabilityError):
        padded(tiny_source(resizable=False).spec, task, canvas=64)
