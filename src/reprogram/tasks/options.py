"""The settings of loading a task, in one place, checked before any file is opened."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

from reprogram.core.errors import ConfigError, say
from reprogram.core.task import Sample
from reprogram.media.frame import check_sample

Progress: TypeAlias = Callable[[int, int], None]
"""Called as `progress(done, total)` from the thread that loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a task is loaded.

    Attributes:
        size: height and width in pixels, as one number or two; None keeps the size if all pictures have one of at
            most 512 pixels, and else takes a square of min(224, median of the short sides).
        fit: "crop" or "squash", for pictures of another shape; see `Sample`.
        interpolation: "bicubic", "bilinear" or "nearest".
        seed: of the splits that are made here.
        val: fraction of all examples for validation, where the data have no validation split.
        test: fraction of all examples for the test, where the data have no test split.
        on_error: "raise" at the first unreadable file or unusable row of texts, or "skip" such with a warning.
        memory: bytes of decoded pictures to hold; above that, files are decoded again whenever they are needed. More
            bytes of texts are an error.
        workers: threads that decode; None for as many as there are cores.
        progress: see `Progress`.
        allow_outside: read pictures outside the folder, or the folder of the table.
        image: column with the path or picture, for tables and data sets; None finds it by its name.
        label: column with the class.
        split: column with "train", "val" or "test", for tables.
        text: column with the text, or several, as "a,b" or a sequence; None finds them by their names.
        target: column with what is to be written after the text, which makes it a task of generation.
        classes: names of the T classes of a text task, to which numbers in the label column are indices from 0.
        kind: "image" or "text", where the data could be either.
    """

    size: int | tuple[int, int] | None = None
    fit: str = "crop"
    interpolation: str = "bicubic"
    seed: int = 0
    val: float | int = 0.1
    test: float | int = 0.2
    on_error: str = "raise"
    memory: int = 2 * 2**30
    workers: int | None = None
    progress: Progress | None = None
    allow_outside: bool = False
    image: str | None = None
    label: str | None = None
    split: str | None = None
    text: str | Sequence[str] | None = None
    target: str | None = None
    classes: Sequence[str] | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        for name in ("val", "test"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value < 1):
                raise ConfigError(say(name, "must be a fraction from 0 to below 1", value))
        if self.val + self.test >= 1:
            raise ConfigError(say("val + test", "must leave something to train on", self.val + self.test))
        if self.on_error not in ("raise", "skip"):
            raise ConfigError(say("on_error", "must be 'raise' or 'skip'", self.on_error))
        self._check_columns()
        for name in ("memory", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(say(name, "must be 1 or more", value))
        check_sample(self.sample_of(self.shape or (1, 1)))

    def _check_columns(self) -> None:
        if self.kind not in (None, "image", "text"):
            raise ConfigError(say("kind", "must be 'image' or 'text'", self.kind))
        if self.label is not None and self.target is not None:
            raise ConfigError(say("label, target", "must be one or the other", (self.label, self.target)))
        if self.text is not None and (not self.texts or len(set(self.texts)) != len(self.texts)):
            raise ConfigError(say("text", "must name one column or several, each once", self.text))
        about_texts = [name for name in ("text", "target", "classes") if getattr(self, name) is not None]
        if about_texts and (self.image is not None or self.kind == "image"):
            raise ConfigError(say("image", f"must be left out for texts, which `{about_texts[0]}` is about",
                                  self.image or self.kind))  # fmt: skip

    @property
    def texts(self) -> tuple[str, ...]:
        """The names in `text`.

        >>> Options(text="premise, hypothesis").texts, Options().texts
        (('premise', 'hypothesis'), ())
        """
        given = self.text.split(",") if isinstance(self.text, str) else self.text or ()
        return tuple(name.strip() for name in given if name.strip())

    @property
    def means_text(self) -> bool | None:
        """Whether the options say that the task is one of texts; None if they do not say."""
        if self.kind is not None:
            return self.kind == "text"
        if self.image is not None:
            return False
        return True if self.text is not None or self.target is not None or self.classes is not None else None

    @property
    def shape(self) -> tuple[int, int] | None:
        """(height, width), or None where the pictures decide."""
        if self.size is None:
            return None
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def sample_of(self, shape: tuple[int, int]) -> Sample:
        """The sample of three channels with this height and width.

        >>> sample = Options(fit="squash").sample_of((32, 24))
        >>> sample.shape, sample.fit, sample.interpolation
        ((3, 32, 24), 'squash', 'bicubic')
        """
        return Sample(shape=(3, *shape), fit=self.fit, interpolation=self.interpolation)

    @classmethod
    def of(cls, given: Mapping[str, object]) -> "Options":
        """Options by name.

        Raises:
            ConfigError: a name is unknown (the message has the nearest) or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.5)
                remedy = f"Did you mean `{near[0]}`?" if near else ""
                raise ConfigError(say("option", f"must be one of {known}", name, remedy))
        return cls(**given)  # pyright: ignore[reportArgumentType]
