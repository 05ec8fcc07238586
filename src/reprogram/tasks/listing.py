"""From a list of picture files to a task. Every file is decoded once here, so that none fails in training.

list -> look (hash, size from the header) -> choose the sample -> decode into one tensor, or check and come back
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.core.task import Sample
from reprogram.media.decode import image_size
from reprogram.media.pool import in_threads
from reprogram.tasks.assemble import Built, Material, assemble, choose_sample, class_order, few
from reprogram.tasks.divide import SPLITS
from reprogram.tasks.examples import Examples
from reprogram.tasks.options import Options
from reprogram.tasks.pixels import InFiles, InMemory, Item, decode, key

R = TypeVar("R")

SMALL = 96 * 96
"""Pictures of fewer pixels on average are decoded by one thread."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Labelled picture files.

    Attributes:
        name: of the task.
        items: the files; either all or none of them say their split.
        classes: class names in order, where the data say; otherwise they are the labels, sorted.
        notes: warnings so far.
    """

    name: str
    items: Sequence[Item]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Looked:
    """An item's file: SHA-256 of its bytes, and (width, height) of the upright picture."""

    digest: bytes
    size: tuple[int, int]


def build(listing: Listing, options: Options) -> Built:
    """Read all files and divide them into splits.

    Raises:
        DataError: there are no pictures, one cannot be read (unless `on_error` is "skip"), or the splits do not fit.
    """
    reading = _Reading(options, 2 * len(listing.items), [])
    items, looked = reading.each(listing.items, _look)
    if not items:
        remedy = (
            "Name a folder with one sub-folder of PNG, JPEG or WEBP pictures a class, or with a table called train."
        )
        got = f"none but {few(reading.skipped)}" if reading.skipped else "none"
        raise DataError(say(listing.name, "must hold at least one readable picture", got, remedy))
    sample, notes = choose_sample([seen.size for seen in looked], options)
    digest_of = {id(item): seen.digest for item, seen in zip(items, looked, strict=True)}
    items, pixels = _decode(items, sample, replace(reading, threads=_threads(looked)))
    if reading.skipped:
        notes.append(f"{len(reading.skipped)} unreadable pictures are left out: {few(reading.skipped)}.")
    classes = listing.classes or class_order(item.label for item in items)
    number = {name: i for i, name in enumerate(classes)}
    material = Material(
        classes=classes,
        labels=torch.tensor([number[item.label] for item in items], dtype=torch.int64),
        names=[item.name for item in items],
        examples=pixels,
        groups=_groups(items),
        digests=[digest_of[id(item)] for item in items],
    )
    return assemble(listing.name, material, sample, options, (*listing.notes, *notes))


@dataclass(frozen=True, slots=True)
class _Reading:
    """Work on all files by threads, twice; `skipped` collects those that raised, where the options say so."""

    options: Options
    total: int
    skipped: list[str]
    threads: int | None = None

    def each(self, items: Sequence[Item], work: Callable[[Item], R], start: int = 0) -> tuple[list[Item], list[R]]:
        """The items for which `work` gave something, and what it gave; `start` is the progress made before."""
        kept, results = list[Item](), list[R]()
        workers = self.options.workers or self.threads
        outcomes = in_threads(partial(_attempt, work), items, workers)
        for done, (item, outcome) in enumerate(zip(items, outcomes, strict=True), start + 1):
            if not isinstance(outcome, DataError):
                kept.append(item)
                results.append(outcome)
            elif self.options.on_error == "skip":
                self.skipped.append(item.where)
            else:
                raise DataError(f'{outcome} (`on_error="skip"` leaves such files out.)') from outcome
            if self.options.progress:
                self.options.progress(done, self.total)
        return kept, results


def _attempt(work: Callable[[Item], R], item: Item) -> R | DataError:
    try:
        return work(item)
    except DataError as error:
        return error


def _look(item: Item) -> _Looked:
    data = item.bytes()
    return _Looked(hashlib.sha256(data).digest(), image_size(data, name=item.where))


def _threads(looked: Sequence[_Looked]) -> int | None:
    """One for small pictures, where threads wait for one another more than for decoders (2 took 1.6 times as long)."""
    pixels = sum(seen.size[0] * seen.size[1] for seen in looked)
    return 1 if pixels < SMALL * len(looked) else None


def _decode(items: Sequence[Item], sample: Sample, reading: _Reading) -> tuple[list[Item], Examples]:
    """All pictures in one tensor if they fit into the memory allowed, else their hashes and the way back to them."""
    start = reading.total - len(items)
    if len(items) * math.prod(sample.shape) > reading.options.memory:
        kept, keys = reading.each(items, lambda item: key(decode(item, sample)), start)
        return kept, InFiles(kept, keys, sample, reading.options.workers)
    data = torch.empty((len(items), *sample.shape), dtype=torch.uint8)
    row_of = {id(item): row for row, item in enumerate(items)}

    def fill(item: Item) -> int:
        data[row_of[id(item)]] = decode(item, sample)
        return row_of[id(item)]

    kept, rows = reading.each(items, fill, start)
    return kept, InMemory(data, None if len(rows) == len(data) else torch.tensor(rows, dtype=torch.int64))


def _groups(items: Sequence[Item]) -> dict[str, Tensor]:
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(item.split or "train", []).append(row)
    return {name: torch.tensor(rows[name], dtype=torch.int64) for name in SPLITS if name in rows}
