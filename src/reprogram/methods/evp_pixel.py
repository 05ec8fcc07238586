"""EVP: the image shrunk, a learned frame around it that never covers it, and steps along the normalised gradient.

Wu, Li, Wei, Wang, Yuille, Zhou, Xie, "Unleashing the Power of Visual Prompting At the Pixel Level", 2022,
arXiv:2212.10556. (Not EVP, explicit visual prompting, which is `evp_explicit`.)

Departures: the paper works on CLIP with class texts, as this does on an image-text source; on a plain classifier its
classes stand for the target's by a rule or a label map. No code was read: the frame of 30 pixels and the use of input
diversity and of normalised gradients are from the paper's description; the rate of 10 is TVP's (arXiv:2404.11207),
which has the same update.
"""

from dataclasses import dataclass

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Additive, Place, around_mask, in_proportion
from reprogram.outputs import class_output


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is known of the paper's values; see the departures above.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        width: pixels of the frame on each side, the image gets what is left; None for 30 of 224.
        template: the class text on an image-text source, with `{class}` or `{a class}`.
        mapping: on a classifier, which source classes stand for which target classes: "first" (the first T), "random",
            "frequency", "many_to_one", "blm" or "blm_plus".
        recipe: steps of length `lr` along the gradient; images are flipped and cropped at random before they are
            shrunk. Say `augment="none"` where a mirrored image is another class (digits, letters).
    """

    canvas: int | None = None
    width: int | None = None
    template: str = "This is a photo of a {class}"
    mapping: str = "first"
    recipe: Recipe = Recipe(
        optimizer="normalised", lr=10.0, schedule="cosine", epochs=1000, batch_size=256, augment="crop"
    )


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = shrink, frame after normalisation``, ``O = the closest class text, or a rule about classes``.

    Raises:
        ConfigError: the frame leaves no pixel of the picture.
    """
    size = source.spec.canvas(config.canvas)
    width = in_proportion(30, size) if config.width is None else config.width
    if width < 1 or size <= 2 * width:
        raise ConfigError(say("width", f"must be at least 1 and leave a pixel of {size}", width))
    place = Place(size, size - 2 * width)
    hole = place.size(task.sample.height, task.sample.width)
    frame = Additive(around_mask(size, *hole), channels=task.sample.shape[0], site="normalised")
    output = class_output(source, task.classes, config.mapping, config.template)
    return Program([place, frame], source, output, origin=Origin(method=METHOD.name, config=config, task=task))


METHOD = Method(
    name="evp_pixel",
    summary="the image shrunk inside a learned frame, fitted along the normalised gradient; class texts or a label map",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Unleashing the Power of Visual Prompting At the Pixel Level",
        authors="Junyang Wu and Xianhang Li and Chen Wei and Huiyu Wang and Alan Yuille and Yuyin Zhou and Cihang Xie",
        year=2022,
        arxiv="2212.10556",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"canvas": 128, "recipe.epochs": 6, "recipe.batch_size": 50, "recipe.augment": "none"}},
    needs=frozenset({Capability.GRADIENTS}),
    paper_tags="operator: concatenative (a frame around the image)",
)
