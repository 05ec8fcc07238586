"""The small networks, and layers without gradients."""

import pytest
import torch

from reprogram.core.errors import ConfigError
from reprogram.experiments.networks import FAMILIES, ArgmaxPool, Hard, quantise

SHAPE = (3, 28, 28)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("depth", [1, 3])
def test_every_family_maps_images_to_scores_sample_by_sample(family, depth):
    torch.manual_seed(0)
    net = FAMILIES[family](SHAPE, 7, depth, 16).eval()
    x = torch.randn(4, *SHAPE)
    scores = net(x)
    assert scores.shape == (4, 7)
    torch.testing.assert_close(net(x[1:2]), scores[1:2], rtol=1e-4, atol=1e-5)
    weights = [p for p in net.parameters() if p.ndim > 1]
    torch.autograd.backward(scores.sum())
    assert all(float(p.grad.abs().sum()) > 0 for p in weights if p.shape != (16, 16))


def test_depth_and_width_are_what_they_say():
    count = {d: sum(p.numel() for p in FAMILIES["mlp"](SHAPE, 10, d, 16).parameters()) for d in (1, 2)}
    assert count[2] - count[1] == 16 * 16 + 16
    convolutions = [m for m in FAMILIES["cnn"](SHAPE, 10, 4, 16).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.stride for m in convolutions] == [(2, 2), (2, 2), (1, 1), (1, 1)]
    assert {m.out_channels for m in convolutions} == {16}


def test_a_vit_needs_sizes_that_divide():
    for shape, width in (((3, 30, 28), 16), ((3, 28, 28), 12)):
        with pytest.raises(ConfigError):
            FAMILIES["vit"](shape, 10, 1, width)
    with pytest.raises(ConfigError):
        FAMILIES["vit"](SHAPE, 10, 1, 16, Hard())


@pytest.mark.parametrize("kind", [Hard, ArgmaxPool])
def test_hard_layers_have_the_same_values_with_and_without_surrogate_gradients(kind):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 4, requires_grad=True)
    weights = torch.randn_like(kind()(x))
    assert torch.equal(kind()(x), kind(through=True)(x))
    (none,) = torch.autograd.grad((kind()(x) * weights).sum(), x)
    assert float(none.abs().max()) == 0
    (some,) = torch.autograd.grad((kind(through=True)(x) * weights).sum(), x)
    assert float(some.abs().max()) > 0
    assert bool(some.isfinite().all())


def test_argmax_pooling_says_where_the_largest_is():
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 1, 0] = 1  # third place of the first window of the first channel
    x[0, 1, 2, 3] = 1  # second place of the last window of the second channel
    pooled = ArgmaxPool()(x).view(2, 4, 2, 2)
    assert pooled[0, :, 0, 0].tolist() == [0, 0, 1, 0]
    assert pooled[1, :, 1, 1].tolist() == [0, 1, 0, 0]
    assert float(pooled.sum()) == 2 * 4  # one a window
    even = torch.full((1, 2, 4, 4), 0.3) + 1e-6 * torch.randn(1, 2, 4, 4)
    assert ArgmaxPool()(even).view(2, 4, 2, 2)[:, 0].tolist() == torch.ones(2, 2, 2).tolist()


def test_rounding_leaves_so_many_values_and_gets_finer_with_bits():
    torch.manual_seed(0)
    weight = torch.randn(40, 40)
    errors = []
    for bits in (2, 3, 4, 8):
        rounded = weight.clone()
        quantise([rounded, torch.zeros(3)], bits)
        assert len(rounded.unique()) <= 2**bits - 1
        errors.append(float((rounded - weight).norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * float(weight.norm())
    with pytest.raises(ConfigError):
        quantise([weight], 1)
