"""WARP: learned tokens around the text and around the answer's place, and a learned vector for each class.

Hambardzumyan, Khachatrian, May, "WARP: Word-level Adversarial ReProgramming", ACL 2021, arXiv:2101.00121.

Departures: class vectors start at the head's rows of the label words, without the head's own bias; on causal models the
tokens after the answer, which nothing would see, go before it.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import SoftPrompt, Start, open_task, prompt_start, with_classes, woven_layout
from reprogram.outputs import Words, soft_verbalizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The published configuration (section 4 and its code).

    Attributes:
        tokens: n, of soft tokens in all (paper: about 20).
        start: "random" (normal with the vocabulary's mean and deviation, the paper's), "vocabulary", "labels" or
            "text".
        text: for start="text"; None for an instruction that names the classes.
        template: None for soft tokens around every column and around the answer; one's own must have `{soft:N}`, or
            they all go before the text.
        words: label words whose vectors the classes start at; None for the class names.
        recipe: Adam in batches of 8, gradients clipped to norm 1 (paper: a rate of 1e-3 for 30 epochs, 100 for few
            examples).
    """

    tokens: int = 20
    start: Start = "random"
    text: str | None = None
    template: str | None = None
    words: Words | None = None
    recipe: Recipe = Recipe(lr=1e-3, epochs=30, batch_size=8, refresh="once", clip_norm=1.0)


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template, P at its places``, ``O = class vectors . features``."""
    model, task = text_source(source), with_classes(task, METHOD.name)
    layout = config.template
    if layout is None:
        layout = woven_layout(model.kind, task.sample.columns or ("text",), config.tokens)
    opening = open_task(model, task, layout, config.tokens)
    start = prompt_start(model, task, opening.tokens, config.start, config.text)
    output = soft_verbalizer(model, task, config.words, after=opening.lead)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, SoftPrompt(start, where=opening.where)], source, output, origin=origin)


METHOD = Method(
    name="warp",
    summary="learned tokens around the text and the answer's place; a learned vector for each class",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.LINEAR),
    paper=Paper(
        title="WARP: Word-level Adversarial ReProgramming",
        authors="Karen Hambardzumyan and Hrant Khachatrian and Jonathan May",
        year=2021,
        arxiv="2101.00121",
        venue="ACL",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"recipe.lr": 3e-3, "recipe.schedule": "cosine", "recipe.epochs": 5, "recipe.batch_size": 16}},
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION, Capability.FEATURES}),
)
