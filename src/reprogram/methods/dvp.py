"""DVP: several learned frames, each for some of the classes' descriptions, and weights of the descriptions by counting.

Cai, Ye, Feng, Qi, Liu, "Understanding Model Reprogramming for CLIP via Decoupling Visual Prompts", ICML 2025,
arXiv:2506.01000. Two forms: "cse", a frame for each of v sets of causes; "cls", a frame for each of v clusters of the
descriptions' vectors.

The frozen image tower runs v times for every picture, also when predicting; all v pictures are in one batch.

Departures: the first epoch counts and learns, with weights from what it has seen of it so far, where the released code
only counts (`recipe.refresh="exact"` counts in a pass of its own before every epoch); a class that was not seen keeps
its weights, where the code divides 0 by 0; a class with fewer than m sentences keeps those it has; k-means is our own,
from ten starts; pictures are flipped and shifted at random while training, where the code crops them at random scales;
on another canvas than 224 pixels the picture keeps its share of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import (
    Place,
    SeveralFrames,
    around_mask,
    as_examples,
    at_most,
    cause_sets,
    drawn_descriptions,
    in_proportion,
    needed,
    read_descriptions,
    settings_only,
    with_classes,
)
from reprogram.inputs.descriptions import pooled
from reprogram.outputs import ReweightedDescriptions, k_means

CLUSTER = "cluster_{}"
"""The names under which descriptions are kept with their cluster, counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's values (section 5, and its code).

    Attributes:
        form: "cse" for sets of causes, "cls" for clusters.
        descriptions: of each class: for "cse" the sets "cause_1" to "cause_v", for "cls" any, which are put together;
            or the path of a JSON file of them, see `reprogram.inputs.descriptions`. They are kept with the program.
        frames: v (3; of "cls" 1 on EuroSAT and 2 on Food101 and UCF101).
        count: m, descriptions of a class, in each set of causes, at most; of more, m are drawn.
        nearest: k, of its class's descriptions, that a picture counts for.
        clusters_seed: of k-means.
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the picture in its frame; None for 192 of 224 (119,808 numbers of three frames).
        recipe: SGD at 40 with momentum 0.9, cosine, 200 epochs in batches of 64.
    """

    form: Literal["cse", "cls"] = "cse"
    descriptions: Mapping[str, str | tuple[str, ...] | Mapping[str, str | tuple[str, ...]]] | Path | str | None = None
    frames: int = 3
    count: int = 20
    nearest: int = 3
    clusters_seed: int = 0
    canvas: int | None = None
    inner: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=40.0, momentum=0.9, schedule="cosine", epochs=200, batch_size=64, augment="crop"
    )

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(say("frames", "must be 1 or more", self.frames))


def context(
    source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int
) -> Sequence[Example]:  # fmt: skip
    """The descriptions, as (class, set) and text; a set is what one frame is for.

    Raises:
        ConfigError: none are given, or there are fewer than clusters.
        DataError: a class or a set is missing, or the file is none.
    """
    classes = with_classes(task, METHOD.name).classes
    if config.form == "cse":
        sets = cause_sets(config.frames)
        return as_examples(
            drawn_descriptions(config.descriptions, classes, sets, count=config.count, seed=seed), classes
        )
    found = read_descriptions(needed(config.descriptions), classes, None)
    texts = at_most(pooled(found), config.count, seed)
    each = [(name, text) for name, own in zip(classes, texts, strict=True) for text in own]
    vectors = image_text_source(source).vectors([text for _, text in each])
    labels = k_means(vectors, config.frames, seed=config.clusters_seed)
    return [Example((name, CLUSTER.format(int(label) + 1)), text)
            for (name, text), label in zip(each, labels, strict=True)]  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = shrink, v frames``, ``O = descriptions weighted by how often they are near``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    given = replace(config, descriptions=None if task.context else settings_only(config.descriptions))
    held = tuple(task.context or context(source, task, (), given, 0))
    owner, frame = _sorted_out(held, task.classes, config)
    vectors = model.vectors([one.answer for one in held])
    output = ReweightedDescriptions(
        vectors, owner.to(vectors.device), frame.to(vectors.device), (len(task.classes), config.frames),
        nearest=config.nearest, scale=model.scale, bias=model.bias,
    )  # fmt: skip
    size = source.spec.canvas(config.canvas)
    place = Place(size, config.inner or in_proportion(192, size))
    mask = around_mask(size, *place.size(task.sample.height, task.sample.width))
    frames = SeveralFrames(config.frames, mask, channels=task.sample.shape[0])
    origin = Origin(method=METHOD.name, config=config, task=replace(task, context=held))
    return Program([place, frames], source, output, origin=origin)


def _sorted_out(held: Sequence[Example], classes: Sequence[str], config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """The class and the frame of each description."""
    layout = "cause_{}" if config.form == "cse" else CLUSTER
    sets = [layout.format(number) for number in range(1, config.frames + 1)]
    strange = [one.texts for one in held if len(one.texts) != 2 or one.texts[0] not in classes
               or one.texts[1] not in sets]  # fmt: skip
    if strange:
        raise DataError(say("context", f"must be about the classes, in the sets {sets}", strange[:3]))
    owner = torch.tensor([classes.index(one.texts[0]) for one in held])
    return owner, torch.tensor([sets.index(one.texts[1]) for one in held])


METHOD = Method(
    name="dvp",
    summary="several learned frames, each for a set or cluster of descriptions, whose weights are counted",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.STATISTICAL),
    paper=Paper(
        title="Understanding Model Reprogramming for CLIP via Decoupling Visual Prompts",
        authors="Chengyi Cai and Zesheng Ye and Lei Feng and Jianzhong Qi and Feng Liu",
        year=2025,
        arxiv="2506.01000",
        venue="ICML",
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
    paper_tags="alignment: linear in the survey's list",
)  # fmt: skip
