"""PLOT++: several learned contexts and several learned sets of image tokens, matched by optimal transport.

Chen, Yao, Song, Li, Rao, Zhang, "PLOT: Prompt Learning with Optimal Transport for Vision-Language Models", ICLR 2023,
arXiv:2210.01253, and the repository's README, which describes this version for vision transformers.

Departures: one stage, in which both sides learn together, where the released scripts first learn the image side alone
(with the pooled scores added) and go on from there. Each picture and class stop their transport for themselves, where
the released code stops a batch together. A linear warm-up of 50 steps takes the place of a first epoch at a rate of
1e-5; flips and shifted crops that of random resized crops.
"""

from dataclasses import dataclass

import torch

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place, PromptMixture, TrailingTokens, image_width, or_plot, set_starts, with_classes
from reprogram.inputs.contexts import SITE
from reprogram.outputs import Transport, TransportScores, texts_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The values of the released scripts.

    Attributes:
        sets: N contexts at the text side (4).
        tokens: learned words of each (4).
        words: that they start as (the script's words for Caltech101, ImageNet, Cars and SUN397).
        pictures: M sets at the image side (4), with one vector of the picture each.
        picture_tokens: learned tokens of each (2; with the above 4 * 4 * 512 + 4 * 2 * 768 = 14,336 numbers on
            ViT-B/16).
        layout: what stands around the name.
        pooled: add the cosine of the means (on in the released first stage, off in the second).
        epsilon: weight of the plan's entropy, in units of cosines (0.1).
        iterations: of rows and columns in turn, at most (100).
        tolerance: mean change of the row factors at which they stop (0.01); None for all iterations.
        through: let gradients flow through the plan as well (published: no).
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD at 0.002 with momentum 0.9 and weight decay 5e-4, cosine, 50 epochs in batches of 32.
    """

    sets: int = 4
    tokens: int = 4
    words: tuple[str, ...] = ("a photo of a", "this is a photo", "this is picture of", "one picture of a")
    pictures: int = 4
    picture_tokens: int = 2
    layout: str = "{class}."
    pooled: bool = False
    epsilon: float = 0.1
    iterations: int = 100
    tolerance: float | None = 1e-2
    through: bool = False
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.002, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_steps=50, epochs=50,
        batch_size=32, augment="crop", refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [P_k; class text], [patches; V_m] for all k and m``, ``O = transport of M pictures to N texts``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    width = image_width(source, or_plot(METHOD.name))
    size = source.spec.canvas(config.canvas)
    plan = Transport(
        epsilon=config.epsilon, iterations=config.iterations, tolerance=config.tolerance, through=config.through
    )
    texts = PromptMixture(set_starts(model, config.sets, config.tokens, config.words[: config.sets]), site=SITE)
    pictures = TrailingTokens(torch.randn(config.pictures, config.picture_tokens, width) * 0.02)
    output = TransportScores(
        texts_for(model, task.classes, [config.layout]), config.sets, pictures=config.pictures,
        transport=plan, pooled=config.pooled, scaled=(model.scale, model.bias),
    )  # fmt: skip
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), texts, pictures], source, output, origin=origin)


METHOD = Method(
    name="plot_pp",
    summary="several learned contexts and several sets of image tokens, matched by optimal transport",
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
    needs=frozenset(
        {Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS, Capability.TOKEN_INSERTION}
    ),
)
