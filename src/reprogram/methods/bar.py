"""BAR: a learned border around the image of a black box, several source classes for a target, losses alone.

Tsai, Chen, Ho, "Transfer Learning without Knowing: Reprogramming Black-box Machine Learning Models with Scarce Data and
Limited Resources", ICML 2020, arXiv:2007.08714.

Departures: the paper's tanh of a pattern in [-1, 1] is the sigmoid of twice the pattern on pixels in [0, 1]; here it
is the sigmoid (as in the port of BlackVIP's authors, whose rates and sizes are the defaults). The estimated gradient is
the one applied, each source class serves one target, and every column of the map is the mean of its own classes: in
the published code the analytic gradient is applied and the two lists are mixed.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe, Search
from reprogram.core.program import Program
from reprogram.core.source import Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Init, padded
from reprogram.outputs import ProbabilityMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of the paper's code (map) and of the port in BlackVIP's (estimator, rates, sizes).

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the image inside the border; None for 194 of 224.
        start: of the border, "normal" (N(0, 1), as published) or "zeros" (mid-grey: a sigmoid follows).
        per_class: source classes for a target; None for 6, or as many as there are for each.
        top: probabilities of an input that count when the map is made.
        gamma: of the focal loss; 4 in the paper, 2 in the port.
        alpha: of the focal loss; 0.8 in the paper.
        recipe: averaged one-sided differences, 6 calls a step, the rate falling from 5 to 0.05.
    """

    canvas: int | None = None
    inner: int | None = None
    start: Init = "normal"
    per_class: int | None = None
    top: int = 30
    gamma: float = 2.0
    alpha: float = 0.8
    recipe: Recipe = Recipe(
        optimizer="one_sided", lr=5.0, end_lr=0.05, schedule="polynomial", search=Search(radius=0.01),
        epochs=5000, batch_size=128,
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = pad, border``, ``O = means of the probabilities of several source classes``."""
    size, targets = source.spec.canvas(config.canvas), len(task.classes)
    inner = config.inner or max(1, min(size - 2, round(size * 194 / 224)))
    edits = padded(source.spec, task, canvas=size, inner=inner, init=config.start)
    many = config.per_class or max(1, min(6, source.spec.outputs // targets))
    output = ProbabilityMap(source.spec.outputs, targets, many, top=config.top, gamma=config.gamma, alpha=config.alpha)
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


METHOD = Method(
    name="bar",
    summary="a border around the image of a black box, and several source classes for a target, from losses alone",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.STATISTICAL),
    paper=Paper(
        title="Transfer Learning without Knowing: Reprogramming Black-box Machine Learning Models with Scarce Data and "
        "Limited Resources",
        authors="Yun-Yun Tsai and Pin-Yu Chen and Tsung-Yi Ho",
        year=2020,
        arxiv="2007.08714",
        venue="ICML",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"canvas": 96, "inner": 64, "recipe.epochs": 6, "recipe.batch_size": 32}},
    paper_tags="operator: statistical/linear and alignment: identity in the survey's list",
)
