"""Tables as rows of named cells: CSV and TSV, JSON lines, Parquet. Every fault is a `DataError` with file and line."""

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprogram.core.errors import DataError, missing_extra, say
from reprogram.media.decode import printable

MAX_LINE = 2**20
"""Bytes in one line of a text table."""

MAX_ROWS = 10_000_000
"""Rows of a table. Parquet can declare many with few bytes."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line (or number, from 1) and its cells by column."""

    line: int
    cells: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Table:
    """Column names, and a function that reads the rows; it may leave out cells of columns that are not asked for."""

    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[Row]]


def open_table(path: Path) -> Table:
    """Read the header now and the rows as they are asked for.

    Raises (now, or from the rows):
        DataError: not UTF-8, no or repeated column names, a row of another length, a line that is no JSON object, ...
        MissingExtraError: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _open_parquet(path)
    return _open_json(path) if suffix in (".jsonl", ".ndjson") else _open_csv(path, "\t" if suffix == ".tsv" else None)


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


def _open_csv(path: Path, delimiter: str | None) -> Table:
    lines = _lines(path)
    first = next(lines, "")
    if delimiter is None:
        delimiter = max(",;\t", key=first.count)
    try:
        header = next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise fault(path, 1, "must name the columns", str(error)) from error
    columns = [name.strip() for name in header]
    _check_columns(path, columns)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    return Table(tuple(columns), lambda _: _csv_rows(path, columns, reader))


def _csv_rows(path: Path, columns: Sequence[str], reader: Any) -> Iterator[Row]:  # csv.reader is no type
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            got, remedy = str(error), "Check its quotation marks."
            raise fault(path, reader.line_num + 1, "must be a row of a CSV table", got, remedy) from error
        if cells is None:
            return
        line = reader.line_num + 1
        if cells and len(cells) != len(columns):
            remedy = "Put cells that hold the separator into quotation marks."
            raise fault(path, line, f"must have {len(columns)} cells as the header has", len(cells), remedy)
        if cells:
            yield Row(line, dict(zip(columns, cells, strict=True)))


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
