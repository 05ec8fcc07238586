"""BlackVIP: a pattern for each image, made by a small network from a frozen encoder's code, learned from losses alone.

Oh, Hwang, Lee, Lim, Jung, Jung, Choi, Song, "BlackVIP: Black-Box Visual Prompting for Robust Transfer Learning", CVPR
2023, arXiv:2303.14773.

Departures: on a classifier without class texts the output is a label map, made from what the trials see anyway. The
default encoder is bundled (published: ViT-MAE-base, a setting away); trigger and decoder grow or shrink with its width
and with the canvas. Each image is encoded once and remembered; the trials of a step are asked together. `se=True`
stands for BlackVIP-SE (Oh et al. 2024, arXiv:2407.17491), of which only its aim, less time and computation, is
established here: it takes codes from principal components of the images, with no encoder at all.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe, Search
from reprogram.core.program import Input, Program
from reprogram.core.source import Capability, Reading, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Coordinator, Place
from reprogram.inputs.codes import Encode
from reprogram.outputs import class_output
from reprogram.sources import load_source

Mapping = Literal["frequency", "random", "many_to_one", "blm", "blm_plus"]


SMALLEST = 128
"""Pixels that an encoder of any size is given at least (published: always 224): codes are made once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's defaults (section 4 and its code).

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        encoder: an image source that gives features, for the codes; never an endpoint.
        epsilon: strength of the pattern; 0.2 to 1 in the paper, by data set.
        start: "random" (published: some pattern from the first step on), or "zero" (the last layer starts at zeros, so
            that the first program is the one without a pattern).
        se: principal components of the images in place of the encoder's codes.
        components: how many, for `se`; 98 of them and a trigger.
        remember: MiB of codes to keep; 0 runs the encoder for every trial, which changes nothing but the time.
        template: of class texts, on an image-text source (as published).
        mapping: which source classes stand for a target; see `outputs.label_map`.
        recipe: SPSA-GC, 10 calls a step.
    """

    canvas: int | None = None
    encoder: str = "bundled/efficientnet-lite0"
    epsilon: float = 1.0
    start: Literal["random", "zero"] = "random"
    se: bool = False
    components: int = 98
    remember: int = 64
    template: str = "a photo of a {class}."
    mapping: Mapping = "frequency"
    recipe: Recipe = Recipe(optimizer="spsa_gc", lr=0.01, momentum=0.9, search=Search(), epochs=5000, batch_size=128)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, pattern from a code, clip``, ``O = label map, or the closest class text``.

    Raises:
        CapabilityError: the encoder is no image source that gives features.
        ConfigError: the encoder is an endpoint, or a setting is out of range.
    """
    size, channels = source.spec.canvas(config.canvas), task.sample.shape[0]
    encode, code = (None, config.components) if config.se else _encoder(config.encoder, size, channels)
    coordinator = Coordinator(
        encode, code, size, deviation=source.spec.preprocessing.std, epsilon=config.epsilon, channels=channels,
        remember=config.remember << 20,
    )  # fmt: skip
    if config.start == "zero":
        last = coordinator.decoder.body[-1]
        assert isinstance(last, nn.ConvTranspose2d)
        nn.init.zeros_(last.weight)
    output = class_output(source, task.classes, config.mapping, config.template)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), coordinator], source, output, origin=origin)


def _encoder(ref: str, canvas: int, channels: int) -> tuple[Encode, int]:
    """What makes codes of images of the canvas, and how long they are."""
    if ref.startswith("endpoint/"):
        raise ConfigError(say("encoder", "must be a source that runs here: a program file may name it", ref))
    source, reading = load_source(ref), Reading(features=True)
    if source.spec.modality != "image" or Capability.FEATURES not in source.capabilities:
        raise CapabilityError(say("encoder", "must be an image source that gives features", ref))
    source.attach([], reading)
    side = max(canvas, SMALLEST) if source.spec.resizable else source.spec.canvas()

    def encode(x: Tensor) -> Tensor:
        source.to(x.device)
        x = x if x.shape[-1] == side else F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        features = source(x, Input(), reading).features
        assert features is not None
        return features.detach()

    with torch.no_grad():
        return encode, encode(torch.zeros(1, channels, canvas, canvas)).shape[1]


METHOD = Method(
    name="blackvip",
    summary="a pattern for each image of a black box, from a frozen encoder's code, learned from losses alone",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Operator.PARAMETRIC, Alignment.STATISTICAL
    ),
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
    presets={"cpu": {"canvas": 96, "recipe.epochs": 6, "recipe.batch_size": 32}},
    paper_tags="alignment: identity (texts of the classes) in the paper",
)
