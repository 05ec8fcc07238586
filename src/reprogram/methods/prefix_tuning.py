"""Prefix-tuning: learned keys and values before those of the text, in every layer of a frozen language model.

Li, Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", ACL 2021, arXiv:2101.00190.

Departures: the prefix starts at the keys and values of a real text, also where the small network makes it (the paper
does so for few examples only), so it needs no learning rate of 5e-5 to begin with; label words where a task has
classes. `hidden=none` learns the keys and values themselves, which did better than the network in comparisons with
such a start.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import EncodedPrefix, Prefix, Start, open_task, prefix_start
from reprogram.outputs import Words, answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's choices (sections 4.3 and 5, as reported; not checked against its code).

    Attributes:
        tokens: n, of the prefix (paper: 10 for table-to-text, 200 for summarisation).
        hidden: of the network that makes the prefix (paper: 512 and 800); None for none.
        start: "text" (keys and values of a real text), "labels" (of the class names), "vocabulary" (of random tokens)
            or "random" (normal, with the scale of real ones).
        text: for start="text"; None for an instruction that names the classes.
        template: how the columns become a prompt; None for the source's default.
        words: label words by class; None for the class names.
        recipe: AdamW, batches of 5 in the paper, 16 here.
    """

    tokens: int = 10
    hidden: int | None = 512
    start: Start = "text"
    text: str | None = None
    template: str | None = None
    words: Words | None = None
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=1e-3, schedule="cosine", epochs=10, batch_size=16, refresh="once", clip_norm=1.0
    )


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template, [P; K], [Q; V]``, ``O = label words`` (or scores of tokens)."""
    model = text_source(source)
    opening = open_task(model, task, config.template, None)
    start = prefix_start(model, task, config.tokens, config.start, config.text)
    if config.hidden is None:
        prefix = Prefix(start)
    else:
        prefix = EncodedPrefix(start, width=model.embeddings.shape[1], hidden=config.hidden)
    output = answers(model, task, config.words, after=opening.lead)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, prefix], source, output, origin=origin)


METHOD = Method(
    name="prefix_tuning",
    summary="learned keys and values before those of the text in every layer, made by a small network",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE,
        Location.HIDDEN,
        Operator.CONCATENATIVE,
        Operator.PARAMETRIC,
        Alignment.RULE_BASED,
    ),
    paper=Paper(
        title="Prefix-Tuning: Optimizing Continuous Prompts for Generation",
        authors="Xiang Lisa Li and Percy Liang",
        year=2021,
        arxiv="2101.00190",
        venue="ACL",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"hidden": None, "recipe.lr": 5e-3, "recipe.epochs": 5}},
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION}),
    paper_tags="operator: concatenative; alignment: identity (the language model's own head)",
)
