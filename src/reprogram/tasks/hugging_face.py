"""What is asked of data sets of other libraries, without importing these."""

import sys
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Rows(Protocol):
    """A data set with a length and rows by number, as `torch.utils.data.Dataset` means it."""

    def __len__(self) -> int:
        """Rows."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """A row."""
        ...


def is_hugging_face(dataset: Rows) -> bool:
    """Whether it is one of the library `datasets`, which the user has imported if so."""
    return type(dataset).__module__.split(".")[0] == "datasets" and "datasets" in sys.modules


def features_of(dataset: Any) -> Mapping[str, Any]:
    """Its columns, each with what it holds."""
    return dataset.features


def class_names(dataset: Rows, label: str) -> tuple[str, ...] | None:
    """Names of the classes of a column, if it knows them."""
    names = getattr(features_of(dataset)[label], "names", None)
    return tuple(names) if names else None
