"""AttrVR: a learned frame around the picture, and the class whose descriptions are nearest to it.

Cai, Ye, Feng, Qi, Liu, "Attribute-based Visual Reprogramming for Vision-Language Models", ICLR 2025, arXiv:2501.13982.

Departures: a class with fewer than m sentences keeps those it has, where the published code draws some of them again,
and is read by the mean over as many of them as there are up to k; which sentences are long enough is for `reprogram
describe` to say; pictures are flipped and shifted at random while training, where the released code crops them at
random scales; on another canvas than 224 pixels the picture keeps its share of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import (
    as_examples,
    drawn_descriptions,
    from_examples,
    in_proportion,
    padded,
    settings_only,
    with_classes,
)
from reprogram.inputs.descriptions import PAIR
from reprogram.outputs import NearestDescriptions, named


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's values (section 5, and its code).

    Attributes:
        descriptions: of each class, two sets, "descriptive" and "distinctive"; or the path of a JSON file of them, see
            `reprogram.inputs.descriptions`. They are kept with the program.
        lead: put before each of them, such as "a photo of {a class}. "; nothing as published.
        count: m, descriptions of a class in each set at most; of more, m are drawn.
        nearest: k, of which the mean is taken.
        weight: lambda, of the descriptive set; the distinctive one has the rest.
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the picture in its frame; None for 192 of 224 (39,936 numbers).
        recipe: SGD at 40 with momentum 0.9, cosine, 200 epochs in batches of 64 (16 with one example a class).
    """

    descriptions: Mapping[str, str | tuple[str, ...] | Mapping[str, str | tuple[str, ...]]] | Path | str | None = None
    lead: str = ""
    count: int = 20
    nearest: int = 3
    weight: float = 0.5
    canvas: int | None = None
    inner: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=40.0, momentum=0.9, schedule="cosine", epochs=200, batch_size=64, augment="crop"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ConfigError(say("weight", "must be from 0 to 1", self.weight))


def context(
    source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int
) -> Sequence[Example]:  # fmt: skip
    """The descriptions, as (class, set) and text.

    Raises:
        ConfigError: none are given.
        DataError: a class or a set is missing, or the file is none.
    """
    classes = with_classes(task, METHOD.name).classes
    found = drawn_descriptions(config.descriptions, classes, PAIR, count=config.count, seed=seed)
    return as_examples(found, classes)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = shrink, frame``, ``O = mean over the k nearest descriptions``."""
    image_text_source(source)
    task = with_classes(task, METHOD.name)
    given = replace(config, descriptions=None if task.context else settings_only(config.descriptions))
    held = task.context or tuple(context(source, task, (), given, 0))
    found = from_examples(held, task.classes, PAIR)
    led = [[[f"{_lead(config.lead, name)}{text}" for text in own]
            for name, own in zip(task.classes, found[one], strict=True)] for one in PAIR]  # fmt: skip
    output = NearestDescriptions(led, nearest=config.nearest, weights=(config.weight, 1 - config.weight))
    inner = config.inner or in_proportion(192, source.spec.canvas(config.canvas))
    edits = padded(source.spec, task, canvas=config.canvas, inner=inner)
    origin = Origin(method=METHOD.name, config=config, task=replace(task, context=tuple(held)))
    return Program(edits, source, output, origin=origin)


def _lead(layout: str, name: str) -> str:
    return named(layout, name) if layout else ""


METHOD = Method(
    name="attrvr",
    summary="a learned frame; the class whose nearest descriptions, of looks and of differences, are closest",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Attribute-based Visual Reprogramming for Vision-Language Models",
        authors="Chengyi Cai and Zesheng Ye and Lei Feng and Jianzhong Qi and Feng Liu",
        year=2025,
        arxiv="2501.13982",
        venue="ICLR",
    ),
    config=Config,
    build=build,
    context=context,
    presets={
        "cpu": {
            "recipe.optimizer": "adam", "recipe.lr": 0.03, "recipe.epochs": 10, "recipe.batch_size": 50,
            "recipe.augment": "none",
        }
    },
    needs=frozenset({Capability.GRADIENTS, Capability.CLASS_TEXTS}),
)  # fmt: skip
