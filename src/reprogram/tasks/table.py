"""Tasks from tables that list picture files, their classes and perhaps their splits.

    image,label,split
    photos/1.jpg,cat,train
    photos/2.jpg,dog,test

Paths are relative to the table. Columns are found by name, in any case, the first of these that is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reprogram.core.errors import DataError, say
from reprogram.media.decode import printable
from reprogram.tasks.columns import IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, SPLIT_NAMES
from reprogram.tasks.folder import name_of, plain
from reprogram.tasks.listing import Listing
from reprogram.tasks.options import Options
from reprogram.tasks.pixels import BytesReader, FileReader, Item, Reader
from reprogram.tasks.rows import Row, Table, fault, open_table


@dataclass(frozen=True, slots=True)
class _Columns:
    image: str
    label: str
    split: str | None


def list_table(path: Path, options: Options) -> Listing:
    """The pictures a table lists. They are opened later, so a missing one is reported when the task is built.

    Raises:
        DataError: a fault of the table, with its line; a path that leads out of the table's folder.
        MissingExtraError: Parquet without pyarrow.
    """
    table = open_table(path)
    columns = _choose(path, table, options)
    home = path.parent.resolve()
    wanted = [name for name in (columns.image, columns.label, columns.split) if name]
    items = [_item(path, row, columns, None if options.allow_outside else home) for row in table.rows(wanted)]
    if not items:
        raise DataError(say(printable(path), "must have rows", "only column names"))
    return Listing(name_of(path), items)


def _choose(path: Path, table: Table, options: Options) -> _Columns:
    lower = {name.lower(): name for name in reversed(table.columns)}

    def column(option: str, given: str | None, likely: Sequence[str]) -> str | None:
        if given is not None and given not in table.columns:
            raise fault(path, 1, f"must have the column `{option}=` names, {given!r}", list(table.columns))
        return given or next((lower[name] for name in likely if name in lower), None)

    image, label = column("image", options.image, IMAGE_COLUMNS), column("label", options.label, LABEL_COLUMNS)
    if image is None or label is None:
        option, likely = ("image", IMAGE_COLUMNS) if image is None else ("label", LABEL_COLUMNS)
        remedy = f"Say which with `{option}=`, or `text=` for a task of texts."
        raise fault(path, 1, f"must have a column called one of {list(likely)}", list(table.columns), remedy)
    return _Columns(image, label, column("split", options.split, SPLIT_COLUMNS))


def _item(path: Path, row: Row, columns: _Columns, home: Path | None) -> Item:
    cell = row.cells.get(columns.image)
    name, reader = _picture(path, row, cell, home)
    where = f"{name} ({printable(path)} line {row.line})"
    return Item(name, where, _label(path, row, columns.label), row_split(path, row, columns.split), reader)


def _picture(path: Path, row: Row, cell: object, home: Path | None) -> tuple[str, Reader]:
    """The name and the way to the bytes of a cell: a path, or the picture itself as Parquet may hold it."""
    if isinstance(cell, Mapping):
        data, inner = cell.get("bytes"), cell.get("path")
        cell = data if data is not None else inner
    if isinstance(cell, bytes):
        return f"row {row.line}", BytesReader(cell)
    if not isinstance(cell, str) or not cell.strip() or "\0" in cell:
        raise fault(path, row.line, "must name a picture file", cell)
    if cell.lower().startswith(("http://", "https://", "s3://", "gs://")):
        raise fault(path, row.line, "must name a file on this machine", cell, "Fetch the pictures first.")
    target = path.parent / cell.strip()
    if home is not None and not _inside(target, home):
        remedy = "`allow_outside=True` allows it, if you trust the table."
        raise fault(path, row.line, "must name a picture inside the table's folder", cell, remedy)
    return printable(cell.strip()), FileReader(str(target))


def _inside(target: Path, home: Path) -> bool:
    try:
        return target.resolve().is_relative_to(home)
    except (OSError, RuntimeError, ValueError):
        return False


def _label(path: Path, row: Row, column: str) -> str:
    value = row.cells.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise fault(path, row.line, f"must have a class in the column `{column}`", value)
    return plain(value.strip())


def row_split(path: Path, row: Row, column: str | None) -> str:
    """The split that a row says it belongs to; "" if there is no such column.

    Raises:
        DataError: another word than train, val or test, or what these are also called.
    """
    if column is None and not set(SPLIT_COLUMNS) & set(row.cells):
        return ""
    column = column or SPLIT_COLUMNS[0]
    value = row.cells.get(column)
    split = SPLIT_NAMES.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        raise fault(path, row.line, f"must have train, val or test in the column `{column}`", value)
    return split
