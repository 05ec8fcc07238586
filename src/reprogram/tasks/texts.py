"""From rows of texts to a task, wherever they were read: each row is checked, and no text is changed."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.task import Sample
from reprogram.core.texts import Texts
from reprogram.tasks.assemble import Built, Material, assemble, class_order, few
from reprogram.tasks.divide import SPLITS
from reprogram.tasks.folder import plain
from reprogram.tasks.options import Options
from reprogram.tasks.strings import Strings, row_key

_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_MANY = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """One row, not yet checked.

    Attributes:
        name: how the task calls it, e.g. "train.tsv:7".
        where: how messages call it, so that it can be found.
        texts: a cell for each column.
        answer: class, or what is to be written.
        split: "train", "val", "test", or "" where the data do not say.
    """

    name: str
    where: str
    texts: tuple[object, ...]
    answer: object
    split: str


@dataclass(frozen=True, slots=True)
class TextListing:
    """Rows of texts.

    Attributes:
        name: of the task.
        columns: what programs call the columns.
        entries: the rows, read as they are asked for; either all or none of them say their split.
        generates: answers are texts to be written.
        classes: T names, to which numbers among the answers are indices, where the data say.
        notes: warnings so far.
    """

    name: str
    columns: tuple[str, ...]
    entries: Iterable[Entry]
    generates: bool
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """A row that can be used; its answer is a class name, an index of one, or the text to be written, or missing."""

    entry: Entry
    texts: tuple[str, ...]
    answer: str | int | None


def build_texts(listing: TextListing, options: Options) -> Built:
    """Check all rows and divide them into splits.

    Raises:
        DataError: there are no rows, one cannot be used (unless `on_error` is "skip"), they take more than
            `options.memory` bytes, or the splits do not fit.
        ConfigError: options that are about pictures.
    """
    if options.size is not None:
        raise ConfigError(say("size", "must be left out for texts", options.size))
    if options.classes is not None:
        listing = replace(listing, classes=_distinct(options.classes))
    reading = _Reading(listing, options)
    rows = reading.answered(list(reading.rows()))
    if not rows:
        got = f"none but {few(reading.skipped)}" if reading.skipped else "none"
        raise DataError(say(listing.name, "must hold at least one row of text with an answer", got))
    notes = [*listing.notes, *reading.notes()]
    classes, labels = _classes(rows, listing)
    columns = {name: tuple(row.texts[i] for row in rows) for i, name in enumerate(listing.columns)}
    targets = tuple(str(row.answer) for row in rows) if listing.generates else None
    if len(classes) > max(_MANY, len(rows) // 2):
        notes.append(f"{len(classes)} classes in {len(rows)} rows: `target=` makes it a task of generation.")
    material = Material(
        classes=classes,
        labels=labels,
        names=[row.entry.name for row in rows],
        examples=Strings(Texts(columns, targets)),
        groups=_groups(rows),
        digests=[row_key(row.texts) for row in rows],
    )
    if options.progress:
        options.progress(len(rows), len(rows))
    return assemble(listing.name, material, Sample(shape=(), fit="exact", columns=listing.columns), options, notes)


@final
class _Reading:
    """Checks rows one after another; `skipped` collects those that cannot be used, where the options say so."""

    def __init__(self, listing: TextListing, options: Options) -> None:
        self.listing = listing
        self.options = options
        self.skipped: list[str] = []
        self.unanswered: list[str] = []
        self.size = 0

    def rows(self) -> Iterator[_Row]:
        """All rows that can be used."""
        for entry in self.listing.entries:
            try:
                yield self._row(entry)
            except DataError as error:
                self._skip(entry, error)
            if self.size > self.options.memory:
                requirement = f"must fit into {self.options.memory} bytes"
                raise DataError(say(self.listing.name, requirement, f"more up to {entry.where}", "Give more `memory`."))

    def answered(self, rows: list[_Row]) -> list[_Row]:
        """The rows, less a validation or test split without any answers, as published test splits often are."""
        for split in ("val", "test"):
            missing = [row for row in rows if row.entry.split == split and row.answer is None]
            if missing and len(missing) == sum(row.entry.split == split for row in rows):
                self.unanswered.append(split)
            else:
                for row in missing:
                    self._skip(row.entry, DataError(say(row.entry.where, "must have an answer", None)))
        return [row for row in rows if row.answer is not None]

    def notes(self) -> list[str]:
        """What was done about odd rows."""
        found = [f"The {split} split has no answers and is left out." for split in self.unanswered]
        if self.skipped:
            found.append(f"{len(self.skipped)} unusable rows are left out: {few(self.skipped)}.")
        return found

    def _skip(self, entry: Entry, error: DataError) -> None:
        if self.options.on_error != "skip":
            raise DataError(f'{error} (`on_error="skip"` leaves such rows out.)') from error
        self.skipped.append(entry.where)

    def _row(self, entry: Entry) -> _Row:
        texts = tuple(self._text(entry, c, cell) for c, cell in zip(self.listing.columns, entry.texts, strict=True))
        needed = texts[:1] if self.listing.generates else texts
        blank = [c for c, text in zip(self.listing.columns, needed, strict=False) if not text.strip()]
        if blank:
            raise DataError(say(entry.where, f"must have a text in the column `{blank[0]}`", needed))
        answer = self._answer(entry)
        self.size += sum(map(sys.getsizeof, (*texts, answer)))
        return _Row(entry, texts, answer)

    def _answer(self, entry: Entry) -> str | int | None:
        if entry.split in ("val", "test") and _is_missing(entry.answer, self.listing.generates):
            return None
        if self.listing.generates:
            return self._text(entry, "target", _target(entry))
        return _label(entry, self.listing.classes is not None)

    def _text(self, entry: Entry, column: str, cell: object) -> str:
        if not isinstance(cell, str):
            raise DataError(say(entry.where, f"must have a text in the column `{column}`", cell))
        if found := _UNUSABLE.search(cell):
            got = f"U+{ord(found.group()):04X} at {found.start()}"
            raise DataError(say(entry.where, f"must have characters that can be written in `{column}`", got))
        return cell


def _target(entry: Entry) -> str:
    """What is to be written: a text that is not blank, or a number."""
    answer = entry.answer
    if isinstance(answer, int) and not isinstance(answer, bool):
        return str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise DataError(say(entry.where, "must have a text that is to be written", answer))
    return answer


def _label(entry: Entry, named: bool) -> str | int:
    """The class's name; or its number, where the classes have names already."""
    answer = entry.answer
    if isinstance(answer, bool):
        return str(answer).lower()
    if isinstance(answer, int) and (not named or answer >= 0):
        return answer if named else str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise DataError(say(entry.where, "must have a class", answer))
    return plain(answer.strip())


