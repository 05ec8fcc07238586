import base64
import io
import os
import pickle
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reprogram.core.errors import ConfigError, DataError
from reprogram.core.task import Sample
from reprogram.media import Samples, as_samples, to_data_uri, to_picture

EIGHT = Sample(shape=(3, 8, 8))


@pytest.fixture
def folder(tmp_path, noise, encode):
    for i, name in enumerate(["b.png", "a b/ü.JPG", "a b/z.webp", ".hidden.png", "notes.txt"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(noise(9 + i, 7, seed=i), {".JPG": "JPEG", ".webp": "WEBP"}.get(path.suffix, "PNG")))
    return tmp_path


def test_one_of_everything(folder, noise, encode):
    picture = noise(20, 10)
    array = np.array(picture)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    expected = as_samples(picture, EIGHT)[0]
    assert expected.shape == (3, 8, 8) and expected.dtype == torch.uint8
    path = folder / "same.png"
    path.write_bytes(encode(picture))
    with open(path, "rb") as file:
        for given_ in (path, str(path), path.read_bytes(), file, array, tensor, picture):
            for inputs in (given_, [given_], (given_,)):
                if given_ is file:
                    file.seek(0)
                samples = as_samples(inputs, EIGHT)
                assert len(samples) == 1 and torch.equal(samples[0], expected)


def test_folders_are_searched(folder):
    samples = as_samples(folder, EIGHT)
    assert [os.path.relpath(n, folder) for n in samples.names] == ["a b/z.webp", "a b/ü.JPG", "b.png"]
    assert torch.stack(samples[:]).shape == (3, 3, 8, 8)
    assert samples.sizes() == [(11, 7), (10, 7), (9, 7)]
    assert len(as_samples([folder, folder / "b.png"], EIGHT)) == 4
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="must hold PNG, JPEG or WEBP pictures"):
        as_samples(folder / "empty")


def test_files_are_read_when_asked_for(tmp_path, noise, encode):
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for path in paths[:10]:
        path.write_bytes(encode(noise(8, 8)))
    samples = as_samples(paths, EIGHT)
    assert len(samples[:10]) == 10
    with pytest.raises(DataError, match=r"12\.png"):
        samples[12]
    with pytest.raises(DataError, match=r"10\.png"):
        samples[8:16]
    assert samples[-20].shape == (3, 8, 8)
    with pytest.raises(IndexError):
        samples[20]


def test_ten_thousand_files_are_not_held(tmp_path, noise, encode):
    path = tmp_path / "one.png"
    path.write_bytes(encode(noise(8, 8)))
    start = time.perf_counter()
    samples = as_samples([path] * 10_000, EIGHT)
    assert time.perf_counter() - start < 5 and len(samples) == 10_000
    assert len(pickle.dumps([samples[0]])) < 1e5


LAYOUTS = {
    (8, 8): 1,
    (3, 8, 8): 1,
    (8, 8, 3): 1,
    (1, 8, 8): 1,
    (8, 8, 1): 1,
    (5, 8, 8): 5,
    (5, 3, 8, 8): 5,
    (5, 8, 8, 3): 5,
    (5, 1, 8, 8): 5,
    (5, 8, 8, 1): 5,
}


@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint16", "float32", "float64"])
def test_layouts(shape, kind, dtype):
    values = np.random.default_rng(0).integers(0, 256, shape)
    values = (values / 255).astype(dtype) if dtype.startswith("float") else values.astype(dtype)
    given_ = torch.from_numpy(values) if kind == "torch" else values
    samples = as_samples(given_, EIGHT)
    assert len(samples) == LAYOUTS[shape]
    for tensor in samples:
        assert tensor.shape == (3, 8, 8)
        assert tensor.dtype == (torch.float32 if dtype.startswith("float") else torch.uint8)
    assert len(as_samples(given_)) == LAYOUTS[shape]


def test_a_sample_settles_what_three_axes_mean():
    assert len(as_samples(np.zeros((3, 8, 8), np.uint8), Sample(shape=(1, 8, 8)))) == 3
    assert len(as_samples(np.zeros((3, 8, 8), np.uint8), EIGHT)) == 1
    assert len(as_samples(np.zeros((8, 8, 3), np.uint8), Sample(shape=(1, 8, 8)))) == 1
    assert len(as_samples([np.zeros((3, 8, 8), np.uint8)], Sample(shape=(1, 8, 8)))) == 1


