"""Adversarial reprogramming: a learned frame makes an ImageNet classifier answer with its first T classes.

Elsayed, Goodfellow, Sohl-Dickstein, "Adversarial Reprogramming of Neural Networks", ICLR 2019, arXiv:1806.11146.

Departures: the paper adds tanh(W * M) in a pixel range of [-1, 1]; in our range of [0, 1] the same frame is a sigmoid
of 2W, so W here is twice the paper's. The public code masks before it squashes, which also lights up the image
(`squash_hole=True`), and uses binary cross-entropy; we take the paper's negative log-likelihood.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Additive, Place, around_mask
from reprogram.outputs import FirstClasses


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's values (section 4), the recipe from its public reimplementation.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the image in the middle; None for its own size (28 for MNIST, 32 for CIFAR-10).
        squash_hole: mask before squashing, as in the public code.
        recipe: Adam at 0.05 with the penalty 5e-7 |W|^2 on the program.
    """

    canvas: int | None = None
    inner: int | None = None
    squash_hole: bool = False
    recipe: Recipe = Recipe(
        lr=0.05,
        betas=(0.5, 0.999),
        weight_decay=1e-6,
        schedule="step",
        step_epochs=2,
        gamma=0.96,
        epochs=30,
        batch_size=30,
        loss="nll",
    )


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = pad, frame``, ``O = log-probabilities of the first T source classes``."""
    size = source.spec.canvas(config.canvas)
    place = Place(size, config.inner)
    mask = around_mask(size, *place.size(task.sample.height, task.sample.width))
    frame = Additive(mask, channels=task.sample.shape[0], squash="sigmoid", squash_hole=config.squash_hole)
    output = FirstClasses(source.spec.outputs, len(task.classes), log_probabilities=True)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([place, frame], source, output, origin=origin)


METHOD = Method(
    name="adversarial_reprogramming",
    summary="a learned frame around the image; the first T source classes stand for the target's",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Adversarial Reprogramming of Neural Networks",
        authors="Gamaleldin F. Elsayed and Ian Goodfellow and Jascha Sohl-Dickstein",
        year=2019,
        arxiv="1806.11146",
        venue="ICLR",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"canvas": 128, "inner": 64, "recipe.epochs": 6, "recipe.batch_size": 50}},
    needs=frozenset({Capability.GRADIENTS}),
    paper_tags="alignment: statistical in the survey's list",
)
