"""Visual prompting: a learned frame or patch of pixels over the image, and the first T source classes.

Bahng, Jahanian, Sankaranarayanan, Isola, "Exploring Visual Prompts for Adapting Large-Scale Models", 2022,
arXiv:2203.17274. This file is the paper's form for vision models; with text encoders the classes are texts.

Departures: a random patch sits in the middle when predicting, so that predictions repeat.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Additive, Patch, Place, frame_mask
from reprogram.outputs import FirstClasses


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's defaults (section 4: a frame of 30 pixels at 224, SGD at 40).

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        prompt: a frame along the edge, a patch in the corner, or one at a new place for every batch.
        width: pixels of the frame, or side of the patch.
        recipe: SGD with momentum, 1,000 warm-up steps, cosine per step.
    """

    canvas: int | None = None
    prompt: Literal["frame", "fixed_patch", "random_patch"] = "frame"
    width: int = 30
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=40.0, momentum=0.9, schedule="cosine", warmup_steps=1000, epochs=1000, batch_size=128
    )


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, frame or patch after normalisation``, ``O = first T classes``."""
    size = source.spec.canvas(config.canvas)
    channels = task.sample.shape[0]
    pattern: Edit
    if config.prompt == "frame":
        mask = frame_mask(size, config.width)
        pattern = Additive(mask, channels=channels, init="normal", site="normalised")
    else:
        where = "random" if config.prompt == "random_patch" else "top_left"
        pattern = Patch(size, config.width, where=where, channels=channels)
    output = FirstClasses(source.spec.outputs, len(task.classes))
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), pattern], source, output, origin=origin)


METHOD = Method(
    name="vp",
    summary="a learned frame or patch over the image; the first T source classes",
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
            "canvas": 128,
            "width": 16,
            "recipe.optimizer": "adam",
            "recipe.lr": 0.05,
            "recipe.warmup_steps": 0,
            "recipe.epochs": 6,
            "recipe.batch_size": 50,
        }
    },
    needs=frozenset({Capability.GRADIENTS}),
    paper_tags="alignment: statistical in the survey's list",
)
