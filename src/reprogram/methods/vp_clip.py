"""Visual prompting on an image-text source: a learned frame or patch of pixels, and the class whose text is closest.

Bahng, Jahanian, Sankaranarayanan, Isola, "Exploring Visual Prompts for Adapting Large-Scale Models", 2022,
arXiv:2203.17274. The paper's form for CLIP; `vp` is that for plain classifiers.

Departures: a random patch sits in the middle when predicting, so that predictions repeat; the class texts, which
nothing changes, are encoded once and not at every step; on another canvas than 224 pixels the frame keeps its share of
it.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Additive, Init, Patch, Place, frame_mask, in_proportion, with_classes
from reprogram.outputs import ClassScores, texts_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's values (section 4, and its code for CLIP).

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        prompt: a frame along the edge, a patch in the corner, or one at a new place for every batch.
        width: pixels of the frame, or side of the patch; None for 30 of 224 (69,840 numbers of a frame).
        start: of a frame, "normal" (N(0, 1), as published) or "zeros", which begins at what the source says unedited;
            a patch takes the place of what is under it, and always starts from noise.
        template: the class text, with `{class}` or `{a class}`.
        recipe: SGD at 40 with momentum 0.9, 1,000 warm-up steps, cosine per step, 1,000 epochs in batches of 256.
    """

    canvas: int | None = None
    prompt: Literal["frame", "fixed_patch", "random_patch"] = "frame"
    width: int | None = None
    start: Init = "normal"
    template: str = "This is a photo of a {class}"
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=40.0, momentum=0.9, schedule="cosine", warmup_steps=1000, epochs=1000, batch_size=256
    )


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, frame or patch after normalisation``, ``O = the closest class text``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size, channels = source.spec.canvas(config.canvas), task.sample.shape[0]
    width = in_proportion(30, size) if config.width is None else config.width
    pattern: Edit
    if config.prompt == "frame":
        pattern = Additive(frame_mask(size, width), channels=channels, init=config.start, site="normalised")
    else:
        where = "random" if config.prompt == "random_patch" else "top_left"
        pattern = Patch(size, width, where=where, channels=channels)
    output = ClassScores(texts_for(model, task.classes, [config.template]))
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), pattern], source, output, origin=origin)


METHOD = Method(
    name="vp_clip",
    summary="a learned frame or patch over the image; the closest class text of an image-text model",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Exploring Visual Prompts for Adapting Large-Scale Models",
        authors="Hyojin Bahng and Ali Jahanian and Swami Sankaranarayanan and Phillip Isola",
        year=2022,
        arxiv="2203.17274",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {
            "recipe.optimizer": "adam", "recipe.lr": 0.03, "recipe.warmup_steps": 0, "recipe.epochs": 10,
            "recipe.batch_size": 50,
        }
    },
    needs=frozenset({Capability.GRADIENTS, Capability.CLASS_TEXTS}),
    paper_tags="alignment: statistical in the survey's list",
)  # fmt: skip
