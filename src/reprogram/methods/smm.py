"""SMM: a learned pattern seen through a mask that a small network makes for each image.

Cai, Ye, Feng, Qi, Liu, "Sample-specific Masks for Visual Reprogramming-based Prompting", ICML 2024, arXiv:2406.03150.

Departures: the generator is in eval mode whenever statistics or metrics are taken (the public code updates its batch
norm in the first mapping pass); milestones at 50 % and 72 % (its code; the text says epochs 100 and 145 of 200);
`mapping="blm"` is not in the paper.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.method import Group, Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place, SampleMask
from reprogram.outputs import BayesianMap, FrequencyMap, RandomMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's defaults for convolutional sources (section 5, appendix).

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        patch: pixels that share one mask value (paper: 8).
        layers: convolutions of the generator: 5, or 6 for vision transformers.
        mapping: "ilm" (the paper's choice), "flm" (with `recipe.refresh="once"`), "rlm" or "blm".
        recipe: Adam at 0.01 for the pattern and for the generator, divided by ten after 50 % and 72 % of 200 epochs.
    """

    canvas: int | None = None
    patch: int = 8
    layers: int = 5
    mapping: Literal["ilm", "flm", "rlm", "blm"] = "ilm"
    recipe: Recipe = Recipe(
        lr=0.01,
        schedule="multistep",
        epochs=200,
        batch_size=256,
        groups=(Group(prefix="input.edits.1.generator", lr=0.01),),
    )


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, masked pattern``, ``O = the mapping chosen``."""
    size = source.spec.canvas(config.canvas)
    channels = task.sample.shape[0]
    edits = [
        Place(size, size, "bilinear"),
        SampleMask(size, patch=config.patch, layers=config.layers, channels=channels),
    ]
    sources, targets = source.spec.outputs, len(task.classes)
    output = {"rlm": RandomMap, "blm": BayesianMap}.get(config.mapping, FrequencyMap)(sources, targets)
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


METHOD = Method(
    name="smm",
    summary="a learned pattern under a mask made for each image; one-to-one mapping by frequency",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Operator.PARAMETRIC, Alignment.STATISTICAL
    ),
    paper=Paper(
        title="Sample-specific Masks for Visual Reprogramming-based Prompting",
        authors="Chengyi Cai and Zesheng Ye and Lei Feng and Jianzhong Qi and Feng Liu",
        year=2024,
        arxiv="2406.03150",
        venue="ICML",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {
            "canvas": 128,
            "recipe.lr": 0.005,
            "recipe.schedule": "cosine",
            "recipe.epochs": 8,
            "recipe.batch_size": 50,
        }
    },
    needs=frozenset({Capability.GRADIENTS}),
)
