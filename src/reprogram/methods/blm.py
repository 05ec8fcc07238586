"""BLM: a learned input pattern, and a Bayesian many-to-many label mapping from joint counts.

Cai, Ye, Feng, Qi, Liu, "Bayesian-guided Label Mapping for Visual Reprogramming", NeurIPS 2024, arXiv:2410.24018.

Departure: the mapping is made from the outputs that training sees anyway (`recipe.refresh="stream"`, as the authors'
fast script does, but without its extra first pass); `recipe.refresh="exact"` spends a pass before every epoch.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Prompt, pattern
from reprogram.outputs import BayesianMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's defaults (section 5 and its code).

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the image inside the frame; None for its own size.
        prompt: "pad" (a frame around the image) or "watermark" (over the whole image, as on CLIP).
        smoothing: lambda of the Laplace smoothing.
        recipe: Adam at 0.01, divided by ten after 50 % and 72 % of 200 epochs, batches of 256.
    """

    canvas: int | None = None
    inner: int | None = None
    prompt: Prompt = "pad"
    smoothing: float = 1.0
    recipe: Recipe = Recipe(lr=0.01, schedule="multistep", epochs=200, batch_size=256)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = pad, frame``, ``O = scores @ P(target | source)``, columns of sum one."""
    edits = pattern(config.prompt, source.spec, task, canvas=config.canvas, inner=config.inner)
    output = BayesianMap(source.spec.outputs, len(task.classes), smoothing=config.smoothing)
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


METHOD = Method(
    name="blm",
    summary="a learned pattern; every source class votes for every target class by Bayes' rule on counts",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.STATISTICAL),
    paper=Paper(
        title="Bayesian-guided Label Mapping for Visual Reprogramming",
        authors="Chengyi Cai and Zesheng Ye and Lei Feng and Jianzhong Qi and Feng Liu",
        year=2024,
        arxiv="2410.24018",
        venue="NeurIPS",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {
            "canvas": 128,
            "prompt": "watermark",
            "recipe.lr": 0.003,
            "recipe.schedule": "cosine",
            "recipe.epochs": 8,
            "recipe.batch_size": 50,
        }
    },
    needs=frozenset({Capability.GRADIENTS}),
)
