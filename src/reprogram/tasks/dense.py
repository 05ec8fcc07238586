"""Dense tasks: every pixel of a picture has a class. From arrays, and from folders of pictures and masks.

root/images/1.jpg, root/masks/1.png                          splits are made
root/train/images/1.jpg, root/train/masks/1.png, root/test/… one folder a split; missing splits are made
root/classes.txt                                             a class name a line, if there are names

A mask is a PNG with one number a pixel (grey of 8 bits, or a palette's indices): class numbers from 0, 255 for pixels
that do not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.task import IGNORED, Sample, TaskSpec
from reprogram.media.arrays import to_pictures
from reprogram.media.decode import printable, read_image, read_indices
from reprogram.media.files import is_picture
from reprogram.media.frame import fit_tensor, to_sample
from reprogram.tasks.assemble import Built, choose_sample, few
from reprogram.tasks.columns import SPLIT_NAMES
from reprogram.tasks.divide import complete
from reprogram.tasks.folder import name_of
from reprogram.tasks.options import Options
from reprogram.tasks.pixels import InMemory
from reprogram.tasks.split import Split

IMAGES, MASKS, NAMES = "images", "masks", "classes.txt"
NO_CLASS = 255
"""In a mask: a pixel that does not count."""

_BYTES = 8
"""A class number in memory."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """Pictures with label maps, before they are divided.

    Attributes:
        pictures: [N, 3, height, width].
        maps: [N, height, width], class numbers or -100.
        names: one a picture.
        groups: row numbers of the splits the data have.
    """

    pictures: Tensor
    maps: Tensor
    names: Sequence[str]
    groups: Mapping[str, Tensor]


def are_maps(y: object) -> bool:
    """Whether labels are label maps: an array or tensor with three axes."""
    return isinstance(y, (np.ndarray, Tensor)) and y.ndim == 3


def build_maps(
    name: str, pairs: Mapping[str, tuple[object, object]], classes: Sequence[str] | None, options: Options
) -> Built:  # fmt: skip
    """A dense task from pictures [N, C, H, W] and label maps [N, H, W] of one split or several.

    Raises:
        DataError: they do not fit together.
    """
    pictures, maps = list[Tensor](), list[Tensor]()
    for split, (x, y) in pairs.items():
        if not isinstance(x, (np.ndarray, Tensor)) or not are_maps(y):
            raise DataError(say(f"x, y of {split}", "must be arrays of pictures and label maps", type(y).__name__))
        shown = to_pictures(x[:, None] if x.ndim == 3 else x, f"x of {split}").expand(-1, 3, -1, -1)
        pictures.append(shown)
        maps.append(_numbers(y, f"y of {split}"))
        if len(shown) != len(maps[-1]) or shown.shape[2:] != maps[-1].shape[1:]:
            need = f"must have a map for each picture, of its size {list(shown.shape)}"
            raise DataError(say(f"y of {split}", need, list(maps[-1].shape)))
    height, width = (int(n) for n in pictures[0].shape[2:])
    shape = options.shape or (height, width)
    sample = Sample(shape=(3, *shape), fit="exact" if shape == (height, width) else options.fit,
                    interpolation=options.interpolation)  # fmt: skip
    ends = np.cumsum([len(x) for x in pictures]).tolist()
    groups = {s: torch.arange(e - len(x), e) for s, e, x in zip(pairs, ends, pictures, strict=True)}
    rows = [f"{split}/{i}" for split, x in zip(pairs, pictures, strict=True) for i in range(len(x))]
    if len({x.dtype for x in pictures}) > 1:
        pictures = [x if x.is_floating_point() else x.float() / 255 for x in pictures]
    whole = Mapped(_scaled(torch.cat(pictures), sample), _scaled_maps(torch.cat(maps), sample), rows, groups)
    return assemble_maps(name, whole, sample, options, classes)


def assemble_maps(
    name: str, mapped: Mapped, sample: Sample, options: Options, classes: Sequence[str] | None,
    notes: Sequence[str] = (),
) -> Built:  # fmt: skip
    """Divide pictures and maps into train, val and test.

    Raises:
        DataError: a class number without a name, nothing to train on, or classes that only validation or test have.
    """
    most = int(mapped.maps.max()) if mapped.maps.numel() else 0
    known = tuple(classes) if classes is not None else tuple(str(i) for i in range(max(2, most + 1)))
    if most >= len(known):
        raise DataError(say(name, f"must have class numbers below {len(known)}, the number of classes", most))
    groups, more, _ = complete(mapped.groups, torch.zeros(len(mapped.maps), dtype=torch.int64), options)
    store = InMemory(mapped.pictures.contiguous())
    splits = {
        split: Split(split, store.subset(rows), mapped.maps[rows], _those(mapped.names, rows), len(known))
        for split, rows in groups.items()
    }
    absent = [c for c, n in zip(known, splits["train"].counts().tolist(), strict=True) if not n]
    if absent:
        more.append(f"Classes without pixels in train: {few(absent)}.")
    spec = TaskSpec(name=name, classes=known, sample=sample, dense=True)
    return Built(spec, splits, (*notes, *more))


def _those(names: Sequence[str], rows: Tensor) -> list[str]:
    numbers: list[int] = rows.tolist()
    return [names[i] for i in numbers]


# -- folders -----------------------------------------------------------------------------------------------------------


def has_masks(root: Path) -> bool:
    """Whether a folder has the form above."""
    return any(_is_pair(folder) for folder in (root, *_split_folders(root).values()))


def build_masks(root: Path, options: Options) -> Built:
    """A dense task from a folder of pictures and masks.

    Raises:
        DataError: a picture has no mask or the other way round, sizes differ, a mask is no PNG with one number a pixel,
            or all of it does not fit into the memory allowed.
        ConfigError: columns are named.
    """
    for option in ("image", "label", "split", "text", "target"):
        if getattr(options, option) is not None:
            raise ConfigError(say(option, "must be left out for folders of masks", getattr(options, option)))
    places = {"train": root} if _is_pair(root) else {s: f for s, f in _split_folders(root).items() if _is_pair(f)}
    found = {split: _pairs(folder) for split, folder in places.items()}
    files = [pair for pairs in found.values() for pair in pairs]
    if not files:
        raise DataError(say(printable(root), "must hold pictures in images/ and their masks in masks/", "none"))
    opened = [(read_image(image), read_indices(mask)) for image, mask in files]
    for (image, mask), (picture, indices) in zip(files, opened, strict=True):
        if picture.size != indices.size:
            got = f"{indices.size}, {printable(image)} is {picture.size}"
            raise DataError(say(printable(mask), "must have the size of its picture", got))
    sample, notes = choose_sample([picture.size for picture, _ in opened], options)
    _check_memory(len(files), sample, options)
    plane = _plane(sample)
    pictures = torch.stack([to_sample(picture, sample) for picture, _ in opened])
    masks = torch.stack([to_sample(indices, plane)[0] for _, indices in opened]).to(torch.int64)
    maps = masks.masked_fill(masks == NO_CLASS, IGNORED)
    ends = np.cumsum([len(pairs) for pairs in found.values()]).tolist()
    groups = {s: torch.arange(e - len(p), e) for (s, p), e in zip(found.items(), ends, strict=True)}
    names = [printable(image.relative_to(root)) for image, _ in files]
    mapped = Mapped(pictures, maps, names, groups)
    return assemble_maps(name_of(root), mapped, sample, options, _names(root, options), notes)


def _is_pair(folder: Path) -> bool:
    return (folder / IMAGES).is_dir() and (folder / MASKS).is_dir()


def _split_folders(root: Path) -> dict[str, Path]:
    try:
        inside = sorted(p for p in root.iterdir() if p.is_dir() and p.name.lower() in SPLIT_NAMES)
    except OSError:
        return {}
    return {SPLIT_NAMES[p.name.lower()]: p for p in inside}


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(picture, mask) by their names without endings."""
    sides = [
        {p.stem: p for p in sorted((folder / side).iterdir()) if p.is_file() and is_picture(p.name)}
        for side in (IMAGES, MASKS)
    ]
    lonely = sorted(sides[0].keys() ^ sides[1].keys())
    if lonely:
        need = "must have one mask for each picture, of the same name"
        raise DataError(say(printable(folder), need, f"no pair for {few(lonely)}"))
    return [(sides[0][stem], sides[1][stem]) for stem in sides[0]]


