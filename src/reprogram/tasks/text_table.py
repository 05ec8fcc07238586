r"""Text tasks from tables: CSV, TSV, JSON lines or Parquet, as one file or as a folder with a table a split.

    text,label                     premise,hypothesis,label         prompt,completion
    what a film,positive           it rains,it is wet,yes           2 + 2 =,4

    sst2/train.tsv  sst2/dev.tsv  sst2/test.tsv                     splits that are missing are made

Columns are found by their names (`tasks.columns`). A CSV or TSV table whose first line has none of these names has no
line of names if it has two columns, of which that with fewer different cells is the class (the second, if equal), and
if the first line's class is also that of other rows. Columns of such tables can be given by number: `text="2",
label="1"`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.media.decode import printable
from reprogram.media.files import is_hidden
from reprogram.tasks.columns import (
    IMAGE_COLUMNS,
    KNOWN,
    SPLIT_NAMES,
    TextColumns,
    choose_columns,
    find_texts,
)
from reprogram.tasks.folder import describe, name_of
from reprogram.tasks.options import Options
from reprogram.tasks.rows import SUFFIXES, Row, Table, fault, open_table
from reprogram.tasks.table import row_split
from reprogram.tasks.text_memory import names_of
from reprogram.tasks.texts import Entry, TextListing

_SHARD = re.compile(r"(?P<split>[a-z]+)(-\d+-of-\d+)?")


@dataclass(frozen=True, slots=True)
class _Plan:
    """How all tables of a task are read: the file's columns, what programs call them, and where a header is."""

    columns: TextColumns
    names: tuple[str, ...]
    known: Callable[[Sequence[str]], bool]


def means_text(path: Path, options: Options) -> bool:
    """Whether a table is one of texts: the options say so, or it names no pictures but texts.

    Raises:
        DataError: a fault at its beginning.
    """
    if options.means_text is not None:
        return options.means_text
    table = open_table(path, _known(options))
    if not table.named:
        return len(table.columns) == 2
    lower = {name.lower() for name in table.columns}
    return not lower & set(IMAGE_COLUMNS) and bool(find_texts(table.columns))


def list_text_table(path: Path, options: Options) -> TextListing:
    """The rows of one table.

    Raises (now, or from the rows):
        DataError: a fault of the table, with its line; columns that cannot be told.
        MissingExtraError: Parquet without pyarrow.
    """
    plan = _plan(path, options)
    return TextListing(name_of(path), plan.names, _entries(path, plan, ""), plan.columns.generates)


def split_tables(root: Path) -> dict[str, list[Path]]:
    """Tables in a folder whose names say their split, such as train.tsv or train-00000-of-00002.parquet.

    Raises:
        DataError: the folder cannot be read, or several tables mean one split and are no parts of one.
    """
    found: dict[str, list[Path]] = {}
    try:
        files = sorted(p for p in root.iterdir() if p.suffix.lower() in SUFFIXES and not is_hidden(p.name))
    except OSError as error:
        raise DataError(say(printable(root), "must be a readable folder", error.strerror)) from error
    for path in files:
        match = _SHARD.fullmatch(path.stem.lower())
        if match and match["split"] in SPLIT_NAMES and path.is_file():
            found.setdefault(SPLIT_NAMES[match["split"]], []).append(path)
    for paths in found.values():
        if len(paths) > 1 and not all("-of-" in path.stem for path in paths):
            names = [printable(path.name) for path in paths]
            raise DataError(say(printable(root), "must have one table for each split", names, "Rename or merge them."))
    return found


def list_text_folder(root: Path, tables: dict[str, list[Path]], options: Options) -> TextListing:
    """The rows of a folder with a table a split; see `split_tables`.

    Raises (now, or from the rows):
        DataError: a fault of a table, with its line; tables with other columns than train has.
        ConfigError: a column for the split, which the files' names are.
    """
    if options.split is not None:
        raise ConfigError(say("split", "must be left out for a folder with a table a split", options.split))
    plan = _plan(tables["train"][0], options)
    parts = [(split, path) for split, paths in tables.items() for path in paths]
    used = {path.name for _, path in parts}
    others = sorted(p.name for p in root.iterdir() if p.name not in used and not is_hidden(p.name))
    notes = describe([name for name in others if Path(name).suffix.lower() in SUFFIXES], "other tables are left out")
    entries = (entry for split, path in parts for entry in _entries(path, plan, split))
    return TextListing(name_of(root), plan.names, entries, plan.columns.generates, None, tuple(notes))


def _known(options: Options) -> Callable[[Sequence[str]], bool]:
    given = _given(options)
    if given and all(name.isdecimal() for name in given):
        return lambda _: False
    return partial(_has_name, KNOWN | {name.lower() for name in given})


def _given(options: Options) -> set[str]:
    """Columns that the options name."""
    return {name for name in (*options.texts, options.label, options.target, options.split) if name}


def _has_name(names: frozenset[str], cells: Sequence[str]) -> bool:
    return any(cell.lower() in names for cell in cells)


def _plan(path: Path, options: Options) -> _Plan:
    known = _known(options)
    table = open_table(path, known)

    def fail(requirement: str, got: object, remedy: str) -> DataError:
        return fault(path, 1, requirement, got, remedy)

    given = _given(options)
    if not table.named and any(not name.isdecimal() for name in given):
        raise fault(path, 1, f"must have the columns {sorted(given)}", _first_line(path))
    columns = choose_columns(table.columns, options, fail) if table.named or given else _guess(path, table)
    return _Plan(columns, columns.texts if table.named else names_of(len(columns.texts)), known)


def _guess(path: Path, table: Table) -> TextColumns:
    """Which column of a table without names is the class; see the top of this file."""
    first = _first_line(path)
    remedy = "Begin with a line of names, or say `text=` and `label=`, by number if there are no names."
    if len(table.columns) != 2:
        raise fault(path, 1, "must name the columns of texts and classes", first, remedy)
    rows = [(str(row.cells["1"]), str(row.cells["2"])) for row in table.rows(table.columns)]
    distinct = [len({row[column] for row in rows}) for column in (0, 1)]
    label = int(distinct[1] <= distinct[0])
    if sum(row[label] == rows[0][label] for row in rows) < 2:
        raise fault(path, 1, "must name the columns, or have a class that other rows have, too", first, remedy)
    return TextColumns((str(2 - label),), str(1 + label), False)


def _first_line(path: Path) -> list[object]:
    return list(next(open_table(path, lambda _: False).rows(()), Row(1, {})).cells.values())


def _entries(path: Path, plan: _Plan, split: str) -> Iterator[Entry]:
    table = open_table(path, plan.known)
    columns = plan.columns
    missing = sorted({*columns.texts, *([columns.answer] if split in ("", "train") else [])} - set(table.columns))
    if missing:
        raise fault(path, 1, f"must have the columns {missing}, as the table of train has", list(table.columns))
    wanted = [n for n in (*columns.texts, columns.answer, columns.split) if n is not None and n in table.columns]
    name = printable(path.name)
    for row in table.rows(wanted):
        yield Entry(
            name=f"{name}:{row.line}",
            where=f"{printable(path)} line {row.line}",
            texts=tuple(_joined(row.cells.get(column)) for column in columns.texts),
            answer=row.cells.get(columns.answer),
            split=split or row_split(path, row, columns.split),
        )


def _joined(cell: object) -> object:
    """A list of texts, such as the options of a question, as lines of one."""
    return "\n".join(cell) if isinstance(cell, list) and all(isinstance(part, str) for part in cell) else cell