def test_layout_is_read_right():
    tall = np.zeros((2, 8, 8, 3), np.uint8)
    tall[:, 0, 0, 2] = 200
    assert as_samples(tall, EIGHT)[1][2, 0, 0] == 200
    big_endian = np.full((8, 8), 0.5, ">f8")
    assert as_samples(big_endian, EIGHT)[0].mean() == 0.5


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.full((8, 8), 1.5), "numbers from 0 to 1, got '1.5 to 1.5'.*divide by 255"),
        (torch.full((8, 8), -0.1), "numbers from 0 to 1"),
        (np.full((8, 8), np.nan), "numbers from 0 to 1"),
        (np.full((8, 8), np.inf), "numbers from 0 to 1"),
        (np.full((8, 8), 256), "numbers from 0 to 255"),
        (np.full((8, 8), -1), "numbers from 0 to 255"),
        (np.full((8, 8), 2**63, np.uint64), "numbers from 0 to 255"),
        (np.zeros((8, 8), bool), "uint8, integers"),
        (np.zeros((8, 8), complex), "uint8, integers"),
        (np.zeros((8, 8), object), "uint8, integers"),
        (np.array("picture"), "uint8, integers"),
        (np.zeros((0, 8, 8)), "at least one pixel"),
        (np.zeros((2, 5, 8, 8)), "must be pictures"),
        (np.zeros((2, 2, 5, 8, 8)), "must be pictures"),
        (np.zeros(8), "must be pictures"),
        ([np.zeros((5, 8, 8))], "must be a picture"),
        (7, "must be a path, a PIL image"),
        (None, "must be a path"),
        ({"a": 1}, "must be a path"),
        ([[1, 2], [3, 4]], r"`inputs\[0\]` must be a path"),
        ([object()], r"`inputs\[0\]` must be a path"),
        (io.StringIO("x"), "binary mode"),
    ],
)
def test_what_is_no_picture(bad, match):
    with pytest.raises(DataError, match=match):
        as_samples(bad, EIGHT)


def test_floats_and_files_together(tmp_path, noise, encode):
    """One batch has one meaning of white."""
    white = Image.new("RGB", (8, 8), "white")
    samples = as_samples([white, np.ones((8, 8))], EIGHT)
    assert torch.equal(samples[0], samples[1]) and samples[0].dtype == torch.float32
    assert as_samples([white], EIGHT)[0].max() == 255


def test_without_a_sample_pictures_keep_their_size(noise):
    assert as_samples(noise(5, 4))[0].shape == (3, 4, 5)
    samples = as_samples([noise(5, 4), noise(5, 4), noise(4, 5)])
    assert samples[1].shape == (3, 4, 5)
    with pytest.raises(DataError, match=r"`inputs\[2\]` must have the shape \(3, 4, 5\) of `inputs\[0\]`"):
        samples[:]


def test_nothing():
    assert len(as_samples([], EIGHT)) == 0 and as_samples([], EIGHT)[:] == []
    assert as_samples([]).names == []


def test_senseless_sample(noise):
    with pytest.raises(ConfigError):
        as_samples(noise(), Sample(shape=(4, 8, 8)))


def test_gradients_and_views_stay_behind():
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    assert not as_samples(x, EIGHT)[0].requires_grad
    assert isinstance(as_samples(x.bfloat16(), EIGHT), Samples)
    assert as_samples(x.bfloat16(), EIGHT)[0].dtype == torch.float32


@given(st.integers(4, 40), st.integers(4, 40), st.sampled_from([1, 3]))
def test_to_picture_and_back(height, width, channels):
    tensor = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8)
    image = to_picture(tensor)
    assert image.size == (width, height) and image.mode == ("L" if channels == 1 else "RGB")
    back = as_samples(np.array(image)[None] if channels == 3 else np.array(image), None)[0]
    assert torch.equal(back, tensor)
    assert torch.equal(as_samples(np.array(to_picture(tensor / 255))[None])[0][:1], tensor[:1])


def test_to_picture_shows_what_is_odd():
    odd = torch.tensor([[float("nan"), float("inf"), -3.0, 0.5]])
    assert np.array(to_picture(odd)).tolist() == [[0, 255, 0, 128]]
    assert np.array(to_picture(torch.tensor([[-5, 300]]))).tolist() == [[0, 255]]
    for shape in ((2, 4, 4), (4,), (1, 3, 4, 4)):
        with pytest.raises(DataError, match="`tensor` must be"):
            to_picture(torch.zeros(shape))


def test_data_uri(noise):
    def read(uri):
        kind, text = uri.split(",")
        assert kind == "data:image/png;base64"
        return Image.open(io.BytesIO(base64.b64decode(text)))

    tensor = torch.rand(3, 4, 6)
    assert np.array_equal(np.array(read(to_data_uri(tensor))), np.array(to_picture(tensor)))
    assert read(to_data_uri(tensor, 96)).size == (96, 64)
    assert len(read(to_data_uri(tensor, 96)).getcolors(10_000)) <= 24
    assert read(to_data_uri(noise(100, 50), 10)).size == (10, 5)
    assert read(to_data_uri(noise(300, 1), 10)).size == (10, 1)
    assert read(to_data_uri(noise(mode="P"))).size == (16, 12)
