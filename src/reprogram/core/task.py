"""The little that parts and methods need to know of a target task; the data themselves are in `reprogram.tasks`."""

from dataclasses import dataclass

from reprogram.core.errors import DataError, say


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The shape every input of a task is brought to, and how.

    Attributes:
        shape: (channel, height, width) for images.
        fit: "crop" scales the short side and cuts the middle out; "squash" ignores the aspect ratio;
            "exact" means the inputs have this shape already (others are scaled like "crop").
        interpolation: "bicubic", "bilinear" or "nearest".
    """

    shape: tuple[int, ...]
    fit: str = "crop"
    interpolation: str = "bicubic"

    @property
    def height(self) -> int:
        """Pixels."""
        return self.shape[-2]

    @property
    def width(self) -> int:
        """Pixels."""
        return self.shape[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a method's `build` sees of a task: a name, T class names and the sample's shape."""

    name: str
    classes: tuple[str, ...]
    sample: Sample
    modality: str = "image"

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError(say("classes", "must name at least two classes", list(self.classes)))
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
            raise DataError(say("classes", "must be distinct", twice, "Merge or rename them."))
