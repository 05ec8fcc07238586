"""Texts from a command line: themselves, lines of stdin, or the rows of a table."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from reprogram.core.errors import DataError, say

Row = dict[str, str]


def rows_from(given: Iterable[str], columns: Sequence[str]) -> Iterator[Row]:
    """Rows with the program's columns.

    Args:
        given: texts; "-" for lines of stdin; paths of tables (.csv, .tsv, .jsonl, .parquet) or of .txt files, a text a
            line. What looks like one of these files but is not there is an error, not a text.
        columns: of the program's task. With several, only tables will do.

    Raises:
        DataError: a file lacks a column, or a text comes alone where several columns are needed.
    """
    for one in given:
        path = Path(one)
        if one == "-":
            yield from _lines((line.decode("utf-8", "replace") for line in sys.stdin.buffer), "stdin", columns)
        elif _is_table(path):
            yield from _table(path, columns)
        elif path.suffix.lower() == ".txt" and " " not in one:
            yield from _lines(_read(path).splitlines(), one, columns)
        else:
            yield _single(one, "text", columns)


def _is_table(path: Path) -> bool:
    from reprogram.tasks.rows import SUFFIXES

    return path.suffix.lower() in SUFFIXES and (path.is_file() or " " not in str(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(say(str(path), "must be a text file in UTF-8", str(problem))) from problem


def _lines(lines: Iterable[str], where: str, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if text.strip():
            yield _single(text, f"{where} line {number}", columns)


def _single(text: str, where: str, columns: Sequence[str]) -> Row:
    if len(columns) != 1:
        remedy = "Give a table with these columns, such as pairs.csv or pairs.jsonl."
        raise DataError(say(where, f"must come with all of the columns {list(columns)}", text, remedy))
    if not text.strip():
        raise DataError(say(where, "must not be empty", text))
    return {columns[0]: text}


def _table(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    from reprogram.tasks.rows import open_table

    table = open_table(path)
    lower = {name.lower(): name for name in reversed(table.columns)}
    missing = [name for name in columns if name.lower() not in lower]
    if missing:
        raise DataError(say(str(path), f"must have the columns {list(columns)}", list(table.columns)))
    names = {name: lower[name.lower()] for name in columns}
    for row in table.rows(list(names.values())):
        cells = {name: row.cells.get(own) for name, own in names.items()}
        bad = [name for name, cell in cells.items() if not isinstance(cell, str) or not cell.strip()]
        if bad:
            raise DataError(say(f"{path} line {row.line}", f"must have text in {bad}", cells))
        yield {name: str(cell) for name, cell in cells.items()}
