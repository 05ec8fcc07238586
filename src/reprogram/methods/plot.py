"""PLOT: several learned contexts a class, matched with a picture's parts by optimal transport.

Chen, Yao, Song, Li, Rao, Zhang, "PLOT: Prompt Learning with Optimal Transport for Vision-Language Models", ICLR 2023,
arXiv:2210.01253.

Departures: each picture and class stop their transport for themselves, where the released code stops all of a batch
together, by their mean, so that a picture's score does not depend on its neighbours. Pictures and their parts are
looked at once, with `recipe.views` kept views of each in place of fresh crops. The means of `pooled` are of vectors of
length one. A linear warm-up of 50 steps takes the place of a first epoch at a rate of 1e-5.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place, PromptMixture, context_layout, set_starts, with_classes
from reprogram.inputs.contexts import SITE
from reprogram.outputs import Transport, TransportScores, texts_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's values (section 4.1, and the released configuration).

    Attributes:
        sets: N contexts (4).
        tokens: learned words of each (16; 4 * 16 * 512 = 32,768 numbers on CLIP's ResNet-50).
        words: that the first sets start as; the others start at N(0, 0.02^2), as all do by default.
        position: of the class name: "end", "middle" or "front".
        layout: what stands around the name.
        pooled: add the cosine of the whole picture with the mean of the contexts (the paper does on ImageNet).
        epsilon: weight of the plan's entropy, in units of cosines (0.1).
        iterations: of rows and columns in turn, at most (100).
        tolerance: mean change of the row factors at which they stop (0.01); None for all iterations.
        through: let gradients flow through the plan as well (published: no).
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD at 0.002 with momentum 0.9 and weight decay 5e-4, cosine, 50 epochs in batches of 128.
    """

    sets: int = 4
    tokens: int = 16
    words: tuple[str, ...] = ()
    position: Literal["end", "middle", "front"] = "end"
    layout: str = "{class}."
    pooled: bool = False
    epsilon: float = 0.1
    iterations: int = 100
    tolerance: float | None = 1e-2
    through: bool = False
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.002, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_steps=50, epochs=50,
        batch_size=128, augment="crop", views=4, refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [P_k; class text] for all k``, ``O = transport of the picture's parts to the N texts``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size = source.spec.canvas(config.canvas)
    plan = Transport(
        epsilon=config.epsilon, iterations=config.iterations, tolerance=config.tolerance, through=config.through
    )
    layout, where = context_layout(config.tokens, config.position, config.layout)
    edit = PromptMixture(set_starts(model, config.sets, config.tokens, config.words), where=where, site=SITE)
    output = TransportScores(
        texts_for(model, task.classes, [layout]), config.sets, transport=plan, pooled=config.pooled,
        scaled=(model.scale, model.bias),
    )  # fmt: skip
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), edit], source, output, origin=origin)


METHOD = Method(
    name="plot",
    summary="several learned contexts a class, matched with a picture's parts by optimal transport",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="PLOT: Prompt Learning with Optimal Transport for Vision-Language Models",
        authors="Guangyi Chen and Weiran Yao and Xiangchen Song and Xinyue Li and Yongming Rao and Kun Zhang",
        year=2023,
        arxiv="2210.01253",
        venue="ICLR",
    ),
    config=Config,
    build=build,
    presets={
        "few": {"tokens": 4, "words": ("a photo of a",)},
        "cpu": {
            "tokens": 4, "words": ("a photo of a",), "layout": "{class}", "recipe.optimizer": "adam",
            "recipe.lr": 2e-3, "recipe.weight_decay": 0.0, "recipe.epochs": 20, "recipe.batch_size": 100,
            "recipe.warmup_steps": 0,
        },
    },
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS}),
)  # fmt: skip
