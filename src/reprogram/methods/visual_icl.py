"""Visual in-context learning: a question stands in a grid beside an example and its answer.

Bar et al., "Visual Prompting via Image Inpainting", 2022, arXiv:2209.00647 (grids); Zhang, Zhou, Liu, "What Makes Good
Examples for Visual In-Context Learning?", 2023, arXiv:2301.13670 (choice of the example).

Departures from the papers: the task is to classify, so an example's answer is a card in its class's colour. A source
that reads pictures and text is asked what the missing answer is, once for each example and layout, and its answers are
counted; only a source of pictures whose scores are a painted picture of the grid (3 * P * P numbers) is read as in the
papers, by the colours of the empty quarter, and that with one example and one layout. Examples are chosen out of a few
that are kept with the program. Supervised choice trains its head on these, with agreement of classes as the gain in
place of results measured in context (for those: `inputs.grids.measured` and `contrastive_head`).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Input, Program
from reprogram.core.source import Capability, Reading, Source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.grids import cell_of, corner_of, layout_of, picture_of, picture_text, square
from reprogram.inputs.grids_edits import Examples, Features, GridCanvas, GridQuestions, Select
from reprogram.inputs.showing import Showing
from reprogram.outputs.marked import NamedAnswer, QuadrantColours
from reprogram.sources import load_source

ROOM = 700_000
"""Letters that the examples of a program may take in its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        select: "nearest" (UnsupPR), "supervised" (SupPR) or "random".
        features: a bundled image source whose features are compared, such as "bundled/efficientnet-lite0" (the paper
            has CLIP ViT-L/14); None for mean colours of 8 x 8 squares, which need no model. Others can be handed to
            `inputs.grids_edits.Examples`; here they cannot be named, for settings come with program files.
        pool: examples kept with the program, as evenly over the classes as can be.
        shots: examples to a question, each in a grid of its own (top-1 in the paper).
        layouts: names of `inputs.grids.LAYOUTS`; ("rows", "columns") is the ensemble of the paper's two.
        canvas: pixels of the grid's side (224); of a source that paints, its own.
        tokens: to be written at most, for each grid.
        recipe: nothing is learned.
    """

    select: Select = "nearest"
    features: str | None = None
    pool: int = 32
    shots: int = 1
    layouts: tuple[str, ...] = ("rows",)
    canvas: int = 224
    tokens: int = 32
    recipe: Recipe = Recipe(epochs=1)


def context(source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int) -> list[Example]:
    """Examples drawn at random, class by class in turn, no larger than a quarter of the grid.

    Raises:
        ConfigError: they are too large for a program file.
    """
    quota = -(-config.pool // len(task.classes))
    found: dict[str, list[Example]] = {name: [] for name in task.classes}
    for number in random.Random(seed).sample(range(len(pool)), len(pool)):
        one = pool[number]
        if len(found[one.answer]) < quota:
            found[one.answer].append(
                Example((picture_text(picture_of(one.texts[0]), cell_of(config.canvas)),), one.answer)
            )
        if all(len(several) == quota for several in found.values()):
            break
    turns = [several[k] for k in range(quota) for several in found.values() if k < len(several)]
    chosen = turns[: config.pool]
    size = sum(len(one.texts[0]) for one in chosen)
    if size > ROOM:
        raise ConfigError(say("pool", f"must take {ROOM} letters in a program file at most", size, "Take fewer."))
    return chosen


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = grids``, ``O = the class named, or the colours painted``."""
    paints = source.spec.modality == "image"
    canvas = source.spec.input_shape[-1] if paints else config.canvas
    pictures = [picture_of(one.texts[0]) for one in task.context]
    examples = Examples(pictures, [one.answer for one in task.context], task.classes, canvas,
                        select=config.select, features=_features(config.features))  # fmt: skip
    origin = Origin(method=METHOD.name, config=config, task=task)
    if paints:
        layout = _painted(source, config, canvas)
        corner = corner_of(layout_of(layout).empty, canvas)
        output = QuadrantColours(examples.colours, canvas, corner, cell_of(canvas))
        return Program([GridCanvas(examples, layout)], source, output, origin=origin)
    missing = {Capability.GENERATION, Capability.PICTURES} - source.capabilities
    if missing:
        raise CapabilityError(
            say("source", f"must offer {' and '.join(sorted(missing))} for {METHOD.name}", source.spec.ref)
        )
    writing = Writing(tokens=config.tokens)
    questions = GridQuestions(examples, shots=config.shots, layouts=config.layouts, writing=writing)
    edits = [Showing("", cell_of(canvas)), questions]
    return Program(edits, source, NamedAnswer(task.classes, writing, lines=True), origin=origin)


def _painted(source: Source, config: Config, canvas: int) -> str:
    """The one layout for a source that paints."""
    if source.spec.outputs != 3 * canvas * canvas:
        need = "must give a picture of its own size as 3 * P * P scores, or read pictures and text"
        raise CapabilityError(say("source", need, f"{source.spec.ref} with {source.spec.outputs} scores"))
    if len(config.layouts) != 1 or config.shots != 1:
        got = (config.shots, config.layouts)
        raise ConfigError(say("shots, layouts", "must be one each for a source that paints", got))
    return config.layouts[0]


def _features(ref: str | None) -> Features | None:
    if ref is None:
        return None
    if not ref.startswith("bundled/"):
        raise ConfigError(say("features", "must be a bundled source, or none", ref))
    source = load_source(ref)
    if source.spec.modality != "image" or Capability.FEATURES not in source.capabilities:
        raise CapabilityError(say("features", "must name an image source that gives features", ref))
    reading, side = Reading(features=True), source.spec.canvas()
    source.attach([], reading)

    @torch.no_grad()
    def see(pictures: Sequence[Tensor]) -> Tensor:
        squares = torch.stack([square(picture, side) for picture in pictures]).to(source.device)
        said = source(squares, Input(), reading).features
        assert said is not None
        return said.float().cpu()

    return see


METHOD = Method(
    name="visual_icl",
    summary="a question stands in a grid beside an example and its answer",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="What Makes Good Examples for Visual In-Context Learning?",
        authors="Yuanhan Zhang and Kaiyang Zhou and Ziwei Liu",
        year=2023, arxiv="2301.13670",
    ),
    config=Config,
    build=build,
    context=context,
)  # fmt: skip
