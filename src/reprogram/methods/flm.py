"""FLM: a learned frame, and a one-to-one label mapping fixed before training by how often classes meet.

The frequency label mapping that Chen et al. (CVPR 2023, arXiv:2211.11635) take as the baseline of ILM-VP: the same
greedy rule, applied once, with the frame as it starts.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Prompt, pattern
from reprogram.outputs import FrequencyMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """As ILM-VP, with the mapping made once.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the image inside the frame; None for its own size.
        prompt: "pad" (a frame around the image) or "watermark" (over the whole image, as on CLIP).
        recipe: as ILM-VP; `refresh="once"` is what makes it FLM.
    """

    canvas: int | None = None
    inner: int | None = None
    prompt: Prompt = "pad"
    recipe: Recipe = Recipe(lr=0.01, schedule="multistep", epochs=200, batch_size=128, refresh="once")


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = pad, frame``, ``O = greedy one-to-one map, made once``."""
    edits = pattern(config.prompt, source.spec, task, canvas=config.canvas, inner=config.inner)
    output = FrequencyMap(source.spec.outputs, len(task.classes))
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


METHOD = Method(
    name="flm",
    summary="a learned frame; one source class per target class, matched once by frequency",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.STATISTICAL),
    paper=Paper(
        title="Understanding and Improving Visual Prompting: A Label-Mapping Perspective",
        authors="Aochuan Chen and Yuguang Yao and Pin-Yu Chen and Yihua Zhang and Sijia Liu",
        year=2023,
        arxiv="2211.11635",
        venue="CVPR",
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
