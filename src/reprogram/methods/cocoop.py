"""CoCoOp: learned words before the class names of a frozen image-text model, shifted by what each picture shows.

Zhou, Yang, Loy, Liu, "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, arXiv:2203.05557.

Departures: pictures are looked at once, so the random crops of the paper are `recipe.views` kept views of each picture
and not fresh ones at every step; in place of a first epoch at a constant rate of 1e-5, a linear warm-up of 50 steps;
float32 in place of half precision. Every class text is still read once for each picture: a batch of B pictures and T
classes is B T texts, so batches are small.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import ConditionedContext, Place, context_start, with_classes
from reprogram.outputs import ClassScores, texts_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's values (section 4, and the released configuration).

    Attributes:
        tokens: M learned words.
        words: that they start as; None for N(0, 0.02^2).
        hidden: units of the network that makes the shift; None for a sixteenth of the pictures' vectors.
        layout: of the class texts, after the learned words.
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD at 0.002 with momentum 0.9 and weight decay 5e-4, cosine, 10 epochs of one picture a step.
    """

    tokens: int = 4
    words: str | None = "a photo of a"
    hidden: int | None = None
    layout: str = "{class}."
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.002, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_steps=50, epochs=10,
        batch_size=1, augment="crop", views=4, refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [P + g(v); class text]``, ``O = the closest class text``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size = source.spec.canvas(config.canvas)
    texts = texts_for(model, task.classes, [config.layout])
    start = context_start(model, config.tokens, config.words)
    context = ConditionedContext(start, source.spec.width or start.shape[1], hidden=config.hidden)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), context], source, ClassScores(texts), origin=origin)


METHOD = Method(
    name="cocoop",
    summary="learned words before the class names of a frozen image-text model, shifted by a network for each picture",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Operator.PARAMETRIC, Alignment.RULE_BASED
    ),
    paper=Paper(
        title="Conditional Prompt Learning for Vision-Language Models",
        authors="Kaiyang Zhou and Jingkang Yang and Chen Change Loy and Ziwei Liu",
        year=2022,
        arxiv="2203.05557",
        venue="CVPR",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {
            "layout": "{class}", "recipe.optimizer": "adam", "recipe.lr": 2e-3, "recipe.weight_decay": 0.0,
            "recipe.epochs": 5, "recipe.batch_size": 10, "recipe.warmup_steps": 0,
        },
    },
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS}),
)  # fmt: skip
