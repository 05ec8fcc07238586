"""The rows of a report's plain tables: size and speed, the data, the choice of the epoch, how to do it again."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, NamedTuple

import torch

from reprogram._version import __version__
from reprogram.core.method import Recipe
from reprogram.core.program import learns
from reprogram.fit import FitResult
from reprogram.fit.result import START
from reprogram.report.words import percent, thing
from reprogram.sources import ModuleSource
from reprogram.tasks import Task


class Fact(NamedTuple):
    """A row: what it is, its value, and half a sentence that explains it."""

    label: str
    value: str
    note: str = ""


class Choice(NamedTuple):
    """An epoch that could have been taken, with its accuracies."""

    label: str
    epoch: str
    validation: str
    test: str
    taken: bool


def size(result: FitResult) -> list[Fact]:
    """How big the program is, beside its source."""
    program = result.program
    count = program.count()
    rows = [
        Fact("Learned numbers", f"{count.allocated:,}", "by gradient, allocated"),
        Fact("of these effective", f"{count.effective:,}", "can reach the output"),
        Fact("Fitted numbers", f"{count.fitted:,}", "counted or measured, without gradients"),
        Fact("Program", data_size(program_bytes(result)), _where(result)),
    ]
    source = program.source
    if isinstance(source, ModuleSource):
        theirs = sum(p.numel() for p in source.module.parameters())
        share = 100 * count.allocated / max(1, theirs)
        shown = f"{share:.2f}" if share >= 0.1 or not share else f"{share:.2g}"
        rows += [
            Fact("Source parameters", f"{theirs:,}", "frozen, shared by all its programs"),
            Fact("Learned share", f"{shown} %", "learned numbers of source parameters"),
        ]
    return rows


def speed(result: FitResult, task: Task) -> list[Fact]:
    """How long it took; nothing where that is not known."""
    rows: list[Fact] = []
    what = f"{thing(task)}s"
    if result.seconds > 0:
        rows.append(Fact("Fit", duration(result.seconds), "all epochs, scoring after each included"))
        if result.history:
            each = result.seconds / len(result.history)
            rows.append(Fact("An epoch", duration(each), f"{len(task.train):,} training {what} and the scoring"))
            if "loss" in result.history[-1]:
                rate = len(task.train) / each
                rows.append(Fact("Training", f"{rate:,.0f} /s", f"{what} a second, scoring included"))
    if result.test is not None and result.test.seconds > 0:
        rate = len(result.test) / result.test.seconds
        note = f"test {what} a second" + ("" if learns(result.program.input) else ", from outputs kept in memory")
        rows.append(Fact("Prediction", f"{rate:,.0f} /s", note))
    return rows


def data(task: Task) -> list[Fact]:
    """What the task holds."""
    classes = [] if task.spec.generates else [Fact("Classes", f"{len(task.classes):,}")]
    rows = [*classes, *_examples(task)]
    for name, split in task.splits.items():
        counts = split.counts()
        low, high = int(counts.min()), int(counts.max())
        spread = f"{low:,} a class" if low == high else f"{low:,} to {high:,} a class"
        note = ("" if task.spec.generates else spread) if len(split) else "there is none"
        rows.append(Fact(name.capitalize(), f"{len(split):,}", note))
    return rows


def _examples(task: Task) -> list[Fact]:
    """The shape of pictures; columns and lengths of texts."""
    lengths = task.train.lengths()
    if lengths is None:
        shape = " x ".join(str(n) for n in task.spec.sample.shape)
        return [Fact("Picture", shape, "channels x height x width")]
    note = "characters in training, target included" if task.spec.generates else "characters in training"
    low, middle, high = int(lengths.min()), int(lengths.median()), int(lengths.max())
    return [
        Fact("Columns", ", ".join(task.spec.sample.columns)),
        Fact("Length", f"{middle:,}", f"{note}, the median; {low:,} to {high:,}"),
    ]


def choices(result: FitResult, has_validation: bool) -> list[Choice]:
    """The epoch that was taken, the last one, and the best on test where every epoch was scored on it."""
    rows = {row["epoch"]: row for row in result.history}
    if len(rows) < 2:
        return []
    if result.best_epoch == START and result.validation is not None:
        rows[START] = {"val_accuracy": result.validation.accuracy}
    last = max(rows)
    why = "Selected: best on validation" if has_validation else "Selected: the last one, for want of validation data"
    made = [_choice(why, result.best_epoch, rows, result.test.accuracy if result.test else None, True)]
    if last != result.best_epoch:
        made.append(_choice("Last", last, rows, result.last_test.accuracy if result.last_test else None, False))
    tracked = [epoch for epoch, row in rows.items() if "test_accuracy" in row]
    if tracked:
        best = max(tracked, key=lambda epoch: rows[epoch]["test_accuracy"])
        made.append(_choice("Best on test (known only afterwards, not used)", best, rows, None, False))
    return made


def _choice(label: str, epoch: int, rows: Mapping[int, Mapping[str, Any]], test: float | None, taken: bool) -> Choice:
    row = rows.get(epoch, {})
    test = row.get("test_accuracy") if test is None else test
    shown = [percent(v) if v is not None else "–" for v in (row.get("val_accuracy"), test)]
    return Choice(label, "start" if epoch == START else str(epoch + 1), shown[0], shown[1], taken)


def recipe(value: Recipe) -> list[Fact]:
    """Every field of a recipe."""
    return [Fact(f.name, plain(getattr(value, f.name))) for f in fields(value)]


def plain(value: object) -> str:
    """A setting as YAML would write it."""
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return "[" + ", ".join(plain(v) for v in value) + "]"
    if is_dataclass(value) and not isinstance(value, type):
        return "{" + ", ".join(f"{k}: {plain(v)}" for k, v in asdict(value).items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def versions() -> list[Fact]:
    """What ran."""
    return [
        Fact("reprogram", __version__),
        Fact("torch", torch.__version__),
        Fact("Python", platform.python_version()),
        Fact("system", f"{platform.system()} {platform.machine()}"),
    ]


def api_lines(result: FitResult, task: Task) -> str:
    """Python lines that do it again, as far as names can say it."""
    program, origin = result.program, result.program.origin
    ref = program.source.spec.ref
    known = not ref.startswith("module:") and "@" not in ref
    source = f"rp.load_source({ref!r})" if known else f"rp.wrap(module, ...)  # {ref}, a model in memory"
    lines = ["import reprogram as rp", f"source = {source}", f"task = rp.load_task(...)  # {task.name!r}"]
    if origin is None:
        lines.append("program = rp.Program(edits, source, output)  # made by hand")
    else:
        settings = "".join(f", {text}" for text in _settings(origin.config, result.recipe))
        lines.append(f"program = rp.build({origin.method!r}, source, task{settings})")
    lines.append(f"result = rp.fit(program, task, seed={result.seed})")
    return "\n".join(lines)


def _settings(config: object, done: Recipe) -> list[str]:
    """Settings that are not the method's defaults; nested ones by their short names."""
    if not is_dataclass(config) or isinstance(config, type):
        return []
    default = type(config)()
    own = [(f.name, getattr(config, f.name), getattr(default, f.name)) for f in fields(config) if f.name != "recipe"]
    theirs = getattr(default, "recipe", Recipe())
    own += [(f.name, getattr(done, f.name), getattr(theirs, f.name)) for f in fields(done) if f.name != "groups"]
    return [f"{name}={value!r}" for name, value, usual in own if value != usual]


def program_bytes(result: FitResult) -> int:
    """Size of the file, or of the numbers where there is none."""
    if result.out is not None and result.out.is_file():
        return result.out.stat().st_size
    return sum(t.numel() * t.element_size() for t in result.program.state_dict().values())


def _where(result: FitResult) -> str:
    there = result.out is not None and result.out.is_file()
    return f"the file {result.out.name}" if there and result.out else "its numbers; it has not been saved"


def data_size(count: int) -> str:
    """Bytes for people.

    >>> data_size(812), data_size(45_300), data_size(1_310_000)
    ('812 bytes', '45.3 kB', '1.3 MB')
    """
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(0.0312), duration(42), duration(4000)
    ('0.031 s', '42.0 s', '1 h 7 min')
    """
    if seconds < 1:
        return f"{seconds:.3f} s" if seconds else "0 s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
