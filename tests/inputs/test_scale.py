"""The learned scale against a slow plain reference, its hole, and its limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError
from reprogram.inputs import Place, ScaledFrame, around_mask, scaled_about_centre


def slowly(images, scale):
    """Pixel by pixel: read at c + (p - c) / s, bilinearly, 0 beyond the edge."""
    height, width = images.shape[-2:]

    def at(image, row, column):
        inside = 0 <= row < height and 0 <= column < width
        return image[..., row, column] if inside else torch.zeros_like(image[..., 0, 0])

    made = torch.zeros_like(images)
    for i in range(height):
        for j in range(width):
            y, x = (height - 1) / 2 + (i - (height - 1) / 2) / scale, (width - 1) / 2 + (j - (width - 1) / 2) / scale
            top, left = math.floor(y), math.floor(x)
            for row, wy in ((top, top + 1 - y), (top + 1, y - top)):
                for column, wx in ((left, left + 1 - x), (left + 1, x - left)):
                    made[..., i, j] += wy * wx * at(images, row, column)
    return made


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 5.0), height=st.integers(1, 7), width=st.integers(1, 7), seed=st.integers(0, 99))
def test_scaling_is_what_a_plain_loop_does(scale, height, width, seed):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = scaled_about_centre(images, torch.tensor(scale, dtype=torch.float64))
    assert torch.allclose(found, slowly(images, scale), atol=1e-9)


def test_the_gradient_of_the_scale_is_that_of_small_differences():
    images = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = torch.tensor(1.37, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (slope,) = torch.autograd.grad((scaled_about_centre(images, scale) * weights).sum(), scale)
    step = 1e-6
    high, low = ((scaled_about_centre(images, scale.detach() + d) * weights).sum() for d in (step, -step))
    assert float(slope) == pytest.approx(float((high - low) / (2 * step)), rel=1e-5)


@pytest.mark.parametrize("start", [0.1, 0.5, 1.0, 1.49, 1.5, 5.0])
def test_the_hole_follows_the_scale(start):
    edit = ScaledFrame(20, 9, (3, 4, 4), start)
    side = min(math.floor(9 * float(torch.tensor(start))), 20)
    assert edit.hole().tolist() == [side, side]
    expected = around_mask(20, side, side) if 0 < side < 20 else torch.full((20, 20), side == 0)
    assert torch.equal(edit.mask(), expected)
    assert edit.effective() == 3 * int(expected.sum()) + 1
    assert sum(p.numel() for p in edit.parameters()) == 3 * 20 * 20 + 1  # and the scale is one number


def test_at_a_scale_of_one_it_is_the_padded_frame_of_other_methods():
    x = torch.rand(2, 3, 6, 6)
    edit = ScaledFrame(13, 7, (3, 6, 6)).eval()
    expected = Place(13, 7, "bilinear")(x) + 0.5 * around_mask(13, 7, 7)
    assert torch.allclose(edit(x), expected, atol=1e-5)


def test_numbers_in_the_hole_get_no_gradient_and_the_mask_gives_the_scale_none():
    edit = ScaledFrame(12, 6, (3, 6, 6), 1.2)
    x = torch.zeros(1, 3, 6, 6)
    edit(x).sum().backward()
    mask = edit.mask()
    assert edit.values.grad is not None
    assert bool((edit.values.grad[:, mask] != 0).all())
    assert bool((edit.values.grad[:, ~mask] == 0).all())
    assert edit.scale.grad is not None
    assert float(edit.scale.grad) == 0.0  # the picture is black, so only the mask could have moved it


def test_the_scale_is_put_back_into_its_limits_and_can_come_back():
    edit = ScaledFrame(12, 6, (3, 6, 6), 5.0)
    x = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        edit.scale.fill_(7.0)
    edit.eval()
    assert float(edit.limited().detach()) == 5.0
    assert float(edit.scale.detach()) == 7.0  # reading does not write
    edit.train()
    (edit(x) * torch.rand(12, 12)).sum().backward()
    assert float(edit.scale.detach()) == 5.0
    assert edit.scale.grad is not None
    assert float(edit.scale.grad) != 0.0


def test_wrong_sizes_are_refused():
    for wrong in (0.05, 5.5, float("nan")):
        with pytest.raises(ConfigError, match="scale"):
            ScaledFrame(12, 6, (3, 6, 6), wrong)
    with pytest.raises(ConfigError, match="inner"):
        ScaledFrame(12, 13, (3, 6, 6))
    with pytest.raises(ConfigError, match="must be images"):
        ScaledFrame(12, 6, (3, 6, 6))(torch.rand(1, 3, 5, 5))
