"""ArGue: learned words before class names with visual attributes, and no opinion from backgrounds.

Tian, Zou, Yang, Zhang, "ArGue: Attribute-Guided Prompt Tuning for Vision-Language Models", CVPR 2024, arXiv:2311.16494.

Of a class's attributes, clustered by their texts' vectors, one of each cluster is kept: the one most like training
pictures of the class. The choice is kept with the program as its context: (class) and attribute.

Departures: the layer norms of the image tower stay frozen, and no correction is added to the texts' vectors, both of
which the released configuration trains; k-means starts from chosen vectors, not from random ones; without the task's
pictures (or of a class without any among those looked at) the middle attribute of each cluster is kept; the written
templates are our own; pictures are looked at once, so random crops are `recipe.views` kept views; in place of three
epochs at a constant rate of 1e-5, a linear warm-up of 50 steps; float32. The paper keeps 3 attributes by its text, the
released script 2.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Input, Program
from reprogram.core.source import Capability, ImageTextSource, Reading, Source, image_text_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import (
    Place,
    SoftPrompt,
    as_examples,
    context_start,
    from_examples,
    read_descriptions,
    settings_only,
    with_classes,
)
from reprogram.inputs.contexts import SITE
from reprogram.inputs.descriptions import FLAT, Given, pooled
from reprogram.outputs import AttributeScores, Guidance, check_names, named, representatives, texts_for
from reprogram.outputs.templates import TEMPLATES

WRITTEN = 34
"""Templates of the written class texts, the first so many of `outputs.TEMPLATES` (as many as published)."""

BATCH = 64
"""Pictures looked at together where attributes are chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The released configuration's values.

    Attributes:
        attributes: of each class, one text or several, or sets of them, which are put together; or the path of a JSON
            file of such an object, see `reprogram.inputs.descriptions` (`reprogram describe` writes one).
        kept: of each class's attributes (paper: 3 of 15); all where there are not more.
        looked: pictures of the training split that they are compared with at most; 0 for none.
        tokens: M learned words.
        words: that they start as; None for N(0, 0.02^2).
        layout: of the texts with `{class}` and `{attribute}`, after the learned words.
        plain: of those without.
        negative: of those about backgrounds.
        templates: of the written texts that the plain ones are to agree with; None for `WRITTEN` of ours.
        text_weight: of that agreement; 0 for none.
        negative_weight: of the negative entropy among the texts about backgrounds; 0 for none.
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD at 0.032 with momentum 0.9 and weight decay 5e-4, gradients cut at a norm of 1, cosine, 25 epochs in
            batches of 32.
    """

    attributes: Mapping[str, str | tuple[str, ...] | Mapping[str, str | tuple[str, ...]]] | Path | str | None = None
    kept: int = 3
    looked: int = 512
    tokens: int = 4
    words: str | None = "a photo of a"
    layout: str = "{class}, {attribute}."
    plain: str = "{class}."
    negative: str = "background of {class}."
    templates: tuple[str, ...] | None = None
    text_weight: float = 5.0
    negative_weight: float = 3.0
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.032, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_steps=50, epochs=25,
        batch_size=32, augment="crop", views=4, clip_norm=1.0, refresh="once",
    )  # fmt: skip


def context(
    source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int
) -> Sequence[Example]:  # fmt: skip
    """The attributes that are kept of every class, chosen by pictures of the training split.

    Raises:
        ConfigError: there are no attributes, or fewer than one is to be kept.
        DataError: a class has none, or the file is none.
    """
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    given = _given(task.classes, config.attributes)
    if all(len(several) <= config.kept for several in given):
        return _chosen(model, task, given, config, None)
    draw = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    shown = [pool[int(row)] for row in draw[: config.looked]]
    return _chosen(model, task, given, config, _by_class(source, task, shown, config))


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [P; class text with attribute]``, ``O = the class whose attributes are closest on average``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size = source.spec.canvas(config.canvas)
    check_names(model, task.classes)
    held = task.context or _chosen(model, task, _given(task.classes, config.attributes, files=False), config, None)
    kept = pooled(from_examples(held, task.classes))
    pairs = [(t, attribute) for t, several in enumerate(kept) for attribute in several]
    texts = [_text(config.layout, task.classes[t], attribute) for t, attribute in pairs]
    output = AttributeScores(
        texts, [t for t, _ in pairs],
        plain=texts_for(model, task.classes, [config.plain]) if config.text_weight else (),
        negative=texts_for(model, task.classes, [config.negative]) if config.negative_weight else (),
        written=_Written(model, task.classes, TEMPLATES[:WRITTEN] if config.templates is None else config.templates),
        scale=model.scale,
        guidance=Guidance(text_weight=config.text_weight, negative_weight=config.negative_weight),
    )  # fmt: skip
    edit = SoftPrompt(context_start(model, config.tokens, config.words), site=SITE)
    origin = Origin(method=METHOD.name, config=config, task=replace(task, context=tuple(held)))
    return Program([Place(size, size), edit], source, output, origin=origin)


@final
class _Written:
    """Vectors of the written texts, [templates, T, d]; read when they are first needed."""

    def __init__(self, source: ImageTextSource, classes: Sequence[str], templates: Sequence[str]) -> None:
        texts_for(source, classes[:1], templates)  # see that each has a place for the name
        self._source = source
        self._texts = tuple(named(layout, name) for layout in templates for name in classes)
        self._templates = len(templates)

    def __call__(self) -> Tensor:
        vectors = self._source.vectors(self._texts)
        return vectors.view(self._templates, -1, vectors.shape[1])


def _given(classes: Sequence[str], attributes: Given | None, *, files: bool = True) -> list[list[str]]:
    """Every class's attributes, each once; those of a file only where that may be read."""
    if attributes is None:
        remedy = 'Give attributes={"class": ["...", ...]} or a JSON file of them; `reprogram describe` writes one.'
        raise ConfigError(say("attributes", "must be there for every class", None, remedy))
    return pooled(read_descriptions(attributes if files else settings_only(attributes), classes, None))


