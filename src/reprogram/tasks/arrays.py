"""Tasks from what is in memory already: arrays, tensors and lists of pictures with their labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.core.task import Sample
from reprogram.media.arrays import to_pictures
from reprogram.media.frame import fit_tensor
from reprogram.media.images import Samples, as_samples
from reprogram.tasks.assemble import Built, Material, assemble, choose_sample, class_order
from reprogram.tasks.examples import check_range
from reprogram.tasks.options import Options
from reprogram.tasks.pixels import InMemory

Pair: TypeAlias = tuple[object, object]
"""Pictures and their labels."""

_LABELS = "must be a row of class numbers or class names"


def build_arrays(
    name: str, pairs: Mapping[str, Pair], classes: Sequence[str] | None, options: Options, notes: Sequence[str] = ()
) -> Built:
    """A task from pictures and labels of one split or several.

    Args:
        name: of the task.
        pairs: pictures and labels of "train" and, where there are any, "val" and "test".
        classes: T names; None takes them from the labels.
        options: size and splits.
        notes: warnings so far.

    Raises:
        DataError: pictures and labels do not fit together, or are none.
    """
    pictures = {split: _pictures(x, f"x of {split}") for split, (x, _) in pairs.items()}
    names, labels = to_labels({split: (y, len(pictures[split])) for split, (_, y) in pairs.items()}, classes)
    sample, more = _choose(list(pictures.values()), options)
    tensors = {split: _at_size(one, sample) for split, one in pictures.items()}
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        tensors = {split: _as_floats(tensor) for split, tensor in tensors.items()}
    material = Material(
        classes=names,
        labels=torch.cat(list(labels.values())),
        names=[f"{split}/{i}" for split, tensor in tensors.items() for i in range(len(tensor))],
        examples=InMemory(torch.cat(list(tensors.values()))),
        groups=_groups({split: len(tensor) for split, tensor in tensors.items()}),
    )
    return assemble(name, material, sample, options, (*notes, *more))


def to_labels(
    given: Mapping[str, tuple[object, int]], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Class names, and each split's labels as class numbers.

    Args:
        given: each split's labels, numbers or names, and how many there must be.
        classes: T names, to which numbers are indices; None takes the distinct labels in order.

    Raises:
        DataError: another number of labels, neither numbers nor names, or labels that are not among the classes.

    >>> to_labels({"train": (["b", "a", "b"], 3)}, None)
    (('a', 'b'), {'train': tensor([1, 0, 1])})
    """
    read = {split: _read_labels(y, f"y of {split}", count) for split, (y, count) in given.items()}
    numeric = {isinstance(values, Tensor) for values in read.values()}
    if len(numeric) > 1:
        raise DataError(say("y", "must be numbers in all splits or names in all splits", sorted(read)))
    if classes is not None and True in numeric:
        numbers = {split: torch.as_tensor(values) for split, values in read.items()}
        for split, values in numbers.items():
            check_range(values, len(classes), f"y of {split}")
        return tuple(classes), numbers
    texts = {split: [str(v) for v in _plain(values)] for split, values in read.items()}
    names = tuple(classes) if classes is not None else class_order(t for values in texts.values() for t in values)
    index = {label: i for i, label in enumerate(names)}
    unknown = sorted({text for values in texts.values() for text in values} - set(index))
    if unknown:
        raise DataError(say("y", f"must be among the {len(names)} classes", unknown[:5], "Add them to `classes`."))
    return names, {split: torch.tensor([index[t] for t in v], dtype=torch.int64) for split, v in texts.items()}


