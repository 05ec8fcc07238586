"""Tables as rows of named cells: CSV and TSV, JSON lines, Parquet. Every fault is a `DataError` with file and line.

Most tables with tabs know no quoting: a quotation mark is a quotation mark. So where each line has as many cells as the
first one if cut at its tabs, or no cell begins with a quotation mark, lines are rows, and a cell loses the marks around
it only if all marks inside it are doubled. Other tables with tabs are read as CSV.
"""

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from reprogram.core.errors import DataError, missing_extra, say
from reprogram.media.decode import printable

MAX_LINE = 2**20
"""Bytes in one line of a text table."""

MAX_ROWS = 10_000_000
"""Rows of a table. Parquet can declare many with few bytes."""

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line (or number, from 1) and its cells by column."""

    line: int
    cells: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Table:
    """Column names, and a function that reads the rows; it may leave out cells of columns that are not asked for.

    Without a line of names (`named` is False), columns are called by their numbers: "1", "2", ...
    """

    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    named: bool = True


Known: TypeAlias = Callable[[Sequence[str]], bool]
"""Whether some cells are a line of names."""


def open_table(path: Path, known: Known | None = None) -> Table:
    """Read the header now and the rows as they are asked for.

    Args:
        path: of the table; its suffix says what it is.
        known: whether the first line of a CSV or TSV table names the columns; None if it always does.

    Raises (now, or from the rows):
        DataError: not UTF-8, no or repeated column names, a row of another length, a line that is no JSON object, ...
        MissingExtraError: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _open_parquet(path)
    if suffix in (".json", ".jsonl", ".ndjson"):  # some data sets call JSON lines .json
        return _open_json(path)
    return _open_csv(path, "\t" if suffix == ".tsv" else None, known)


def fault(path: Path, line: int, requirement: str, got: object, remedy: str = "") -> DataError:
    """The error about one line of a table."""
    return DataError(say(f"{printable(path)} line {line}", requirement, got, remedy))


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with open(path, "rb") as file:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise fault(path, number, f"must have at most {MAX_LINE} bytes", "a longer line")
                if number > MAX_ROWS:
                    raise fault(path, number, f"must be among the first {MAX_ROWS}", "a longer table")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise fault(path, number, "must be UTF-8 text", str(error), "Save the table as UTF-8.") from error
    except OSError as error:
        raise DataError(say(printable(path), "must be a readable file", error.strerror)) from error


def _open_csv(path: Path, delimiter: str | None, known: Known | None) -> Table:
    lines = _lines(path)
    first = next(lines, "")
    if delimiter is None:
        delimiter = max(",;\t", key=first.count)
    read = _tab_rows if delimiter == "\t" and _is_unquoted(path) else partial(_csv_rows, delimiter=delimiter)
    try:
        header = (
            next(csv.reader([first], delimiter=delimiter, strict=True), []) if read is not _tab_rows else _cut(first)
        )
    except csv.Error as error:
        raise fault(path, 1, "must name the columns", str(error)) from error
    columns = [name.strip() for name in header]
    if known is not None and len(columns) > 1 and not known(columns):
        numbers = [str(n + 1) for n in range(len(columns))]
        return Table(tuple(numbers), lambda _: read(path, numbers, itertools.chain([first], lines), 1), named=False)
    _check_columns(path, columns)
    return Table(tuple(columns), lambda _: read(path, columns, lines, 2))


def _csv_rows(path: Path, columns: Sequence[str], lines: Iterator[str], start: int, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + start
        try:
            cells = next(reader, None)
        except csv.Error as error:
            got, remedy = str(error), "Check its quotation marks."
            raise fault(path, line, "must be a row of a CSV table", got, remedy) from error
        if cells is None:
            return
        if cells:
            yield _row(path, line, columns, cells)


def _tab_rows(path: Path, columns: Sequence[str], lines: Iterator[str], start: int) -> Iterator[Row]:
    for line, text in enumerate(lines, start):
        if cells := _cut(text):
            yield _row(path, line, columns, cells)


def _row(path: Path, line: int, columns: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) != len(columns):
        remedy = "Put cells that hold the separator into quotation marks."
        raise fault(path, line, f"must have {len(columns)} cells as the first line has", len(cells), remedy)
    return Row(line, dict(zip(columns, cells, strict=True)))


def _is_unquoted(path: Path) -> bool:
    """Whether a table with tabs is one of lines, as the rule at the top of this file says."""
    counts: set[int] = set()
    marks = False
    for line in _lines(path):
        counts.add(line.count("\t") if line.strip() else next(iter(counts), 0))
        marks = marks or line.startswith('"') or '\t"' in line
        if marks and len(counts) > 1:
            return False
    return True


def _cut(line: str) -> list[str]:
    """The cells of a line with tabs; none if it is empty.

    >>> _cut('"so ""good"" it is"' + chr(9) + '"good" and "bad"')
    ['so "good" it is', '"good" and "bad"']
    """
    line = line.rstrip("\r\n")
    return [_bare(cell) for cell in line.split("\t")] if line else []


def _bare(cell: str) -> str:
    inner = cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner else cell


def _open_json(path: Path) -> Table:
    rows = _json_rows(path)
    first = next(rows, None)
    if first is None:
        raise DataError(say(printable(path), "must have rows", "an empty table"))
    return Table(tuple(first.cells), lambda _: itertools.chain([first], rows))


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            raise fault(path, number, "must be a JSON object", str(error)) from error
        if not isinstance(cells, dict):
            raise fault(path, number, "must be a JSON object", type(cells).__name__)
        yield Row(number, cells)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    cells = dict(pairs)
    if len(cells) != len(pairs):
        msg = f"a name twice in {[name for name, _ in pairs]}"
        raise ValueError(msg)
    return cells


def _open_parquet(path: Path) -> Table:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data", "Reading Parquet tables") from error
    try:
        file = parquet.ParquetFile(path)
        columns, count = list(file.schema_arrow.names), file.metadata.num_rows
    except Exception as error:  # pyarrow has many
        raise DataError(say(printable(path), "must be a Parquet file", f"{type(error).__name__}: {error}")) from error
    _check_columns(path, columns)
    if count > MAX_ROWS:
        raise DataError(say(printable(path), f"must have at most {MAX_ROWS} rows", count))
    return Table(tuple(columns), lambda wanted: _parquet_rows(path, file.iter_batches(1024, columns=list(wanted))))


def _parquet_rows(path: Path, batches: Iterator[Any]) -> Iterator[Row]:  # of pyarrow.RecordBatch
    number = 0
    try:
        for batch in batches:
            for cells in batch.to_pylist():
                number += 1
                yield Row(number, cells)
    except Exception as error:  # pyarrow has many
        if isinstance(error, DataError):
            raise
        raise fault(
            path, number + 1, "or one soon after must be readable", f"{type(error).__name__}: {error}"
        ) from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice or not any(columns):
        raise fault(path, 1, "must name each column once", twice or "no column names", "Begin with a line of names.")