def _names(root: Path, options: Options) -> Sequence[str] | None:
    if options.classes is not None:
        return options.classes
    path = root / NAMES
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(say(printable(path), "must be a text file with a class name a line", str(error))) from error
    return [line.strip() for line in lines if line.strip()]


def _check_memory(count: int, sample: Sample, options: Options) -> None:
    needed = count * sample.height * sample.width * (3 + _BYTES)
    if needed > options.memory:
        remedy = "Say a smaller `size`, or allow more `memory`."
        raise DataError(say("memory", f"must be {needed} bytes or more for {count} maps", options.memory, remedy))


# -- shapes ------------------------------------------------------------------------------------------------------------


def _numbers(y: object, name: str) -> Tensor:
    maps = torch.as_tensor(y).detach().cpu()
    if maps.is_floating_point() or maps.is_complex() or maps.dtype == torch.bool:
        raise DataError(say(name, "must be whole numbers", str(maps.dtype)))
    maps = maps.to(torch.int64)
    if bool(((maps < 0) & (maps != IGNORED)).any()) or bool((maps >= NO_CLASS).any()):
        need = f"must be class numbers from 0 to {NO_CLASS - 1}, or {IGNORED} for pixels that do not count"
        raise DataError(say(name, need, f"{int(maps.min())}..{int(maps.max())}"))
    return maps


def _scaled(pictures: Tensor, sample: Sample) -> Tensor:
    if tuple(pictures.shape[1:]) == sample.shape:
        return pictures
    return torch.stack([fit_tensor(picture, sample) for picture in pictures])


def _scaled_maps(maps: Tensor, sample: Sample) -> Tensor:
    if tuple(maps.shape[1:]) == sample.shape[1:]:
        return maps
    small = maps.masked_fill(maps == IGNORED, NO_CLASS).to(torch.uint8)
    fitted = torch.stack([fit_tensor(one[None], _plane(sample))[0] for one in small]).to(torch.int64)
    return fitted.masked_fill(fitted == NO_CLASS, IGNORED)


def _plane(sample: Sample) -> Sample:
    """One channel of the sample's size, whose numbers are never mixed."""
    return Sample(shape=(1, *sample.shape[1:]), fit=sample.fit, interpolation="nearest")