def _read_labels(values: object, name: str, count: int) -> Tensor | list[str]:
    """Labels as whole numbers [N], or as a list of names."""
    if not isinstance(values, Tensor):
        if not isinstance(values, (np.ndarray, Iterable)) or isinstance(values, (str, bytes)):
            raise DataError(say(name, _LABELS, type(values).__name__))
        array = values if isinstance(values, np.ndarray) else _as_array(list(values), name)
        if array.dtype.kind in "OUST":
            return _names(array, name, count)
        if array.dtype.kind not in "biuf":
            raise DataError(say(name, _LABELS, f"dtype {array.dtype}"))
        values = torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else np.int64))
    numbers = values.detach().cpu()
    if tuple(numbers.shape) != (count,):
        remedy = "Take the argmax of one-hot rows." if numbers.ndim == 2 else ""
        raise DataError(
            say(name, f"must have one label for each of the {count} pictures", tuple(numbers.shape), remedy)
        )
    whole = numbers.to(torch.int64)
    if numbers.is_floating_point() and not bool((whole == numbers).all()):
        raise DataError(say(name, "must be whole numbers", "fractions or not-a-number"))
    return whole


def _names(array: np.ndarray, name: str, count: int) -> list[str]:
    found = [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    strange = [v for v in found if not isinstance(v, str) or not v]
    if strange:
        raise DataError(say(name, _LABELS, strange[0]))
    if array.shape != (count,):
        raise DataError(say(name, f"must have one label for each of the {count} pictures", array.shape))
    return found


def _as_array(values: list[object], name: str) -> np.ndarray:
    plain = [v.item() if isinstance(v, Tensor) and v.ndim == 0 else v for v in values]
    kinds = {isinstance(v, str) for v in plain}
    if len(kinds) > 1:
        raise DataError(say(name, _LABELS, "both in one list"))
    try:
        return np.array(plain, dtype=object if kinds == {True} else None)
    except ValueError as error:
        raise DataError(say(name, _LABELS, "rows of different length")) from error


def _plain(values: Tensor | list[str]) -> Iterable[object]:
    return values.tolist() if isinstance(values, Tensor) else values


def _pictures(x: object, name: str) -> Tensor | Samples:
    """An array as pictures [N, 1 or 3, height, width], uint8 or float32; or a list of pictures of any size."""
    if isinstance(x, (np.ndarray, Tensor)):
        if x.ndim not in (3, 4):
            requirement = "must be pictures [N, C, H, W], [N, H, W, C] or [N, H, W] with 1 or 3 channels"
            raise DataError(say(name, requirement, tuple(x.shape)))
        return to_pictures(x[:, None] if x.ndim == 3 else x, name)
    samples = as_samples(x)
    if not len(samples):
        raise DataError(say(name, "must hold at least one picture", "an empty list"))
    return samples


def _choose(pictures: Sequence[Tensor | Samples], options: Options) -> tuple[Sample, list[str]]:
    """Arrays that agree keep their size whatever it is; otherwise as for files."""
    shapes = {tuple(one.shape[2:]) if isinstance(one, Tensor) else None for one in pictures}
    only = next(iter(shapes))
    if options.shape is None and len(shapes) == 1 and only is not None:
        return Sample(shape=(3, *only), fit="exact", interpolation=options.interpolation), []
    return choose_sample([size for one in pictures for size in _sizes(one)], options)


def _sizes(pictures: Tensor | Samples) -> list[tuple[int, int]]:
    if isinstance(pictures, Samples):
        return pictures.sizes()
    return [(pictures.shape[-1], pictures.shape[-2])] * len(pictures)


def _at_size(pictures: Tensor | Samples, sample: Sample) -> Tensor:
    if isinstance(pictures, Samples):
        return torch.stack(pictures.at(sample)[:])
    if tuple(pictures.shape[2:]) == sample.shape[1:]:
        return pictures.expand(-1, 3, -1, -1)
    return torch.stack([fit_tensor(picture, sample) for picture in pictures])


def _as_floats(pictures: Tensor) -> Tensor:
    return pictures if pictures.is_floating_point() else pictures.float() / 255


def _groups(lengths: Mapping[str, int]) -> dict[str, Tensor]:
    ends = np.cumsum(list(lengths.values())).tolist()
    return {split: torch.arange(end - lengths[split], end) for split, end in zip(lengths, ends, strict=True)}
