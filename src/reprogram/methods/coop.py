"""CoOp: learned words around the class names of a frozen image-text model.

Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134.

Departures: pictures are looked at once, so the random crops of the paper are `recipe.views` kept views of each picture
and not fresh ones at every step; in place of a first epoch at a constant rate of 1e-5, a linear warm-up of 50 steps.
The text tower runs on the longest class text, which for CLIP gives the same numbers as all 77 places.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import ClassContexts, Place, SoftPrompt, context_layout, context_start, with_classes
from reprogram.inputs.contexts import SITE
from reprogram.outputs import ClassScores, texts_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's values for 16 and 8 shots (section 4.1, and the released configuration).

    Attributes:
        tokens: M learned words (16; the released configurations also have 4).
        words: that they start as, such as "a photo of a"; None for N(0, 0.02^2).
        sharing: "unified", one context for all classes, or "class" for one each.
        position: of the class name: "end", "middle" or "front".
        layout: what stands around the name.
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD at 0.002 with momentum 0.9 and weight decay 5e-4, cosine, 200 epochs in batches of 32 (100 epochs at
            4 and 2 shots, 50 at 1).
    """

    tokens: int = 16
    words: str | None = None
    sharing: Literal["unified", "class"] = "unified"
    position: Literal["end", "middle", "front"] = "end"
    layout: str = "{class}."
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.002, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_steps=50, epochs=200,
        batch_size=32, augment="crop", views=4, refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [P; class text]``, ``O = the closest class text``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size = source.spec.canvas(config.canvas)
    layout, where = context_layout(config.tokens, config.position, config.layout)
    texts = texts_for(model, task.classes, [layout])
    start = context_start(model, config.tokens, config.words)
    if config.sharing == "class":
        rows = [start if config.words else context_start(model, config.tokens) for _ in task.classes]
        edit: Edit = ClassContexts(torch.stack(rows), where=where)
    else:
        edit = SoftPrompt(start, where=where, site=SITE)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), edit], source, ClassScores(texts), origin=origin)


METHOD = Method(
    name="coop",
    summary="learned words around the class names of a frozen image-text model",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Learning to Prompt for Vision-Language Models",
        authors="Kaiyang Zhou and Jingkang Yang and Chen Change Loy and Ziwei Liu",
        year=2022,
        arxiv="2109.01134",
        venue="IJCV",
    ),
    config=Config,
    build=build,
    presets={
        "few": {"tokens": 4, "words": "a photo of a", "recipe.epochs": 100},
        "cpu": {
            "tokens": 4, "words": "a photo of a", "layout": "{class}", "recipe.optimizer": "adam", "recipe.lr": 2e-3,
            "recipe.weight_decay": 0.0, "recipe.epochs": 30, "recipe.batch_size": 100, "recipe.warmup_steps": 0,
        },
    },
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS}),
)  # fmt: skip
