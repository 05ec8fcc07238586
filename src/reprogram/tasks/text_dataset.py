"""Text tasks from data sets of other libraries, lists of rows, and mappings of columns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reprogram.core.errors import DataError, say
from reprogram.media.files import is_picture
from reprogram.tasks.assemble import Built
from reprogram.tasks.columns import IMAGE_NAMES, SPLIT_NAMES, choose_columns, find_texts
from reprogram.tasks.hugging_face import Rows, class_names, features_of, is_hugging_face
from reprogram.tasks.options import Options
from reprogram.tasks.text_memory import Texted, build_memory, names_of


def wrapped(given: object, options: Options) -> object:
    """A mapping of columns of texts as the only split; all else as it is."""
    if not isinstance(given, Mapping) or any(str(key).lower() in SPLIT_NAMES for key in given):
        return given
    columns = [str(key) for key in given]
    return {"train": given} if options.means_text or find_texts(columns) else given


def holds_texts(dataset: Rows, options: Options) -> bool:
    """Whether a data set is one of texts: the options say so, or its columns, or its first row."""
    if options.means_text is not None:
        return options.means_text
    if is_hugging_face(dataset) or isinstance(dataset, Mapping):
        features = features_of(dataset) if is_hugging_face(dataset) else dict[str, Any]()
        pictured = any(type(feature).__name__ == "Image" for feature in features.values())
        return not pictured and _names_texts(list(features) or [str(key) for key in dataset])  # pyright: ignore
    row = dataset[0]
    if isinstance(row, Mapping):
        return _names_texts([str(key) for key in row])
    return isinstance(row, (tuple, list)) and bool(row) and isinstance(row[0], str) and not is_picture(row[0])


def build_text_dataset(
    name: str, datasets: Mapping[str, Rows], classes: Sequence[str] | None, options: Options, notes: Sequence[str]
) -> Built:
    """A task from data sets of texts, by split.

    Args:
        name: of the task.
        datasets: rows are mappings, or tuples of texts with the class last; or all rows are columns in a mapping.
        classes: T names; None takes them from the data set.
        options: `text`, `label`, `target` name the columns where they cannot be told.
        notes: warnings so far.

    Raises:
        DataError: columns cannot be told, or a row cannot be used.
    """
    columns = {split: _columns(dataset, f"{name}[{split}]") for split, dataset in datasets.items()}
    first = datasets["train"]

    def fail(requirement: str, got: object, remedy: str) -> DataError:
        return DataError(say(name, requirement, got, remedy))

    chosen = choose_columns(list(columns["train"]), replace(options, split=None), fail)
    if classes is None and is_hugging_face(first) and not chosen.generates:
        classes = class_names(first, chosen.answer)
    given: dict[str, Texted] = {}
    for split, cells in columns.items():
        lacking = [c for c in chosen.texts if c not in cells]
        if lacking:
            raise fail(f"must have the columns {lacking} in {split}, as train has", list(cells), "")
        texts = {column: _cells(cells[column]) for column in chosen.texts}
        rows = len(next(iter(texts.values())))
        given[split] = Texted(texts, _cells(cells[chosen.answer]) if chosen.answer in cells else [None] * rows)
    return build_memory(name, given, chosen.generates, replace(options, classes=classes), notes)


def _names_texts(columns: Sequence[str]) -> bool:
    return bool(find_texts(columns)) and not {c.lower() for c in columns} & set(IMAGE_NAMES)


def _columns(dataset: Any, name: str) -> Mapping[str, Any]:
    """Columns by name, as they are kept; rows that are tuples have the class last."""
    if isinstance(dataset, Mapping):
        return {str(key): column for key, column in dataset.items()}
    if is_hugging_face(dataset):
        plain = dataset.with_format(None)
        return {column: plain[column] for column in features_of(dataset)}
    rows = [dataset[i] for i in range(len(dataset))]
    width = len(rows[0]) if isinstance(rows[0], (tuple, list)) else 0
    keys = list(rows[0]) if isinstance(rows[0], Mapping) else range(width)
    for i, row in enumerate(rows):
        if type(row) is not type(rows[0]) or len(row) != len(keys) or (not width and set(row) != set(keys)):
            requirement = "must be a row of texts and a class, like the first row"
            raise DataError(say(f"{name}[{i}]", requirement, row))
    names = [*names_of(width - 1), "label"] if width else [str(key) for key in keys]
    return {column: [row[key] for row in rows] for column, key in zip(names, keys, strict=True)}


def _cells(column: Any) -> list[object]:
    return list(column)
