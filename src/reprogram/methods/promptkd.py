"""PromptKD: learned image tokens and a projector on a frozen model, taught by a larger one on pictures without labels.

Li, Li, Fu, Zhang, Wang, Chen, Yang, "PromptKD: Unsupervised Prompt Distillation for Vision-Language Models", CVPR
2024, arXiv:2403.02781.

No label of the training split is used: the teacher's scores are all that is learned from. A fitted program holds the
teacher's class vectors and does not need the teacher.

Departures: the teacher is a frozen source with a hand-written template, and was not tuned with prompts first; it looks
at pictures that were already scaled to the student's canvas; the projector reads vectors of length 1; pictures are not
augmented, so that the teacher looks at each once; float32. The released recipe (batch norm, 8 pictures a step, a loss
times 1,000) is known to vary much from run to run: `norm="layer"` does not mind small batches, and a last batch of a
single picture is normalised by the running statistics. For an image tower without tokens, `vision="frame"` learns a
frame of pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, final

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Input, Program
from reprogram.core.source import Capability, ImageTextSource, Reading, Source, image_text_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place, image_prompts, pixel_frame, with_classes
from reprogram.outputs import DistilledClasses, Projector, texts_for
from reprogram.outputs.distilled import Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The released configuration's values.

    Attributes:
        teacher: reference of another image-text source, such as "hf/<folder>" or "bundled/conse?size=224"; None for the
            source itself without edits.
        template: of the teacher's class texts.
        tokens: n learned tokens at every layer.
        depth: J, layers that have their own; as many as the tower has if those are fewer.
        vision: "tokens", or "frame" for a frame of pixels.
        width: pixels of that frame.
        norm: of the projector: "batch" (released), "layer" or "none".
        temperature: of both sides.
        weight: of the loss (200 for FGVC Aircraft, Flowers and DTD).
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD at 0.005 with momentum 0.9 and weight decay 5e-4, cosine, 20 epochs in batches of 8.
    """

    teacher: str | None = None
    template: str = "a photo of a {class}."
    tokens: int = 4
    depth: int = 9
    vision: Literal["tokens", "frame"] = "tokens"
    width: int = 16
    norm: Norm = "batch"
    temperature: float = 1.0
    weight: float = 1000.0
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.005, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_steps=50, epochs=20,
        batch_size=8, refresh="once",
    )  # fmt: skip


@final
class ZeroShot:
    """A teacher: class texts in one template, pictures scaled to its own canvas.

    Args:
        source: asked without edits.
        texts: of the T classes.
    """

    def __init__(self, source: ImageTextSource, texts: Sequence[str]) -> None:
        self.source, self.texts = source, tuple(texts)
        size = source.spec.canvas()
        self._input = Input(Place(size, size))

    def vectors(self) -> Tensor:
        """Its class texts, [T, d], of length 1."""
        return self.source.vectors(self.texts)

    @torch.no_grad()
    def answers(self, pictures: Tensor) -> Tensor:
        """Its class scores [B, T]."""
        self.source.to(pictures.device)
        return self.source(pictures, self._input, Reading(texts=self.texts)).logits


@lru_cache(maxsize=2)
def _loaded(ref: str) -> ImageTextSource:
    from reprogram.sources import load_source

    return image_text_source(load_source(ref))


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [picture, V_i] at every layer i``, ``O = cosine of the projected picture to the teacher's texts``.

    The facts about the teacher that the parts' shapes need are kept as the program's context.
    """
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size = source.spec.canvas(config.canvas)
    teacher = _teacher(model, task.classes, config)
    width, scale = _facts(task.context) if task.context else _asked(teacher())
    projector = Projector(source.spec.width or width, width, config.norm)
    output = DistilledClasses(projector, (len(task.classes), width), teacher, scale=scale,
                              temperature=config.temperature, weight=config.weight)  # fmt: skip
    edits: list[Edit] = [Place(size, size)]
    if config.vision == "tokens":
        edits += image_prompts(source, config.tokens, config.depth)
    elif config.vision == "frame":
        edits.append(pixel_frame(source, size, config.width))
    else:
        raise ConfigError(say("vision", "must be tokens or frame", config.vision))
    kept = (Example(("teacher", "width"), str(width)), Example(("teacher", "scale"), repr(scale)))
    origin = Origin(method=METHOD.name, config=config, task=replace(task, context=kept))
    return Program(edits, source, output, origin=origin)


def _teacher(source: ImageTextSource, classes: Sequence[str], config: Config) -> Callable[[], ZeroShot]:
    """What gives the teacher; it is loaded when it is first asked for."""
    made: list[ZeroShot] = []

    def teacher() -> ZeroShot:
        if not made:
            model = source if config.teacher is None else _loaded(config.teacher)
            made.append(ZeroShot(model, texts_for(model, classes, [config.template])))
        return made[0]

    return teacher


def _asked(teacher: ZeroShot) -> tuple[int, float]:
    return teacher.vectors().shape[1], float(teacher.source.scale)


def _facts(context: Sequence[Example]) -> tuple[int, float]:
    """Width of the teacher's vectors and scale of its cosines, from a program's context."""
    known = {one.texts: one.answer for one in context}
    try:
        return int(known["teacher", "width"]), float(known["teacher", "scale"])
    except (KeyError, ValueError):
        raise DataError(say("context", "must hold the teacher's width and scale", known)) from None


METHOD = Method(
    name="promptkd",
    summary="learned image tokens and a projector, taught by a larger frozen image-text model without labels",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.EMBEDDING, Location.HIDDEN, Operator.CONCATENATIVE, Alignment.LINEAR
    ),
    paper=Paper(
        title="PromptKD: Unsupervised Prompt Distillation for Vision-Language Models",
        authors=(
            "Zheng Li and Xiang Li and Xinyi Fu and Xin Zhang and Weiqiang Wang and Shuo Chen and Jian Yang"
        ),
        year=2024,
        arxiv="2403.02781",
        venue="CVPR",
    ),
    config=Config,
    build=build,
    presets={
        "small": {"weight": 200.0},
        "cpu": {
            "norm": "layer", "recipe.optimizer": "adam", "recipe.lr": 1e-3, "recipe.weight_decay": 0.0,
            "recipe.epochs": 10, "recipe.batch_size": 50, "recipe.warmup_steps": 0,
        },
    },
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS}),
)  # fmt: skip
