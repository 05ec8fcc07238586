"""Control: a linear layer on the outputs of the untouched source, the strongest cheap reading of what f already knows.

On standardised class scores (or, with `features=True`, on what the source's own last layer reads), as the linear-probe
rows of Cai et al. (arXiv:2410.24018, arXiv:2406.03150) are; computed once, so an epoch takes milliseconds.
"""

from dataclasses import dataclass

from reprogram.core.errors import CapabilityError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Taxonomy
from reprogram.inputs import Place
from reprogram.outputs import Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings, ours: the papers name only the layer.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the image on it; None for the whole canvas.
        features: read the source's features instead of its class scores.
        recipe: AdamW, stopped when validation no longer improves.
    """

    canvas: int | None = None
    inner: int | None = None
    features: bool = False
    recipe: Recipe = Recipe(
        optimizer="adamw",
        lr=0.003,
        weight_decay=0.1,
        schedule="cosine",
        epochs=60,
        batch_size=128,
        refresh="once",
        patience=15,
    )


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize``, ``O = linear``."""
    size = source.spec.canvas(config.canvas)
    width = source.spec.width if config.features else source.spec.outputs
    if width is None:
        raise CapabilityError(say("features", "must be False for a source of unknown feature width", source.spec.ref))
    output = Linear(width, len(task.classes), features=config.features)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, config.inner or size)], source, output, origin=origin)


METHOD = Method(
    name="linear_probe",
    summary="control: a linear layer on the source's class scores or features",
    taxonomy=Taxonomy.of(Alignment.LINEAR),
    paper=Paper(title="Linear probing (control)", authors="the reprogram authors", year=2026),
    config=Config,
    build=build,
    presets={"cpu": {"canvas": 128}},
    control=True,
)
