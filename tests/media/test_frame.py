import numpy as np
import pytest
import torch
from PIL import Image

from reprogram.core.errors import ConfigError, DataError
from reprogram.core.task import Sample
from reprogram.media.frame import fit_tensor, to_sample


def sample(channels=3, height=8, width=8, **more):
    return Sample(shape=(channels, height, width), **more)


def test_a_picture_of_the_right_size_is_untouched(noise):
    image = noise(8, 8)
    for fit in ("crop", "squash", "exact"):
        tensor = to_sample(image, sample(fit=fit))
        assert tensor.dtype == torch.uint8 and tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), np.asarray(image))


def test_crop_takes_the_middle():
    bars = np.zeros((10, 30, 3), np.uint8)
    bars[:, :10], bars[:, 10:20], bars[:, 20:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    image = Image.fromarray(bars)
    for fit in ("crop", "exact"):
        cut = to_sample(image, sample(height=10, width=10, fit=fit, interpolation="nearest"))
        assert (cut == torch.tensor([0, 255, 0]).view(3, 1, 1)).all()
    squashed = to_sample(image, sample(height=10, width=10, fit="squash", interpolation="nearest"))
    assert squashed[0, 0].tolist() == [255] * 3 + [0] * 7


def test_crop_is_scaling_then_cutting(noise):
    """The one step agrees with the two steps of everybody else's transforms."""
    image = noise(90, 60)
    middle = image.resize((30, 20), Image.Resampling.BICUBIC).crop((5, 0, 25, 20))
    ours = to_sample(image, sample(height=20, width=20)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours.astype(int), np.asarray(middle).astype(int), atol=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 3), (1000, 999)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_any_size_goes(size, fit, interpolation, noise):
    target = sample(height=13, width=5, fit=fit, interpolation=interpolation)
    assert to_sample(noise(*size), target).shape == (3, 13, 5)


def test_channels(noise):
    grey = noise(8, 8, "L")
    assert to_sample(grey, sample(1)).shape == (1, 8, 8)
    assert torch.equal(to_sample(grey, sample(3))[2], to_sample(grey, sample(1))[0])
    assert to_sample(noise(8, 8, "RGBA"), sample(1)).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"shape": (2, 8, 8)}, "sample.shape"),
        ({"shape": (3, 8)}, "sample.shape"),
        ({"shape": (3, 0, 8)}, "sample.shape"),
        ({"shape": (3, 8, 8), "fit": "stretch"}, "`fit` must be one of"),
        ({"shape": (3, 8, 8), "interpolation": "lanczos"}, "`interpolation` must be one of"),
    ],
)
def test_senseless_samples(bad, match, noise):
    with pytest.raises(ConfigError, match=match):
        to_sample(noise(), Sample(**bad))
    with pytest.raises(ConfigError, match=match):
        fit_tensor(torch.zeros(3, 4, 4), Sample(**bad))


def test_modes_without_colours():
    with pytest.raises(DataError):
        to_sample(Image.new("F", (3, 3)), sample())


def test_tensors_are_framed_like_files(noise):
    image = noise(50, 30)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    whole, floats = fit_tensor(tensor, sample()), fit_tensor(tensor / 255, sample())
    assert torch.equal(whole, to_sample(image, sample()))
    assert floats.dtype == torch.float32 and floats.min() >= 0 and floats.max() <= 1
    torch.testing.assert_close(floats * 255, whole.float(), atol=1.0, rtol=0)
    one = fit_tensor(tensor / 255, sample(1))
    torch.testing.assert_close(one * 255, to_sample(image, sample(1)).float(), atol=1.5, rtol=0)
    assert fit_tensor(torch.rand(1, 8, 8), sample()).shape == (3, 8, 8)
