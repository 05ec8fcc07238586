"""Control: a linear layer on the outputs of the untouched source, the strongest cheap reading of what f already knows.

On standardised class scores (or, with `features=True`, on what the source's own last layer reads), as the linear-probe
rows of Cai et al. (arXiv:2410.24018, arXiv:2406.03150) are; computed once, so an epoch takes milliseconds. Texts are
always read by features: the class scores of a language model are its whole vocabulary. So are pictures by an image-text
source, which has no classes of its own.
"""

from dataclasses import dataclass

from reprogram.core.errors import CapabilityError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import ImageTextSource, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Taxonomy
from reprogram.inputs import entry, with_classes
from reprogram.outputs import Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    r"""Settings, ours: the papers name only the layer.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the image on it; None for the whole canvas.
        features: read the source's features instead of its class scores; texts always are.
        template: how the columns of a text task become a prompt; None for "{text}\nLabel:" and its like.
        recipe: AdamW, stopped when validation no longer improves.
    """

    canvas: int | None = None
    inner: int | None = None
    features: bool = False
    template: str | None = None
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
    """``I = resize, or template``, ``O = linear``."""
    way = entry(
        source, with_classes(task, METHOD.name), canvas=config.canvas, inner=config.inner, template=config.template
    )
    features = config.features or source.spec.modality == "text" or isinstance(source, ImageTextSource)
    width = source.spec.width if features else source.spec.outputs
    if width is None:
        raise CapabilityError(say("features", "must be False for a source of unknown feature width", source.spec.ref))
    output = Linear(width, len(task.classes), features=features)
    return Program(way.edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


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
