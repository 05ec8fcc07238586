"""From labelled examples to a task's splits, with the checks that all kinds of data share."""

import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.core.task import Sample, TaskSpec
from reprogram.tasks.divide import complete
from reprogram.tasks.examples import Examples
from reprogram.tasks.options import Options
from reprogram.tasks.split import Split

LARGEST_KEPT = 512
"""Pictures that all have one size keep it up to this many pixels a side."""

LARGEST_CHOSEN = 224
"""The largest side that is chosen where nobody says a size."""


class Built(NamedTuple):
    """What a `Task` is made of."""

    spec: TaskSpec
    splits: dict[str, Split]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """Labelled examples before they are divided.

    Attributes:
        classes: T names; none for texts that are to be followed by texts.
        labels: class numbers, [N]; all 0 without classes.
        names: one an example, [N].
        examples: the N pictures or texts.
        groups: row numbers of the splits the data have; only "train" where they have none.
        digests: one an example, equal for files or texts with the same content; empty where nobody looked.
    """

    classes: tuple[str, ...]
    labels: Tensor
    names: Sequence[str]
    examples: Examples
    groups: Mapping[str, Tensor]
    digests: Sequence[bytes] = ()


def assemble(name: str, material: Material, sample: Sample, options: Options, notes: Sequence[str]) -> Built:
    """Divide the examples into train, val and test.

    Raises:
        DataError: fewer than two classes, nothing to train on, or classes that only validation or test have.
    """
    what, modality = ("texts", "text") if sample.columns else ("pictures", "image")
    if len(material.classes) < 2 and not (sample.columns and not material.classes):
        remedy = "Each class needs its own folder or label."
        raise DataError(say(name, f"must have {what} of at least two classes", list(material.classes), remedy))
    groups, more, divided = complete(material.groups, material.labels, options)
    labels, classes = material.labels, material.classes
    counts: list[int] = torch.bincount(labels[divided], minlength=len(classes)).tolist()[: len(classes)]
    lonely = [c for c, count in zip(classes, counts, strict=True) if count == 1]
    if lonely:
        more.append(f"Classes with a single example, which goes to train: {few(lonely)}.")
    more += _repeated(material, groups)
    splits = {split: _split(split, rows, material) for split, rows in groups.items()}
    absent = [c for c, count in zip(classes, splits["train"].counts().tolist(), strict=False) if not count]
    if absent:
        more.append(f"Classes without examples in train: {few(absent)}.")
    spec = TaskSpec(name=name, classes=classes, sample=sample, modality=modality)
    return Built(spec, splits, (*notes, *more))


def announce(built: Built) -> Built:
    """Send the warnings to the log `reprogram`, too."""
    for warning in built.warnings:
        logging.getLogger("reprogram").warning("%s: %s", built.spec.name, warning)
    return built


def choose_sample(sizes: Sequence[tuple[int, int]], options: Options) -> tuple[Sample, list[str]]:
    """The shape that all pictures are brought to, and warnings.

    Args:
        sizes: (width, height) of each picture.
        options: `size`, `fit`, `interpolation`.

    >>> choose_sample([(32, 32), (32, 32)], Options())[0].shape, choose_sample([(40, 30), (64, 64)], Options())[0].shape
    ((3, 32, 32), (3, 30, 30))
    """
    if options.shape is not None:
        return options.sample_of(options.shape), []
    distinct = set(sizes)
    if len(distinct) == 1 and max(sizes[0]) <= LARGEST_KEPT:
        width, height = sizes[0]
        return Sample(shape=(3, height, width), fit="exact", interpolation=options.interpolation), []
    side = min(LARGEST_CHOSEN, statistics.median_low(min(size) for size in sizes))
    notes = []
    if len(distinct) == 1:
        width, height = sizes[0]
        notes.append(
            f"All pictures are {width} x {height}; they are scaled to {side} x {side}. `size=` says otherwise."
        )
    return options.sample_of((side, side)), notes


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names in order: as numbers if all are, else as text.

    >>> class_order(["10", "9", "9"]), class_order(["b", "10", "9"])
    (('9', '10'), ('10', '9', 'b'))
    """
    distinct = sorted(set(names))
    if all(name.isdecimal() and name.isascii() and len(name) < 19 for name in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def few(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are.

    >>> few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def _split(name: str, rows: Tensor, material: Material) -> Split:
    numbers: list[int] = rows.tolist()
    names = [material.names[row] for row in numbers]
    return Split(name, material.examples.subset(rows), material.labels[rows], names, max(1, len(material.classes)))


def _repeated(material: Material, groups: Mapping[str, Tensor]) -> list[str]:
    """Warnings about the same content in two splits, or under two labels."""
    first: dict[bytes, tuple[str, int]] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    disputed: list[str] = []
    for split, rows in groups.items() if material.digests else ():
        numbers: list[int] = rows.tolist()
        for row in numbers:
            home, other = first.setdefault(material.digests[row], (split, row))
            pair = f"{material.names[row]} is {material.names[other]}"
            if home != split:
                shared.setdefault((split, home), []).append(pair)
            if material.labels[row] != material.labels[other]:
                disputed.append(pair)
    notes = [
        f"The same content is in {split} and in {home}, which flatters {split} scores: {few(pairs, 1)}."
        for (split, home), pairs in shared.items()
    ]
    if disputed:
        notes.append(f"The same content has two labels: {few(disputed, 1)}.")
    return notes
