"""AutoVP: a frame around an image whose size is learned too, one of four output maps, and a search over all of it.

Tsao, Hsiung, Chen, Liu, Ho, "AutoVP: An Automated Visual Prompting Framework and Benchmark", ICLR 2024,
arXiv:2310.08381. This file is one program; `reprogram search --method autovp` searches its space.

Departures: the default of each choice is ours, for the paper leaves them to its search; trials are ranked by
validation (the code: by training accuracy); "iter" maps anew in every epoch, from the outputs that training sees anyway
(`recipe.refresh="exact"` for a pass of its own); "semantic" compares names by a sentence encoder (the paper: by CLIP's
text tower); "fully" is on standardised scores and starts at zero; for classifiers only, not for CLIP.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Output, Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import ScaledFrame, padded
from reprogram.outputs import ChosenClasses, FrequencyMap, Linear, semantic_map, text_encoder, text_vectors
from reprogram.sources import load_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes and recipe are those of the paper's code for vision models; the other defaults are ours.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the image's longer side at a scale of 1; None for four sevenths of the canvas (128 of 224).
        scale: of the image at the start, 0.1 to 5 (paper: 0.5, 1 or 1.5).
        learn_scale: learn the scale; otherwise the image simply has ``floor(inner * scale)`` pixels.
        output: "freq", by counts taken before the first epoch; "iter", by counts in every epoch; "semantic", by names;
            "fully", a linear layer.
        per_class: m, source classes to each target (paper: 1, 5 or 10); of no meaning for "fully".
        encoder: of class names for "semantic", bundled/... or hf/....
        chosen: source classes of each target for "semantic"; filled in from names, and kept with the program.
        recipe: Adam at 0.001, divided by ten after 50 % and 72 % of 200 epochs.
    """

    canvas: int | None = None
    inner: int | None = None
    scale: float = 1.0
    learn_scale: bool = True
    output: Literal["freq", "iter", "semantic", "fully"] = "iter"
    per_class: int = 1
    encoder: str = "bundled/minilm-l6"
    chosen: tuple[tuple[int, ...], ...] | None = None
    recipe: Recipe = Recipe(lr=0.001, schedule="multistep", epochs=200, batch_size=128)

    def __post_init__(self) -> None:
        if not 0.1 <= self.scale <= 5:
            raise ConfigError(say("scale", "must be between 0.1 and 5", self.scale))
        if self.per_class < 1:
            raise ConfigError(say("per_class", "must be 1 or more", self.per_class))


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = scaled image in a frame``, ``O = the map chosen``."""
    canvas = source.spec.canvas(config.canvas)
    inner = config.inner or max(1, round(canvas * 4 / 7))
    edits: list[Edit]
    if config.learn_scale:
        edits = [ScaledFrame(canvas, inner, task.sample.shape, config.scale)]
    else:
        edits = padded(source.spec, task, canvas=canvas, inner=min(int(inner * config.scale), canvas))
    output = _output(source, task, config)
    if isinstance(output, ChosenClasses):
        config = replace(config, chosen=output.chosen())
    origin = Origin(method=METHOD.name, config=replace(config, recipe=_recipe(config)), task=task)
    return Program(edits, source, output, origin=origin)


def _output(source: Source, task: TaskSpec, config: Config) -> Output:
    sources, targets = source.spec.outputs, len(task.classes)
    if config.output == "fully":
        return Linear(sources, targets)
    if config.output == "semantic":
        chosen = config.chosen or by_name(source, task.classes, config)
        if len(chosen) != targets:
            raise ConfigError(say("chosen", f"must name source classes for each of the {targets} targets", len(chosen)))
        return ChosenClasses(chosen, sources)
    return FrequencyMap(sources, targets, config.per_class)


def by_name(source: Source, classes: Sequence[str], config: Config) -> list[list[int]]:
    """The source classes whose names are closest to each target's, by the cosine of their vectors.

    Raises:
        CapabilityError: the source's classes have no names, or the encoder is none.
        ConfigError: there are too few source classes, or the encoder is behind an endpoint.
        MissingExtraError: the encoder's extra is not installed.
    """
    labels = source.spec.labels
    if labels is None:
        remedy = 'Give names: wrap(..., labels=...), or use output="iter".'
        raise CapabilityError(say("source", "must have class names for a semantic map", source.spec.ref, remedy))
    if not config.encoder.startswith(("bundled/", "hf/")):
        raise ConfigError(say("encoder", "must be bundled/... or hf/...", config.encoder, 'Use "bundled/minilm-l6".'))
    encoder = text_encoder(load_source(config.encoder))
    names = [" ".join(name.replace("_", " ").split()) for name in (*labels, *classes)]
    vectors = text_vectors(encoder, names).cpu()
    similarity = vectors[: len(labels)] @ vectors[len(labels) :].T
    found = semantic_map(similarity, config.per_class)
    return [[int(one) for one in row] for row in torch.unbind(found)]


def _recipe(config: Config) -> Recipe:
    """A map that is not made anew in every epoch is made once."""
    if config.output != "iter":
        return replace(config.recipe, refresh="once")
    if config.recipe.refresh == "once":
        remedy = 'Use output="freq" for a map that is made once.'
        raise ConfigError(say("recipe.refresh", 'must be "stream" or "exact" for output="iter"', "once", remedy))
    return config.recipe


METHOD = Method(
    name="autovp",
    summary="a learned frame, a learned image size, and one of four output maps; made to be searched",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Operator.PARAMETRIC, Alignment.STATISTICAL
    ),
    paper=Paper(
        title="AutoVP: An Automated Visual Prompting Framework and Benchmark",
        authors="Hsi-Ai Tsao and Lei Hsiung and Pin-Yu Chen and Sijia Liu and Tsung-Yi Ho",
        year=2024,
        arxiv="2310.08381",
        venue="ICLR",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {
            "canvas": 128,
            "recipe.lr": 0.02,
            "recipe.schedule": "cosine",
            "recipe.epochs": 8,
            "recipe.batch_size": 50,
        }
    },
    needs=frozenset({Capability.GRADIENTS}),
    paper_tags="operator: concatenative (frame) and parametric (resize)",
    space={
        "scale": "0.5,1.0,1.5",
        "learn_scale": "true,false",
        "output": "freq,iter,semantic,fully",
        "per_class": "1,5,10",
        "recipe.lr": "1e-3:1e-1:log",
    },
)
