"""TVP: a learned frame that keeps the picture's vector near to what it was, in steps along the normalised gradient.

Zhang, Dong, Zhang, Min, Su, Zhu, "Exploring the Transferability of Visual Prompting for Multimodal Large Language
Models", CVPR 2024, arXiv:2404.11207.

Departures: published for language models that answer questions about pictures; here the class texts of an image-text
source are the answers, and that source is also the one whose text similarity is part of the loss. The picture's vectors
are of length 1, and those to stay near to are of the picture on the same canvas without its frame. On another canvas
than 224 pixels the frame keeps its share of it.
"""

from dataclasses import dataclass

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import in_proportion, padded, with_classes
from reprogram.outputs import ConsistentScores, texts_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The released code's values.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        width: pixels of the frame on each side, the picture gets what is left; None for 30 of 224 (69,840 numbers).
        template: the class text, with `{class}` or `{a class}`.
        consistency: lambda_1, weight of the distance between the picture's vector with the frame and without.
        similarity: lambda_2, weight of the score of the true class's text.
        recipe: steps of length 10 along the gradient, one epoch in batches of 16.
    """

    canvas: int | None = None
    width: int | None = None
    template: str = "this is a photo of a {class}"
    consistency: float = 0.005
    similarity: float = 0.001
    recipe: Recipe = Recipe(optimizer="normalised", lr=10.0, epochs=1, batch_size=16)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = shrink, frame``, ``O = the closest class text``.

    Raises:
        ConfigError: the frame leaves no pixel of the picture.
    """
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size = source.spec.canvas(config.canvas)
    width = in_proportion(30, size) if config.width is None else config.width
    if width < 1 or size <= 2 * width:
        raise ConfigError(say("width", f"must be at least 1 and leave a pixel of {size}", width))
    edits = padded(source.spec, task, canvas=size, inner=size - 2 * width, squash="none")
    output = ConsistentScores(
        texts_for(model, task.classes, [config.template]), consistency=config.consistency, similarity=config.similarity
    )
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program(edits, source, output, origin=origin)


METHOD = Method(
    name="tvp",
    summary="a learned frame that keeps the picture's vector near, fitted along the normalised gradient",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Exploring the Transferability of Visual Prompting for Multimodal Large Language Models",
        authors="Yichi Zhang and Yinpeng Dong and Siyuan Zhang and Tianzan Min and Hang Su and Jun Zhu",
        year=2024,
        arxiv="2404.11207",
        venue="CVPR",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"recipe.lr": 2.0, "recipe.epochs": 3, "recipe.schedule": "cosine", "recipe.batch_size": 50}},
    needs=frozenset({Capability.GRADIENTS, Capability.CLASS_TEXTS}),
)
