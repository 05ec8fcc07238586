"""The little that parts and methods need to know of a target task; the data themselves are in `reprogram.tasks`."""

from dataclasses import dataclass

from reprogram.core.errors import DataError, say

IGNORED = -100
"""In a label map: a pixel whose class does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The shape every input of a task is brought to, and how.

    Attributes:
        shape: (channel, height, width) for images; () for texts, which keep their length.
        fit: "crop" scales the short side and cuts the middle out; "squash" ignores the aspect ratio;
            "exact" means the inputs have this shape already (others are scaled like "crop").
        interpolation: "bicubic", "bilinear" or "nearest".
        columns: names of the columns of a text task, in order.
    """

    shape: tuple[int, ...]
    fit: str = "crop"
    interpolation: str = "bicubic"
    columns: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Pixels."""
        return self.shape[-2]

    @property
    def width(self) -> int:
        """Pixels."""
        return self.shape[-1]


@dataclass(frozen=True, slots=True)
class Example:
    """An example of the task that a prompt can show: a demonstration.

    Attributes:
        texts: one for each of the sample's columns.
        answer: class name, or what is to be written.
    """

    texts: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a method's `build` sees of a task: a name, T class names and the sample's shape.

    A text task without classes is one of generation: its examples are texts and what is to be written after them.

    Attributes:
        name: of the task.
        classes: T names; none for generation.
        sample: the shape of its inputs.
        modality: "image" or "text".
        context: c, what a method of prompt instruction chose from the training split (`Method.context`); kept with the
            program, so that it can be built again without the data.
        dense: every pixel has a class of its own: targets are label maps [height, width] of class numbers, in which
            `IGNORED` pixels do not count, and target scores are [B, T, height, width].
    """

    name: str
    classes: tuple[str, ...]
    sample: Sample
    modality: str = "image"
    context: tuple[Example, ...] = ()
    dense: bool = False

    @property
    def generates(self) -> bool:
        """The answers are texts of any kind, not classes."""
        return self.modality == "text" and not self.classes

    def __post_init__(self) -> None:
        if self.generates:
            return
        if len(self.classes) < 2:
            raise DataError(say("classes", "must name at least two classes", list(self.classes)))
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
            raise DataError(say("classes", "must be distinct", twice, "Merge or rename them."))