def _chosen(
    source: ImageTextSource, task: TaskSpec, given: Sequence[Sequence[str]], config: Config,
    pictures: Sequence[Tensor] | None,
) -> list[Example]:  # fmt: skip
    """The attributes kept of each class."""
    kept: list[list[str]] = []
    for t, (name, several) in enumerate(zip(task.classes, given, strict=True)):
        vectors = source.vectors([_text(config.layout, name, attribute) for attribute in several])
        rows = representatives(vectors, config.kept, None if pictures is None else pictures[t])
        kept.append([several[row] for row in rows])
    return as_examples({FLAT: kept}, task.classes)


@torch.no_grad()
def _by_class(source: Source, task: TaskSpec, shown: Sequence[Example], config: Config) -> list[Tensor]:
    """Vectors of some pictures, by class: T tensors [pictures, d]."""
    size = source.spec.canvas(config.canvas)
    place, parts = Input(Place(size, size)), list[Tensor]()
    for start in range(0, len(shown), BATCH):
        files = [base64.b64decode(one.texts[0].partition(",")[2]) for one in shown[start : start + BATCH]]
        prepared = source.prepare(files, task.sample)
        x = torch.stack([prepared[i] for i in range(len(files))])  # pyright: ignore[reportArgumentType]
        seen = source(x.to(source.device), place, Reading()).features
        assert seen is not None
        parts.append(seen)
    width = source.spec.width or 0
    seen = torch.cat(parts) if parts else torch.empty(0, width, device=source.device)
    of = torch.tensor([task.classes.index(one.answer) for one in shown], dtype=torch.int64, device=seen.device)
    return [seen[of == t] for t in range(len(task.classes))]


def _text(layout: str, name: str, attribute: str) -> str:
    """A class text with an attribute.

    >>> _text("{class}, {attribute}.", "hen_house", "small wooden door.")
    'hen house, small wooden door.'
    """
    if "{attribute}" not in layout:
        raise ConfigError(say("layout", "must have {class} and {attribute}", layout))
    before, after = layout.split("{attribute}", 1)
    mark = "\x00"  # so that braces in an attribute mean nothing
    return named(f"{before}{mark}{after}", name).replace(mark, attribute.rstrip(". "))


METHOD = Method(
    name="argue",
    summary="learned words before class names with visual attributes, some of a larger number; backgrounds say nothing",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="ArGue: Attribute-Guided Prompt Tuning for Vision-Language Models",
        authors="Xinyu Tian and Shu Zou and Zhaoyuan Yang and Jing Zhang",
        year=2024,
        arxiv="2311.16494",
        venue="CVPR",
    ),
    config=Config,
    build=build,
    context=context,
    presets={
        "cpu": {
            "recipe.optimizer": "adam", "recipe.lr": 2e-3, "recipe.weight_decay": 0.0, "recipe.batch_size": 100,
            "recipe.warmup_steps": 0,
        },
    },
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS}),
)  # fmt: skip