def _is_missing(answer: object, generates: bool) -> bool:
    if isinstance(answer, str):
        return not answer.strip()
    return answer is None or (answer == -1 and not generates)


def _classes(rows: Sequence[_Row], listing: TextListing) -> tuple[tuple[str, ...], Tensor]:
    """T names, and the rows' class numbers [N]."""
    if listing.generates:
        return (), torch.zeros(len(rows), dtype=torch.int64)
    names = listing.classes or class_order(str(row.answer) for row in rows)
    number: dict[str | int | None, int] = {name: i for i, name in enumerate(names)}
    if listing.classes is not None:  # numbers are indices, unless the names themselves are such numbers
        number = {key: i for i in range(len(names)) for key in (i, str(i))} | number
    unknown = Counter(row.answer for row in rows if row.answer not in number)
    if unknown:
        requirement = f"must be among the {len(names)} classes {list(names[:5])}"
        raise DataError(say(f"labels of {listing.name}", requirement, list(unknown)[:5], "Add them to `classes`."))
    return names, torch.tensor([number[row.answer] for row in rows], dtype=torch.int64)


def _distinct(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(plain(str(name)) for name in classes)
    if isinstance(classes, str) or len(set(names)) != len(names):
        raise ConfigError(say("classes", "must be names that are all different", classes))
    return names


def _groups(rows: Sequence[_Row]) -> dict[str, Tensor]:
    found: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(row.entry.split or "train", []).append(number)
    return {name: torch.tensor(found[name], dtype=torch.int64) for name in SPLITS if name in found}
