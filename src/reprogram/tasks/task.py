"""A target task: what is to be told apart or written, on which pictures or texts, in splits that do not mix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import torch

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.task import TaskSpec
from reprogram.tasks.arrays import Pair, build_arrays
from reprogram.tasks.assemble import announce, few
from reprogram.tasks.datasets import build_dataset
from reprogram.tasks.dense import are_maps, build_maps
from reprogram.tasks.divide import SPLITS, allocate, pick
from reprogram.tasks.options import Options
from reprogram.tasks.split import Split
from reprogram.tasks.text_memory import Texted, build_memory

VAL_SHOTS = 4
"""CoOp (arXiv 2109.01134, the authors' code) validates a k-shot run on min(k, 4) examples of each class."""


@final
@dataclass(frozen=True, eq=False)
class Task:
    """Classification of pictures or texts, or generation of texts.

    `load_task`, `from_arrays`, `from_texts` and `from_dataset` make one. A task of generation has no classes; its
    splits give each text with the one that is to be written after it, and all their labels are 0.

    Attributes:
        spec: name, class names and sample shape: what methods see.
        splits: "train", "val" and "test", and any others.
        warnings: what was found to be odd while the data were read.

    Raises:
        DataError: a split is missing, train is empty, or another split has a class that train has not.
    """

    spec: TaskSpec
    splits: Mapping[str, Split]
    warnings: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        missing = [name for name in SPLITS if name not in self.splits]
        if missing or not len(self.splits["train"]):
            got = {name: len(split) for name, split in self.splits.items()}
            raise DataError(say(self.name, "must have the splits train, val and test, and examples in train", got))
        known = self.splits["train"].counts() > 0
        for name, split in self.splits.items():
            if split.dense != self.spec.dense:
                need = f"must have {'a label map' if self.spec.dense else 'one label'} for each picture"
                raise DataError(say(f"{self.name}.{name}", need, list(split.labels.shape)))
            if len(split.counts()) != self._labels or tuple(split.shape) != self.spec.sample.shape:
                what = f"pictures {self.spec.sample.shape}" if self.spec.sample.shape else "texts"
                requirement = f"must have {self._labels} classes and {what}"
                raise DataError(say(f"{self.name}.{name}", requirement, (len(split.counts()), split.shape)))
            strange = ((split.counts() > 0) & ~known).nonzero().flatten().tolist()
            if strange:
                names = few([self.classes[c] for c in strange])
                remedy = f"Add examples of it to train, or take it out of {name}."
                raise DataError(say(f"{self.name}.{name}", "must have only classes that train has, too", names, remedy))

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.spec.name

    @property
    def classes(self) -> tuple[str, ...]:
        """T class names; none if texts are to be written."""
        return self.spec.classes

    @property
    def _labels(self) -> int:
        """How many different labels there can be: one that means nothing, for generation."""
        return 1 if self.spec.generates else len(self.classes)

    @property
    def _strata(self) -> int:
        """How many kinds of examples are counted apart where some are drawn."""
        return 1 if self.spec.dense else self._labels

    @property
    def train(self) -> Split:
        """What programs are fitted on."""
        return self.splits["train"]

    @property
    def val(self) -> Split:
        """What choices are made on."""
        return self.splits["val"]

    @property
    def test(self) -> Split:
        """What is reported; used for nothing else."""
        return self.splits["test"]

    def few_shot(self, shots: int, seed: int = 0) -> "Task":
        """The same task with `shots` examples of each class in train, and at most min(shots, 4) in validation.

        Of a task of generation or a dense one, `shots` examples in all, and at most as many in validation. The test
        split stays whole.
        Fewer shots of one seed are among more shots of the same seed.

        Raises:
            ConfigError: `shots` is below 1.
            DataError: a class has fewer examples in train.
        """
        if shots < 1:
            raise ConfigError(say("shots", "must be 1 or more", shots))
        counts = torch.bincount(self.train.strata, minlength=self._strata).tolist()
        alike = self._strata == 1
        short = [f"{c} ({n})" for c, n in zip(("all",) if alike else self.classes, counts, strict=True) if n < shots]
        if short:
            raise DataError(say("shots", f"must be at most the examples every class has in train of {self.name}", shots,
                                f"Too few: {few(short)}."))  # fmt: skip
        each = {"train": shots, "val": shots if alike else min(shots, VAL_SHOTS)}
        reduced = {
            name: self.splits[name].subset(pick(self.splits[name].strata, [k] * self._strata, seed))
            for name, k in each.items()
        }
        return replace(self, splits={**self.splits, **reduced})

    def limit(self, train: int | None = None, val: int | None = None, test: int | None = None, seed: int = 0) -> "Task":
        """The same task with at most so many examples, in the same mix of classes; None leaves a split whole.

        Train keeps at least one example of each class, and so cannot be limited to fewer examples than classes.

        Raises:
            ConfigError: a limit is below 1, or train's is below the number of classes.
        """
        reduced: dict[str, Split] = {}
        for name, most in (("train", train), ("val", val), ("test", test)):
            split = self.splits[name]
            if most is None or most >= len(split):
                continue
            counts: list[int] = torch.bincount(split.strata, minlength=self._strata).tolist()
            needed = sum(n > 0 for n in counts) if name == "train" else 1
            if most < needed:
                raise ConfigError(say(name, f"must be {needed} or more", most))
            reduced[name] = split.subset(pick(split.strata, _shares(counts, most, seed, name == "train"), seed))
        return replace(self, splits={**self.splits, **reduced})

    @classmethod
    def from_arrays(
        cls,
        x: object,
        y: object,
        *,
        classes: Sequence[str] | None = None,
        val: float | int | Pair = 0.1,
        test: float | int | Pair = 0.2,
        name: str = "arrays",
        **options: object,
    ) -> "Task":
        """A task from pictures and labels in memory. They are copied.

        Args:
            x: an array or tensor [N, C, H, W], [N, H, W, C] or [N, H, W], uint8 or floats in [0, 1] with 1 or 3
                channels (one is repeated to three); or a list of pictures, of files even, as `as_samples` takes.
            y: N class numbers or names; or label maps [N, H, W] of class numbers, in which -100 counts for nothing.
            classes: T names, to which numbers in `y` are indices. None: the distinct labels, sorted.
            val: a pair (x, y), or the fraction of `x` to take for validation.
            test: a pair (x, y), or the fraction of `x` to take for the test.
            name: of the task.
            options: `size`, `fit`, `interpolation` and `seed` of `tasks.options.Options`.

        Raises:
            DataError: the arrays are no pictures, or do not fit their labels.
            ConfigError: an option is unknown or out of range.

        >>> import torch
        >>> task = Task.from_arrays(torch.rand(40, 3, 8, 8), ["cat", "dog"] * 20)
        >>> task
        Task(arrays: 2 classes, 3 x 8 x 8, train 28, val 4, test 8)
        """
        pairs: dict[str, Pair] = {"train": (x, y)}
        for split, given in (("val", val), ("test", test)):
            if isinstance(given, tuple):
                pairs[split] = given
            else:
                options[split] = given
        build = build_maps if are_maps(y) else build_arrays
        return cls(*announce(build(name, pairs, classes, Options.of(options))))

    @classmethod
    def from_texts(  # noqa: PLR0913 (as many as from_arrays)
        cls,
        texts: object,
        labels: object = None,
        *,
        targets: object = None,
        classes: Sequence[str] | None = None,
        val: float | int | Pair = 0.1,
        test: float | int | Pair = 0.2,
        name: str = "texts",
        **options: object,
    ) -> "Task":
        """A task from texts in memory, with a label for each or with a text that is to be written after each.

        Args:
            texts: N strings; N tuples of strings, such as pairs; N mappings of column names to strings; or one mapping
                of column names to N strings. Columns without names are "text" and, for pairs, "text_pair".
            labels: N class numbers or names; None with `targets`.
            targets: N strings.
            classes: T names, to which numbers in `labels` are indices. None: the distinct labels, sorted.
            val: (texts, labels or targets), or the fraction of the texts to take for validation.
            test: the same for the test.
            name: of the task.
            options: `seed`, `on_error` and `memory` of `tasks.options.Options`.

        Raises:
            DataError: something is no text, is blank, or has no label; the message has its row.
            ConfigError: an option is unknown or out of range, or both or neither of labels and targets are given.

        >>> Task.from_texts(["good", "bad", "fine", "poor"] * 10, ["+", "-"] * 20, name="mood")
        Task(mood: 2 classes, text, train 28, val 4, test 8)
        >>> Task.from_texts(["2 + 2", "1 + 2"] * 5, targets=["4", "3"] * 5).few_shot(2).train.counts().tolist()
        [2]
        """
        generates = targets is not None
        if generates == (labels is not None):
            raise ConfigError(say("labels, targets", "must be one or the other", "both" if generates else "neither"))
        given = {"train": Texted(texts, targets if generates else labels)}
        for split, part in (("val", val), ("test", test)):
            if isinstance(part, tuple):
                given[split] = Texted(*part)
            else:
                options[split] = part
        chosen = Options.of({**options, "classes": classes})
        return cls(*announce(build_memory(name, given, generates, chosen)))

    @classmethod
    def from_dataset(
        cls, dataset: object, *, classes: Sequence[str] | None = None, name: str = "dataset", **options: object
    ) -> "Task":
        """A task from a data set of torch or of Hugging Face, or from a mapping of split names to data sets.

        Args:
            dataset: rows are (picture, label) or (text, label), or have a column for each; or it is a mapping of
                column names to columns. Splits it lacks are made, see `load_task`.
            classes: T names. None: those that the data set knows, else the distinct labels, sorted.
            name: of the task.
            options: see `tasks.options.Options`; `image` or `text`, and `label` or `target`, name the columns.

        Raises:
            DataError: a row cannot be used; the message has its number.
            ConfigError: an option is unknown or out of range.
        """
        return cls(*announce(build_dataset(name, dataset, classes, Options.of(options))))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        shape = " x ".join(str(n) for n in self.spec.sample.shape) or "text"
        what = "generation" if self.spec.generates else f"{len(self.classes)} classes"
        what += " a pixel" if self.spec.dense else ""
        return f"Task({self.name}: {what}, {shape}, {sizes})"


def _shares(counts: list[int], most: int, seed: int, at_least_one: bool) -> list[int]:
    """How many of each class make `most` in all."""
    floor = [int(at_least_one and n > 0) for n in counts]
    left = [n - f for n, f in zip(counts, floor, strict=True)]
    rest = allocate(left, most - sum(floor), left, seed)
    return [f + r for f, r in zip(floor, rest, strict=True)]
