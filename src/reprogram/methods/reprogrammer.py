"""Reprogrammer: a frame of pixels and the tokens of the class texts, learned together on a frozen image-text model.

Geng, Chen, "Model Reprogramming Outperforms Fine-tuning on Out-of-distribution Data in Text-Image Encoders", 2024,
arXiv:2403.10800. When predicting, some of the unedited model is mixed in ("residual").

Departures: the released code trains the source's own table of tokens and of positions; here the source stays as it is,
and what is learned is a change of the rows that the class texts use, which gives the same vectors (the decay then pulls
to the pretrained table, not to zeros). Where a class comes twice in a batch its other picture or text is no wrong
answer. One AdamW for both sides, where the code has Adam with L2 for the pixels, and other betas for the text. Pictures
are scaled once, not to 64 pixels first. On another canvas than 224 pixels the frame keeps its share of it.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.errors import CapabilityError, say
from reprogram.core.method import Group, Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Input, Program
from reprogram.core.source import Capability, ImageTextSource, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.texts import Texts
from reprogram.inputs import BoundedFrame, Place, TokenDelta, frame_mask, in_proportion, with_classes
from reprogram.outputs import ResidualScores, texts_for
from reprogram.sources import LanguageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The released code's values.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        width: pixels of the frame; None for 16 of 224 (the hole is 192).
        dropout: share of the frame's pattern that is left out while training (0).
        template: the class text, with `{class}` or `{a class}`.
        positions: learn a change of the text tower's positions as well.
        residual: how much of the unedited model is mixed in when predicting (0.4); 0 for none.
        loss: "contrastive" within the batch, or "cross_entropy" over all classes.
        alpha: of the focal loss.
        gamma: of the focal loss.
        recipe: 0.005 for pixels and 0.0005 for tokens, decay 0.1, 500 warm-up steps, cosine, 25 epochs in batches of
            128.
    """

    canvas: int | None = None
    width: int | None = None
    dropout: float = 0.0
    template: str = "a photo of a {class}."
    positions: bool = True
    residual: float = 0.4
    loss: Literal["contrastive", "cross_entropy"] = "contrastive"
    alpha: float = 0.8
    gamma: float = 4.0
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=0.005, weight_decay=0.1, schedule="cosine", warmup_steps=500, epochs=25, batch_size=128,
        groups=(Group(prefix="input.edits.2", lr=0.0005),),
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, frame, clamp; token changes``, ``O = the closest class text``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size = source.spec.canvas(config.canvas)
    width = in_proportion(16, size) if config.width is None else config.width
    texts = texts_for(model, task.classes, [config.template])
    edits: list[Edit] = [
        Place(size, size),
        BoundedFrame(frame_mask(size, width), channels=task.sample.shape[0], dropout=config.dropout),
        _delta(model, texts, config.positions),
    ]
    output = ResidualScores(
        texts, residual=config.residual, scale=model.scale, bias=model.bias, loss=config.loss, alpha=config.alpha,
        gamma=config.gamma,
    )  # fmt: skip
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program(edits, source, output, origin=origin)


def _delta(model: ImageTextSource, texts: tuple[str, ...], positions: bool) -> TokenDelta:
    tower = model.text
    if not isinstance(tower, LanguageSource):
        raise CapabilityError(say("source", "must tell the tokens of its class texts", type(tower).__name__))
    tokens = tower.tokens(Texts({"text": texts}), Input())
    return TokenDelta(tokens.ids.cpu(), tokens.mask.bool().cpu(), tower.embeddings.shape[1], positions=positions)


METHOD = Method(
    name="reprogrammer",
    summary="a learned frame and learned changes of the class texts' tokens, with the unedited model mixed in",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.INPUT, Location.EMBEDDING, Operator.ADDITIVE, Alignment.RULE_BASED
    ),
    paper=Paper(
        title="Model Reprogramming Outperforms Fine-tuning on Out-of-distribution Data in Text-Image Encoders",
        authors="Andrew Geng and Pin-Yu Chen",
        year=2024,
        arxiv="2403.10800",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {
            "loss": "cross_entropy", "recipe.warmup_steps": 0, "recipe.epochs": 10, "recipe.batch_size": 50,
            "recipe.lr": 0.02, "recipe.weight_decay": 0.01,
        }
    },
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS}),
    paper_tags="the text side is parametric, the alignment identity in the survey's list",
)  # fmt: skip
