"""ILM-VP on an image-text source: a learned frame, and one of 81 sentences about any class for each class.

Chen, Yao, Chen, Zhang, Liu, "Understanding and Improving Visual Prompting: A Label-Mapping Perspective", CVPR 2023,
arXiv:2211.11635. Each of 81 T sentences is a source class of its own; the one-to-one map from them to the T classes is
made anew in every epoch.

Departures: the 81 sentences are our own unless `templates="openai"` asks for CLIP's 80 for ImageNet behind a plain one;
the map is made from the outputs that training sees anyway (`recipe.refresh="exact"` spends the paper's extra pass
before every epoch); a class that was not seen keeps its own plain sentence, where the published code drops the last
class; on another canvas than 224 pixels the frame keeps its share of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Additive, Place, frame_mask, in_proportion, with_classes
from reprogram.outputs import (
    BayesianMap,
    BayesianMapPlus,
    FrequencyMap,
    MappedTexts,
    texts_for,
)
from reprogram.outputs.templates import TEMPLATES

PLAIN = "This is a photo of a {class}."
"""Before CLIP's 80 templates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's values for CLIP (its code).

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        width: pixels of the frame; None for 30 of 224 (69,840 numbers). Half the canvas is the whole image.
        templates: "own", 81 short ones; "openai", those that open_clip brings, kept with the program; or layouts with
            `{class}` or `{a class}`, the plainest first.
        mapping: "ilm", one sentence a class; "blm" or "blm_plus", all sentences with weights.
        recipe: SGD at 40 with momentum 0.9, cosine per step, 200 epochs.
    """

    canvas: int | None = None
    width: int | None = None
    templates: Literal["own", "openai"] | tuple[str, ...] = "own"
    mapping: Literal["ilm", "blm", "blm_plus"] = "ilm"
    recipe: Recipe = Recipe(optimizer="sgd", lr=40.0, momentum=0.9, schedule="cosine", epochs=200, batch_size=128)


def context(
    source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int
) -> Sequence[Example]:  # fmt: skip
    """Templates that come from elsewhere, as ("template",) and layout; none where the settings hold them.

    Raises:
        MissingExtraError: open_clip's are wanted and it is not installed.
    """
    if config.templates != "openai":
        return ()
    from reprogram.sources.clip_templates import openai_templates

    return [Example(("template",), layout) for layout in (PLAIN, *openai_templates())]


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, frame after normalisation``, ``O = a map from sentences to classes``.

    Raises:
        ConfigError: there is no template, or one without a place for the name.
    """
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    held = tuple(task.context) or tuple(context(source, task, (), config, 0))
    size, channels = source.spec.canvas(config.canvas), task.sample.shape[0]
    width = in_proportion(30, size) if config.width is None else config.width
    frame = Additive(frame_mask(size, width), channels=channels, site="normalised")
    texts = texts_for(model, task.classes, _layouts(config, held))
    sources, targets = len(texts), len(task.classes)
    mapping: FrequencyMap | BayesianMap | BayesianMapPlus
    if config.mapping == "ilm":
        mapping = FrequencyMap(sources, targets)
    else:
        mapping = (BayesianMap if config.mapping == "blm" else BayesianMapPlus)(sources, targets)
    origin = Origin(method=METHOD.name, config=config, task=replace(task, context=held))
    return Program([Place(size, size), frame], source, MappedTexts(texts, mapping), origin=origin)


def _layouts(config: Config, held: Sequence[Example]) -> Sequence[str]:
    found = [one.answer for one in held] if held else TEMPLATES if config.templates == "own" else config.templates
    if len(set(found)) < len(found):
        twice = sorted({one for one in found if list(found).count(one) > 1})
        raise ConfigError(say("templates", "must be distinct", twice[:3]))
    return found


METHOD = Method(
    name="ilm_vp_clip",
    summary="a learned frame; of 81 sentences about every class one for each class, matched anew every epoch",
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
    context=context,
    presets={
        "cpu": {
            "recipe.optimizer": "adam", "recipe.lr": 0.03, "recipe.epochs": 10, "recipe.batch_size": 50,
        }
    },
    needs=frozenset({Capability.GRADIENTS, Capability.CLASS_TEXTS}),
)  # fmt: skip
