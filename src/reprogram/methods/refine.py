"""REFINE: a learned U-Net redraws pictures so that the source answers in permuted classes, and a backdoor is lost.

Chen, Shao, Huang, Li, Chen, Qin, Ren, "REFINE: Inversion-Free Backdoor Defense via Model Reprogramming", ICLR 2025,
arXiv:2502.18508.

Departures: the permutation has a seed of its own (in the released code it is drawn anew by every process); pictures of
another size than the source's are brought to it first; pictures below 32 pixels are halved less often; the U-Net starts
from mid-grey, and the loss is taken from scores instead of probabilities, for gradients that do not vanish.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place, Redraw
from reprogram.outputs import Deranged


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The released code's values.

    The task's labels are not used: the source's own answers to the plain pictures are what the program must keep.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        channels: of the U-Net's first level (64 for CIFAR-10, 17,267,523 numbers; 32 for ImageNet-50).
        permutation: seed of the derangement of the classes.
        contrast: weight of the contrastive term.
        temperature: of the contrastive term (Khosla et al. 2020).
        recipe: SGD at 0.01 with momentum 0.9 and decay 5e-4, 150 epochs in batches of 256, times 0.8 when 50 and 20
            epochs are left.
    """

    canvas: int | None = None
    channels: int = 64
    permutation: int = 0
    contrast: float = 0.1
    temperature: float = 0.07
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="multistep",
        milestones=(100 / 150, 130 / 150), gamma=0.8, epochs=150, batch_size=256,
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = clamp(UNet(x), 0, 1)``, ``O = the source's classes under a derangement``.

    Raises:
        ConfigError: the task has not as many classes as the source.
    """
    size = source.spec.canvas(config.canvas)
    redraw = Redraw(task.sample.shape[0], config.channels)
    output = Deranged(
        source.spec.outputs, len(task.classes), seed=config.permutation, contrast=config.contrast,
        temperature=config.temperature,
    )  # fmt: skip
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), redraw], source, output, origin=origin)


METHOD = Method(
    name="refine",
    summary="a learned U-Net redraws the picture, the classes are permuted: a defence against backdoors",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.PARAMETRIC, Alignment.RULE_BASED),
    paper=Paper(
        title="REFINE: Inversion-Free Backdoor Defense via Model Reprogramming",
        authors=("Yukun Chen and Shuo Shao and Enhao Huang and Yiming Li and Pin-Yu Chen and Zhan Qin and Kui Ren"),
        year=2025,
        arxiv="2502.18508",
        venue="ICLR",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {
            "channels": 16,
            "recipe.optimizer": "adam",
            "recipe.lr": 0.003,
            "recipe.weight_decay": 0.0,
            "recipe.schedule": "cosine",
            "recipe.epochs": 15,
            "recipe.batch_size": 64,
        }
    },
    needs=frozenset({Capability.GRADIENTS}),
    paper_tags="operator: additive, alignment: identity in the survey's list",
)
