"""What adaptation costs (Ye et al. 2025, arXiv 2506.04650, their first figure): accuracy against learned numbers.

One source and one task; full fine-tuning, the last layers, a new head and LoRA change the weights of a copy, and every
method of the catalogue that can be built makes a program. All see the same pictures on the same canvas for the same
number of epochs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from reprogram.catalogue import build, find, methods, setting_names
from reprogram.core.errors import FingerprintError, ReprogramError, say
from reprogram.core.method import Recipe
from reprogram.core.program import Program, learns
from reprogram.core.source import Source
from reprogram.experiments.claims import Row
from reprogram.experiments.efficiency_shown import charts, judge, remarks, sheets
from reprogram.experiments.efficiency_tuning import RANK, Copy, Peak, Tuning, full, last_layers, lora, new_head, tune
from reprogram.experiments.options import Options
from reprogram.experiments.study import Cell, Measure, Study
from reprogram.fit import FitOptions, fit
from reprogram.rank.probe import quick
from reprogram.sources import ModuleSource, load_source
from reprogram.tasks import Task, load_task

SOURCE = "bundled/efficientnet-lite0"
FAILURES = (ReprogramError, RuntimeError, ValueError, OSError)
"""What a method may fail with on a source it was not made for; the row says so."""

WEIGHTS: dict[str, str] = {
    "full fine-tuning": "all numbers of a copy, with a new head",
    "last layers": "the last block and a new head",
    "new head": "a linear layer on the features",
    "LoRA": f"rank {RANK} beside linear and plain convolution layers, and a new head (PEFT)",
}
CONTROLS = ("no_edit", "linear_probe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done."""

    train: int
    val: int
    test: int
    epochs: int


WHOLE = Scale(train=300, val=100, test=300, epochs=5)
QUICK = Scale(train=40, val=20, test=40, epochs=1)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Opened:
    """What all cells share.

    Attributes:
        source: the frozen model.
        task: limited to the scale.
        canvas: pixels of every approach's input.
        epochs: of every fit.
    """

    source: Source
    task: Task
    canvas: int
    epochs: int


@lru_cache(1)
def opened(options: Options) -> Opened:
    """Source and task, loaded once a run."""
    scale = QUICK if options.quick else WHOLE
    source = load_source(options.sources[0] if options.sources else SOURCE)
    canvas = source.spec.canvas(_canvas(options, source))
    task = load_task(options.task)
    if max(task.spec.sample.shape[1:]) > canvas:
        task = load_task(options.task, size=canvas)
    task = task.limit(train=options.train or scale.train, val=scale.val, test=scale.test, seed=0)
    return Opened(source=source, task=task, canvas=canvas, epochs=options.epochs or scale.epochs)


def _canvas(options: Options, source: Source) -> int | None:
    if options.size is None and source.spec.resizable:
        return 32 if options.quick else 64
    return options.size


def cells(options: Options) -> list[Cell]:
    """Every approach, seed by seed; what cannot be built is named once, with the reason."""
    known = opened(options)
    shared = {"canvas": known.canvas, "epochs": known.epochs, "source": known.source.fingerprint(),
              "train": known.task.train.digest(), "val": known.task.val.digest(),
              "test": known.task.test.digest()}  # fmt: skip
    able, unable = list(WEIGHTS), dict[str, str]()
    for card in methods():
        if card.control and card.name not in CONTROLS:
            continue
        try:
            assembled(known, card.name, 0)
        except FAILURES as problem:
            unable[card.name] = " ".join(str(problem).split())
        else:
            able.append(card.name)
    made = [{"name": f"{name}, seed {seed}", "approach": name, "seed": seed, **shared}
            for seed in range(1 if options.quick else options.seeds) for name in able]  # fmt: skip
    return [*made, *({"name": n, "approach": n, "seed": None, "reason": why, **shared} for n, why in unable.items())]


