"""Full linear input program: every canvas pixel a learned mix of all the picture's pixels, and a label mapping.

Chung, Fan, Ye, Wang, Shen, Yu, Chen, Kuo, "Model Reprogramming Demystified: A Neural Tangent Kernel Perspective", 2025,
arXiv:2506.00620, whose second input transformation it is ("FC", beside the additive "VP").

Departures: the paper's program acts on features of CLIP, this one on pixels, so figures do not compare; the recipe is
ours (Adam at 0.01), for no recipe of the paper's could be checked.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import FullLinear
from reprogram.outputs import BayesianMap, FrequencyMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the picture on the canvas at the start; None for its own size.
        mapping: "frequency" (one source class a target class) or "blm".
        recipe: Adam at 0.01; the mapping is made once, before the first step, so that it is fixed as in the theory.
    """

    canvas: int | None = None
    inner: int | None = None
    mapping: Literal["frequency", "blm"] = "frequency"
    recipe: Recipe = Recipe(lr=0.01, schedule="cosine", epochs=40, batch_size=100, refresh="once")


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = W x + b``, ``O = the mapping chosen``."""
    edit = FullLinear(task.sample.shape, source.spec.canvas(config.canvas), config.inner)
    output = {"frequency": FrequencyMap, "blm": BayesianMap}[config.mapping](source.spec.outputs, len(task.classes))
    return Program([edit], source, output, origin=Origin(method=METHOD.name, config=config, task=task))


METHOD = Method(
    name="fc",
    summary="a full linear map from the picture's pixels to the canvas; one-to-one mapping by frequency",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.PARAMETRIC, Alignment.STATISTICAL),
    paper=Paper(
        title="Model Reprogramming Demystified: A Neural Tangent Kernel Perspective",
        authors=(
            "Ming-Yu Chung and Jiashuo Fan and Hancheng Ye and Qinsi Wang and Wei-Chen Shen and Chia-Mu Yu "
            "and Pin-Yu Chen and Sy-Yen Kuo"
        ),
        year=2025,
        arxiv="2506.00620",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"recipe.epochs": 8, "recipe.batch_size": 50}},
    needs=frozenset({Capability.GRADIENTS}),
)
