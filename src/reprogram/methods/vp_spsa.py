"""VP with SPSA-GC: a learned frame over the image of a black box, by losses alone.

Oh, Hwang, Lee, Lim, Jung, Jung, Choi, Song, "BlackVIP: Black-Box Visual Prompting for Robust Transfer Learning", CVPR
2023, arXiv:2303.14773, whose baseline this is; the frame is that of Bahng et al. 2022, arXiv:2203.17274.

Departures: the pattern is added to pixels and the sum is kept between 0 and 1, because that is what a black box takes
(published: added after normalisation, no limit); it starts at zeros, which is no change (published: N(0, 1)); the rate
is in units of pixels, that is the published 10 times the squared deviation 1/4 of a channel. On a classifier without
class texts the output is a label map, made from what the trials see anyway.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.method import Method, Origin, Paper, Recipe, Search
from reprogram.core.program import Program
from reprogram.core.source import Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Additive, Place, Valid, frame_mask
from reprogram.outputs import class_output

Mapping = Literal["frequency", "random", "many_to_one", "blm", "blm_plus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of BlackVIP's baseline (its code; a 10 to 20, alpha 0.5, beta 0.3 to 0.9 by data set).

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        width: pixels of the frame; half the canvas or more covers the image.
        template: of class texts, on an image-text source (as published).
        mapping: which source classes stand for a target; see `outputs.label_map`.
        recipe: SPSA-GC, 10 calls a step.
    """

    canvas: int | None = None
    width: int = 30
    template: str = "a photo of a {class}."
    mapping: Mapping = "frequency"
    recipe: Recipe = Recipe(
        optimizer="spsa_gc", lr=0.625, momentum=0.9, search=Search(decay=0.5), epochs=5000, batch_size=128
    )


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, frame, clip``, ``O = label map, or the closest class text``."""
    size = source.spec.canvas(config.canvas)
    frame = Additive(frame_mask(size, config.width), channels=task.sample.shape[0])
    output = class_output(source, task.classes, config.mapping, config.template)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), frame, Valid()], source, output, origin=origin)


METHOD = Method(
    name="vp_spsa",
    summary="a frame over the image of a black box, learned from losses alone",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.STATISTICAL),
    paper=Paper(
        title="BlackVIP: Black-Box Visual Prompting for Robust Transfer Learning",
        authors="Changdae Oh and Hyeji Hwang and Hee-young Lee and YongTaek Lim and Geunyoung Jung and Jiyoung Jung "
        "and Hosik Choi and Kyungwoo Song",
        year=2023,
        arxiv="2303.14773",
        venue="CVPR",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"canvas": 96, "width": 12, "recipe.epochs": 6, "recipe.batch_size": 32}},
    paper_tags="alignment: identity (texts of the classes) in the paper",
)
