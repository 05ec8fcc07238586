"""Tasks from data sets of other libraries: torch's (anything with a length and rows) and Hugging Face's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.media.decode import flatten, read_bytes
from reprogram.media.images import as_samples
from reprogram.tasks.arrays import build_arrays, to_labels
from reprogram.tasks.assemble import Built, few
from reprogram.tasks.columns import IMAGE_NAMES, SPLIT_NAMES
from reprogram.tasks.hugging_face import Rows, class_names, features_of, is_hugging_face
from reprogram.tasks.listing import Listing, build
from reprogram.tasks.options import Options
from reprogram.tasks.pixels import Item
from reprogram.tasks.text_dataset import build_text_dataset, holds_texts, wrapped

LABEL_NAMES = ("label", "labels", "class", "target", "fine_label")


@dataclass(frozen=True, slots=True)
class _RowReader:
    """The encoded picture in one row of a Hugging Face data set."""

    dataset: Rows
    row: int
    column: str

    def read(self, name: str) -> bytes:
        cell = self.dataset[self.row][self.column]
        if not isinstance(cell, Mapping):
            raise DataError(say(name, "must hold a picture", type(cell).__name__))
        data, path = cell.get("bytes"), cell.get("path")
        if isinstance(data, bytes):
            return data
        return read_bytes(str(path), name=f"{name} ({path})")


def build_dataset(name: str, given: object, classes: Sequence[str] | None, options: Options) -> Built:
    """A task from one data set, or from a mapping of split names to data sets.

    Args:
        name: of the task.
        given: rows are (picture, label) pairs or (text, label) tuples, or have a column for each; or it is a mapping of
            column names to columns. Strings are texts, but for names that picture files have.
        classes: T names; None takes them from the data set.
        options: `image` or `text`, and `label` or `target`, name the columns where they cannot be told.

    Raises:
        DataError: it has no length, rows are no pairs, or columns cannot be told apart.
    """
    datasets, notes = _by_split(name, wrapped(given, options))
    first = next(iter(datasets.values()))
    if holds_texts(first, options):
        return build_text_dataset(name, datasets, classes, options, notes)
    if is_hugging_face(first):
        image, label = _columns(first, options)
        if type(features_of(first)[image]).__name__ == "Image":
            return build(_listing(name, datasets, (image, label), classes, notes), options)
        classes = classes or class_names(first, label)
        pairs = {split: (_cells(d, image), _labels(split, d, label)) for split, d in datasets.items()}
        return build_arrays(name, pairs, classes, options, notes)
    classes = classes or _names_on(first)
    pairs = {split: _gather(split, dataset, options) for split, dataset in datasets.items()}
    return build_arrays(name, pairs, classes, options, notes)


def _by_split(name: str, given: object) -> tuple[dict[str, Rows], list[str]]:
    named = given if isinstance(given, Mapping) else {"train": given}
    found: dict[str, Rows] = {}
    ignored: list[str] = []
    for key, dataset in named.items():
        split = SPLIT_NAMES.get(str(key).lower())
        if split is None:
            ignored.append(str(key))
        elif split in found:
            raise DataError(say(name, f"must have one split for {split}", [str(k) for k in named]))
        elif not isinstance(dataset, Rows) or not len(dataset):
            got = "an empty one" if isinstance(dataset, Rows) else type(dataset).__name__
            remedy = "Streams must be collected first."
            raise DataError(say(f"{name}.{key}", "must be a data set with a length and rows by number", got, remedy))
        else:
            found[split] = dataset
    if "train" not in found:
        raise DataError(say(name, "must have a split called train", [str(k) for k in named]))
    return found, [f"Splits that are not train, val or test are left out: {few(ignored)}."] if ignored else []


def _gather(split: str, dataset: Rows, options: Options) -> tuple[list[object], list[object]]:
    """All rows, once and in order; pictures at the size wanted if that is known, else as they come."""
    pictures, labels, size = list[object](), list[object](), 0
    sample = options.sample_of(options.shape) if options.shape else None
    for index in range(len(dataset)):
        row = dataset[index]
        if not isinstance(row, (tuple, list)) or len(row) < 2:
            raise DataError(say(f"{split}[{index}]", "must be a pair of picture and label", type(row).__name__))
        picture = flatten(row[0], f"{split}[{index}]") if isinstance(row[0], Image.Image) else row[0]
        if sample is not None:
            picture = as_samples([picture], sample)[0]
        pictures.append(picture)
        labels.append(row[1])
        size += _bytes_of(picture)
        if size > options.memory:
            requirement = f"must fit into {options.memory} bytes as pictures"
            raise DataError(say(split, requirement, f"more after {index + 1} of {len(dataset)} rows",
                                "Give a `size`, or more `memory`."))  # fmt: skip
        if options.progress:
            options.progress(index + 1, len(dataset))
    return pictures, labels


def _bytes_of(picture: object) -> int:
    if isinstance(picture, Image.Image):
        return 3 * picture.width * picture.height
    return (
        picture.numel() * picture.element_size() if isinstance(picture, Tensor) else int(getattr(picture, "nbytes", 0))
    )


def _names_on(dataset: Rows) -> tuple[str, ...] | None:
    """Class names where torchvision's data sets keep them."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
        return tuple(names)
    return None


def _columns(dataset: Rows, options: Options) -> tuple[str, str]:
    features = features_of(dataset)
    image = options.image or _one("image", features, "Image", IMAGE_NAMES)
    label = options.label or _one("label", features, "ClassLabel", LABEL_NAMES)
    for option, column in (("image", image), ("label", label)):
        if column not in features:
            raise DataError(say(option, f"must be a column, one of {sorted(features)}", column))
    return image, label


def _one(option: str, features: Mapping[str, Any], kind: str, names: Sequence[str]) -> str:
    """The column of the kind, or with one of the names; with neither or several, the user has to say."""
    found = [c for c, feature in features.items() if type(feature).__name__ == kind]
    found = found or [c for c in names if c in features]
    if len(found) != 1:
        remedy = f"Say which with `{option}=`."
        raise DataError(say(option, f"must be one of the columns {sorted(features)}", found or "no likely one", remedy))
    return found[0]


def _listing(
    name: str, datasets: Mapping[str, Any], columns: tuple[str, str], classes: Sequence[str] | None, notes: list[str]
) -> Listing:
    from datasets import Image as Encoded  # only here, where the user has it already

    image, label = columns
    first = next(iter(datasets.values()))
    given = {split: (_labels(split, data, label), len(data)) for split, data in datasets.items()}
    names, labels = to_labels(given, classes or class_names(first, label))
    items: list[Item] = []
    for split, data in datasets.items():
        raw = data.with_format(None).select_columns([image]).cast_column(image, Encoded(decode=False))
        for row, number in enumerate(labels[split].tolist()):
            title = f"{split}/{row}"
            where = f"{name}[{split}][{row}]"
            items.append(
                Item(title, where, names[number], split if len(datasets) > 1 else "", _RowReader(raw, row, image))
            )
    return Listing(name, items, names, tuple(notes))


def _labels(split: str, dataset: Any, label: str) -> list[Any]:
    values = list(dataset.with_format(None)[label])
    unlabelled = (None, -1) if class_names(dataset, label) else (None,)
    missing = [row for row, value in enumerate(values) if value in unlabelled]
    if missing:
        requirement = "must have a label in every row"
        raise DataError(say(f"{split}.{label}", requirement, f"none in row {missing[0]}", "Filter such rows out."))
    return values


def _cells(dataset: Rows, column: str) -> list[Any]:
    return [dataset[row][column] for row in range(len(dataset))]
