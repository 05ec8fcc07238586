"""ALIGN: coupled sets of deep prompts in both towers, matched by transport on the levels of prompts and of tokens.

Wang, Li, Liu, Xu, Chen, Zhang, "Tuning Multi-mode Token-level Prompt Alignment across Modalities", NeurIPS 2023,
arXiv:2309.13847.

Departures: paper and released code disagree about the token level; by default what it costs is added to the cost of a
pair of prompts, as in the paper, and not what it gains (setting `token`). As in the released code the token level acts
on the plan only, so that no gradient flows through it unless `through`. Each problem stops for itself, where
the code stops together those of a picture and class, or of a batch. A linear warm-up of 50 steps takes the place of a
first epoch at a rate of 1e-5; flips and shifted crops that of random resized crops. The variant with conditional
transport is left out.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place, coupled_prompts, or_plot, text_sets, with_classes
from reprogram.outputs import AlignedScores, Transport, texts_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The values of the released configuration.

    Attributes:
        sets: of prompts, in the text tower and, coupled to them, in the image tower (4).
        tokens: of each set at every layer (2).
        depth: J, layers that get their own (9; with 4 sets 3,582,720 numbers on ViT-B/16).
        words: that the first sets start as; the others start at N(0, 0.02^2).
        token: what the token level adds to the cost: "distance" (paper), "similarity" (released code), "none".
        skip: tokens at the end of a class text that the token level leaves out (2: the full stop and the end token).
        layout: what stands around the name.
        epsilon: weight of the plans' entropy, in units of cosines (0.1).
        iterations: of rows and columns in turn, at most (100).
        tolerance: mean change of the row factors at which they stop (0.01); None for all iterations.
        through: let gradients flow through the plans as well (published: no).
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD at 0.0025 with momentum 0.9 and weight decay 5e-4, cosine, 20 epochs in batches of 4.
    """

    sets: int = 4
    tokens: int = 2
    depth: int = 9
    words: tuple[str, ...] = ("a photo of a",)
    token: Literal["distance", "similarity", "none"] = "distance"
    skip: int = 2
    layout: str = "{class}."
    epsilon: float = 0.1
    iterations: int = 100
    tolerance: float | None = 1e-2
    through: bool = False
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.0025, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_steps=50, epochs=20,
        batch_size=4, augment="crop", refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, K sets of deep prompts P and P W``, ``O = transport of K pictures to K texts``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size = source.spec.canvas(config.canvas)
    plan = Transport(
        epsilon=config.epsilon, iterations=config.iterations, tolerance=config.tolerance, through=config.through
    )
    prompts = text_sets(model, config.sets, config.tokens, config.depth, config.words[: config.sets])
    output = AlignedScores(
        texts_for(model, task.classes, [config.layout]), config.sets, token=config.token, skip=config.skip,
        transport=plan, scaled=(model.scale, model.bias),
    )  # fmt: skip
    origin = Origin(method=METHOD.name, config=config, task=task)
    edits = [Place(size, size), *prompts, *coupled_prompts(source, prompts, or_plot(METHOD.name))]
    return Program(edits, source, output, origin=origin)


METHOD = Method(
    name="align",
    summary="coupled sets of deep prompts in both towers, matched by transport of prompts and of tokens",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.EMBEDDING, Location.HIDDEN, Operator.CONCATENATIVE, Operator.PARAMETRIC,
        Alignment.RULE_BASED,
    ),
    paper=Paper(
        title="Tuning Multi-mode Token-level Prompt Alignment across Modalities",
        authors="Dongsheng Wang and Miaoge Li and Xinyang Liu and MingSheng Xu and Bo Chen and Hanwang Zhang",
        year=2023,
        arxiv="2309.13847",
        venue="NeurIPS",
    ),
    config=Config,
    build=build,
    needs=frozenset(
        {Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS, Capability.TOKEN_INSERTION}
    ),
)  # fmt: skip
