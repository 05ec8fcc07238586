"""Control: nothing is done to the input but scaling it to the source's size; only the output is fitted.

What a learned input must beat. The outputs are those of the methods compared: FLM's one-to-one map (arXiv:2211.11635),
AutoVP's many-to-one map (arXiv:2310.08381), BLM and BLM+ (arXiv:2410.24018).
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Taxonomy
from reprogram.inputs import Place
from reprogram.outputs import label_map

Mapping = Literal["first", "random", "frequency", "many_to_one", "blm", "blm_plus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the image on it; None for the whole canvas.
        mapping: how source classes are read as target classes.
        recipe: one pass for the statistics; there is nothing to learn.
    """

    canvas: int | None = None
    inner: int | None = None
    mapping: Mapping = "blm"
    recipe: Recipe = Recipe(refresh="once", epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize``, ``O = the mapping chosen``."""
    size = source.spec.canvas(config.canvas)
    output = label_map(config.mapping, source.spec.outputs, len(task.classes))
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, config.inner or size)], source, output, origin=origin)


METHOD = Method(
    name="no_edit",
    summary="control: the image as it is, and a fitted label mapping",
    taxonomy=Taxonomy.of(Alignment.STATISTICAL),
    paper=Paper(title="The input left as it is (control)", authors="the reprogram authors", year=2026),
    config=Config,
    build=build,
    presets={"cpu": {"canvas": 128}},
    control=True,
)