def assembled(known: Opened, name: str, seed: int) -> Program:
    """A method's program on the experiment's canvas: its settings for a laptop, or the paper's where it has none."""
    card = find(name)
    settings: dict[str, Any] = {}
    names = setting_names(card)
    if "canvas" in names and known.source.spec.resizable:
        settings["canvas"] = known.canvas
    if "width" in names and isinstance(getattr(card.config(), "width"), int):  # noqa: B009 (of any config)
        settings["width"] = max(1, known.canvas // 8)
    preset = "cpu" if "cpu" in card.presets else "paper"
    inner = card.presets.get(preset, {}).get("inner")
    if isinstance(inner, int) and inner >= known.canvas:
        settings["inner"] = max(1, round(known.canvas * 4 / 7))
    return build(name, known.source, known.task, preset=preset, seed=seed, **settings)


def bench(options: Options) -> Measure:
    """What measures a cell."""
    known = opened(options)

    def measure(cell: Cell) -> Sequence[Row]:
        name = str(cell["approach"])
        kind = "weights" if name in WEIGHTS else "control" if name in CONTROLS else "program"
        row: dict[str, Any] = {"approach": name, "kind": kind, "seed": cell["seed"]}
        if "reason" in cell:
            return [row | {"reason": cell["reason"], "accuracy": None}]
        before = known.source.fingerprint()
        try:
            found = _weights(known, name, cell["seed"]) if kind == "weights" else _program(known, name, cell["seed"])
        except FAILURES as problem:
            return [row | {"reason": " ".join(str(problem).split()), "accuracy": None}]
        if known.source.fingerprint() != before:
            raise FingerprintError(say("source", "must be bit-identical after a fit", known.source.spec.ref))
        return [row | {"reason": "", **found}]

    return measure


def _weights(known: Opened, name: str, seed: int) -> Mapping[str, Any]:
    source = known.source
    blocks = source._blocks if isinstance(source, ModuleSource) else ()
    rates = {"full fine-tuning": (0.003, 0.0005), "last layers": (0.003, 0.001)}.get(name, (0.005, 0.0))
    tuning = Tuning(lr=rates[0], inner=rates[1], epochs=known.epochs, seed=seed)
    prepare: Callable[[Copy], None] = {"full fine-tuning": full, "new head": new_head, "LoRA": lora}.get(
        name, lambda copy: last_layers(copy, blocks)
    )
    with Peak(source.device) as peak:
        copy = Copy(source, len(known.task.classes), known.canvas, seed)
        everything = sum(p.numel() for p in copy.parameters())
        prepare(copy)
        found = tune(copy, known.task, tuning)
    return {"accuracy": found.accuracy, "val_accuracy": found.val_accuracy, "learned": found.trainable,
            "effective": found.trainable, "fitted": 0, "share": found.trainable / everything,
            "seconds": peak.seconds, "memory": peak.bytes}  # fmt: skip


def _program(known: Opened, name: str, seed: int) -> Mapping[str, Any]:
    with Peak(known.source.device) as peak:
        program = assembled(known, name, seed)
        options = FitOptions(progress=False, device=str(known.source.device), recipe=_recipe(program, known))
        result = fit(program, known.task, seed=seed, options=options)
    count = program.count()
    copy = Copy(known.source, len(known.task.classes), known.canvas, 0)
    everything = sum(p.numel() for p in copy.parameters())
    return {"accuracy": result.test.accuracy if result.test else None,
            "val_accuracy": result.validation.accuracy if result.validation else None,
            "learned": count.allocated, "effective": count.effective, "fitted": count.fitted,
            "share": count.allocated / everything, "seconds": peak.seconds, "memory": peak.bytes}  # fmt: skip


def _recipe(program: Program, known: Opened) -> Recipe:
    """The method's own in the experiment's epochs; where nothing is learned on the input an epoch costs nothing."""
    own = program.origin.recipe if program.origin else Recipe()
    if not learns(program.input):
        return own
    made = quick(own, known.epochs, len(known.task.train))
    return replace(made, batch_size=min(50, made.batch_size))


def protocol(options: Options) -> list[str]:
    """How it was done."""
    known = opened(options)
    rates = "AdamW, cosine, batches of 50, rates 0.003 and 0.0005 (full), 0.003 and 0.001 (last layers), else 0.005"
    return [
        f"Source {known.source.spec.ref}, canvas {known.canvas} px; target {known.task!r}; {known.epochs} epochs of "
        f"every fit, the best of them on validation.",
        *(f"{name}: {what}." for name, what in WEIGHTS.items()),
        f"These train copies: {rates} for head and own numbers, {known.epochs * -(-len(known.task.train) // 50)} steps "
        "in all.",
        "Programs: each method's settings for a laptop (`preset=cpu`) with the canvas above, else the paper's; frames "
        "an eighth of the canvas where they have a width. Where the input learns nothing, the method's own epochs on "
        "outputs that are computed once.",
        "Memory is what the process grew by at the most during a fit (CUDA: what torch allocated), copies included.",
    ]


STUDY = Study(
    name="efficiency",
    title="Accuracy against learned numbers: weights and programs",
    question="Adapting a model by its input and output is said to need two to three orders of magnitude fewer learned "
    "numbers than fine-tuning its weights. Is that so here, and what does it cost in accuracy, time and memory?",
    cells=cells,
    bench=bench,
    judge=judge,
    charts=charts,
    sheets=sheets,
    remarks=remarks,
    protocol=protocol,
    caveats=(
        "A few epochs on few pictures: no approach is at its best, and rates were not searched (`reprogram search`).",
        "Every method has one recipe; an order of two programs here is no verdict on their papers.",
        "The best program is chosen by validation among many, which flatters validation, not test.",
        "Time and memory are of this machine; what else ran on it is in them.",
    ),
    ready=True,
    takes=frozenset({"task", "epochs", "size", "train"}),
)
