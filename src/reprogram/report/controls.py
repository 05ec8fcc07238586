"""What a program must beat: readings of the untouched source, a constant answer, and the same fit on random weights.

All are fitted on the program's own training split. No edit and linear probe see the same picture on the same canvas, or
the same text in the same template, so the source passes over pictures once for both.
"""

import copy
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from reprogram.catalogue import build, find
from reprogram.core.conversation import Conversing
from reprogram.core.errors import ConfigError, ReprogramError
from reprogram.core.method import Recipe
from reprogram.core.program import Edit, Observing, Output, Program, learns
from reprogram.core.result import Parameters
from reprogram.core.source import Capability, ImageTextSource, Source
from reprogram.fit import FitOptions, FitResult, Metrics, fit, measure
from reprogram.fit.metrics import of_pixels
from reprogram.inputs import ClassPrompts, Demonstrations, Place, Template
from reprogram.outputs import Linear, MixtureOfAnswers
from reprogram.sources import LanguageSource, ModuleSource
from reprogram.tasks import Split, Task

_SOFT = re.compile(r"\{\s*soft\s*:[^{}]*\}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Control:
    """One row beside the program's own.

    Attributes:
        name: two or three words.
        description: one sentence: what was done.
        test: metrics; None without a test split, or where the control could not be fitted (the description says why).
        validation: the same on validation.
        parameters: how much was learned or counted.
        seconds: spent on fitting and scoring. Of two controls with the same input, the first pays for the source.
    """

    name: str
    description: str
    test: Metrics | None
    validation: Metrics | None
    parameters: Parameters
    seconds: float


def controls(
    result: FitResult, task: Task, *, full: bool = False, seed: int = 0, options: FitOptions | None = None
) -> list[Control]:
    """Fit the controls of a program on the same data.

    Args:
        result: of the program; a loaded one's comes from `evaluate_result`.
        task: what it was fitted on.
        full: also fit the same method on the source's architecture with random weights, which costs as much as the
            fit itself.
        seed: of the controls' fits and of the random weights.
        options: how to run; by default quietly, where the source is. Each control has its own recipe.

    Returns:
        No edit with the same output, linear probe, majority class, and on request the random source. A program that is
        one of these has no row for itself. Where texts are to be written, there are no classes to probe or to count:
        no edit is the source without its prompt. Of dense tasks no edit is the decoder alone.
    """
    program, source = result.program, result.program.source
    place, text = placed(program, task), task.spec.modality == "text"
    made: list[Control] = []
    run = _Runner(task, seed, _quiet(options, program))
    if place is not None and _manipulates(program) and not any(isinstance(e, Conversing) for e in program.input):
        told = f"{_ENTRIES[text]}, nothing learned on it; an output of the program's kind, fitted anew."
        made.append(run.control("no edit, same output", told, lambda: _no_edit(program, place), _reading(result)))
    reads = Capability.FEATURES in source.capabilities
    one_answer = not task.spec.generates and not task.spec.dense
    if place is not None and reads and one_answer and not _is_probe(program):
        read = _READ[text or isinstance(source, ImageTextSource)]
        told = f"A linear layer learned on the {read} of the untouched source."
        made.append(run.control("linear probe", told, lambda: _probe(program.source, task, place), None))
    if not task.spec.generates:
        made.append(majority(task))
    if full and isinstance(source, (ModuleSource, LanguageSource)):
        told = "The same method and recipe on the source's architecture with random weights."
        made.append(run.control(
            "random source", told, lambda: _rebuilt(program, source.randomised(seed), seed), result.recipe
        ))  # fmt: skip
    return made


def majority(task: Task) -> Control:
    """Always the most frequent class of the training split; its scores are the logarithms of the class frequencies."""
    counts = task.train.counts().double() + 1
    scores = (counts / counts.sum()).log().float()

    def constant(split: Split) -> Metrics | None:
        if split.dense and len(split):
            truth = split.counts()
            confusion = torch.zeros(len(truth), len(truth), dtype=torch.int64)
            confusion[:, int(counts.argmax())] = truth
            return of_pixels(confusion, -float((truth * scores).sum()), scores.expand(len(split), -1))
        return measure(scores.expand(len(split), -1), split.labels) if len(split) else None

    most = task.classes[int(counts.argmax())]
    return Control(
        name="majority class", description=f"Always “{most}”, the most frequent class of the training split.",
        test=constant(task.test), validation=constant(task.val),
        parameters=Parameters(allocated=0, effective=0, fitted=len(counts)), seconds=0.0,
    )  # fmt: skip


_ENTRIES = {False: "The picture scaled to the canvas", True: "The text in the program's template"}
_READ = {False: "class scores", True: "features"}


def placed(program: Program, task: Task) -> Place | Template | None:
    """What the controls see: the picture on the program's canvas, or the text in its template without learned tokens.

    None if there is neither, as in programs made by hand.
    """
    if program.source.spec.modality == "text":
        shown = next((e.template for e in program.input if isinstance(e, Demonstrations)), None)
        found = next((e for e in program.input if isinstance(e, Template)), shown)
        return None if found is None else Template(_SOFT.sub("", found.layout), task.spec.sample.columns)
    if program.source.spec.modality != "image":
        return None
    canvas = next((e.canvas for e in program.input if isinstance(e, Place)), None)
    if canvas is None:  # the program takes the task's pictures at their own size
        height, width = task.spec.sample.height, task.spec.sample.width
        own = program.source.spec.input_shape[-1]
        canvas = height if height == width and (program.source.spec.resizable or height == own) else own
    return Place(canvas, canvas)


@dataclass(frozen=True, slots=True)
class _Runner:
    """Fits one control after another in the same way."""

    task: Task
    seed: int
    options: FitOptions

    def control(self, name: str, description: str, make: Callable[[], Program], recipe: Recipe | None) -> Control:
        """Build, fit and score; a control that cannot be had says so in its row."""
        start = time.perf_counter()
        try:
            program = make()
            done = fit(program, self.task, seed=self.seed, options=replace(self.options, recipe=recipe))
        except ReprogramError as problem:
            failed = f"{description} It could not be fitted: {problem}"
            return Control(name=name, description=failed, test=None, validation=None, parameters=Parameters(0, 0),
                           seconds=time.perf_counter() - start)  # fmt: skip
        return Control(
            name=name,
            description=description,
            test=done.test,
            validation=done.validation,
            parameters=program.count(),
            seconds=time.perf_counter() - start,
        )


def _quiet(options: FitOptions | None, program: Program) -> FitOptions:
    """The caller's options, on the source's device unless they name one, and without files or per-epoch tests."""
    options = options or FitOptions(progress=False)
    device = options.device or str(program.source.device)
    return replace(options, device=device, track_test=False, tensorboard=False)


def _no_edit(program: Program, place: Edit) -> Program:
    return Program([place], program.source, fresh_output(program))


def _probe(source: Source, task: Task, place: Place | Template) -> Program:
    if isinstance(place, Template):
        return build("linear_probe", source, task.spec, template=place.layout)
    return build("linear_probe", source, task.spec, canvas=place.canvas, inner=place.canvas)


def _reading(result: FitResult) -> Recipe:
    """How the program's kind of output is fitted on an input that stays as it is."""
    if not learns(result.program.output):
        return Recipe(refresh="once", epochs=1, batch_size=result.recipe.batch_size)
    groups = tuple(g for g in result.recipe.groups if g.prefix.startswith("output"))
    return replace(result.recipe, refresh="once", augment="none", groups=groups)


def fresh_output(program: Program) -> Output:
    """An output of the same kind and settings as the program's, as if nothing had been fitted yet."""
    try:
        output = _rebuilt(program, program.source, 0).output
    except ConfigError:  # made by hand: no method to ask
        output = _emptied(copy.deepcopy(program.output))
    return output.inner if isinstance(output, MixtureOfAnswers) else output  # there is one answer without its prompts


def _emptied(output: Output) -> Output:
    if isinstance(output, Linear):
        return Linear(output.sources, output.targets, features=output.reads_features)
    if isinstance(output, Observing):
        output.forget()
    return output


def _rebuilt(program: Program, source: Source, seed: int) -> Program:
    """The program's method and settings again, unfitted, on a source.

    Raises:
        ConfigError: no known method made it.
    """
    origin = program.origin
    if origin is None or origin.task is None:
        raise ConfigError("The program was made by hand, so that it cannot be built again.")
    card = find(origin.method)
    if not isinstance(origin.config, card.config):
        raise ConfigError(f"The method `{origin.method}` in the catalogue is another one.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return card.build(source, origin.task, origin.config).to(source.device)


def _manipulates(program: Program) -> bool:
    return any(edit.operators and not isinstance(edit, ClassPrompts) for edit in program.input)


def _is_probe(program: Program) -> bool:
    features = program.source.spec.modality == "text" or isinstance(program.source, ImageTextSource)
    output = program.output
    return not _manipulates(program) and isinstance(output, Linear) and output.reads_features == features
