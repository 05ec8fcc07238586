"""Text tasks from what is in memory already: lists and columns of texts, and data sets with columns of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reprogram.core.errors import DataError, say
from reprogram.tasks.assemble import Built
from reprogram.tasks.options import Options
from reprogram.tasks.texts import Entry, TextListing, build_texts


class Texted(NamedTuple):
    """Texts of one split, and their labels or targets, as `Task.from_texts` takes them."""

    texts: object
    answers: object


class _Columns(NamedTuple):
    """Column names, and the columns, each of the same number of cells."""

    names: tuple[str, ...]
    cells: tuple[Sequence[object], ...]


def build_memory(
    name: str, given: Mapping[str, Texted], generates: bool, options: Options, notes: Sequence[str] = ()
) -> Built:
    """A task from texts of one split or several.

    Args:
        name: of the task.
        given: "train" and, where there are any, "val" and "test".
        generates: answers are texts to be written, not classes.
        options: `classes`, `seed`, `val`, `test`, `on_error`, `memory`.
        notes: warnings so far.

    Raises:
        DataError: texts and answers do not fit together, or a row cannot be used.
    """
    columns = {split: _columns(part.texts, f"texts of {split}") for split, part in given.items()}
    names = columns["train"].names
    for split, part in columns.items():
        if part.names != names:
            raise DataError(say(f"texts of {split}", f"must have the columns {list(names)}", list(part.names)))
    answers = {
        split: _sequence(part.answers, f"{'targets' if generates else 'labels'} of {split}", len(columns[split][1][0]))
        for split, part in given.items()
    }
    rows = [
        (split if len(given) > 1 else "", f"{split}/{row}", f"{name}[{split}][{row}]", cells, answer)
        for split, part in columns.items()
        for row, (cells, answer) in enumerate(zip(zip(*part.cells, strict=True), answers[split], strict=True))
    ]
    entries = [Entry(name=n, where=where, texts=cells, answer=a, split=split) for split, n, where, cells, a in rows]
    return build_texts(TextListing(name, names, entries, generates, notes=tuple(notes)), options)


def _columns(texts: object, name: str) -> _Columns:
    """Columns out of strings, tuples of strings, mappings of columns to strings, or a mapping of columns."""
    if isinstance(texts, Mapping):
        first = len(_sequence(next(iter(texts.values()), None), name))
        names = tuple(str(key) for key in texts)
        return _Columns(names, tuple(_sequence(column, f"{name}, {key}", first) for key, column in texts.items()))
    rows = _sequence(texts, name)
    if not rows:
        raise DataError(say(name, "must hold at least one text", "none"))
    if isinstance(rows[0], Mapping):
        return _from_mappings(rows, name)
    if not isinstance(rows[0], (tuple, list)):
        return _Columns(("text",), (rows,))
    width = len(rows[0])
    strange = next((i for i, row in enumerate(rows) if not isinstance(row, (tuple, list)) or len(row) != width), None)
    if strange is not None or not width:
        raise DataError(say(f"{name}[{strange or 0}]", f"must have {width or 'some'} texts", rows[strange or 0]))
    return _Columns(names_of(width), tuple(zip(*rows, strict=True)))


def _from_mappings(rows: Sequence[Any], name: str) -> _Columns:
    names = tuple(rows[0])
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or set(row) != set(names):
            got = list(row) if isinstance(row, Mapping) else type(row).__name__
            raise DataError(say(f"{name}[{i}]", f"must have the columns {list(names)} as the first row has", got))
    if not names:
        raise DataError(say(f"{name}[0]", "must have some texts", {}))
    return _Columns(tuple(map(str, names)), tuple([row[key] for row in rows] for key in names))


def names_of(width: int) -> tuple[str, ...]:
    """What columns without names are called.

    >>> names_of(1), names_of(2), names_of(3)
    (('text',), ('text', 'text_pair'), ('text_1', 'text_2', 'text_3'))
    """
    return ("text", "text_pair")[:width] if width < 3 else tuple(f"text_{n + 1}" for n in range(width))


def _sequence(values: object, name: str, count: int | None = None) -> Sequence[object]:
    """A list of plain values, out of a list, an array, a tensor or a column of a data set."""
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise DataError(say(name, "must be a list", type(values).__name__))
    plain = getattr(values, "tolist", None)  # of arrays and tensors
    found = plain() if plain is not None else list(_iterate(values))
    if not isinstance(found, list) or (count is not None and len(found) != count):
        got = len(found) if isinstance(found, list) else "a single value"
        raise DataError(say(name, "must be a list" if count is None else f"must have {count} rows", got))
    return [_plain(cell) for cell in found]


def _iterate(values: Any) -> Iterator[object]:
    return iter(values)


def _plain(cell: Any) -> object:
    """The number inside one of an array or tensor; all else as it is."""
    return cell.item() if getattr(cell, "shape", None) == () and hasattr(cell, "item") else cell
