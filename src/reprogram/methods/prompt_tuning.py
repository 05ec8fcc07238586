"""Prompt tuning: learned tokens before the text of a frozen language model, and label words for the classes.

Lester, Al-Rfou, Constant, "The Power of Scale for Parameter-Efficient Prompt Tuning", EMNLP 2021, arXiv:2104.08691.

Departures: AdamW in place of Adafactor, whose learning rate of 0.3 is relative to the size of the numbers it changes;
epochs in place of 30,000 steps. Label words take the place of T5's written-out answers where a task has classes. Models
whose first token is a class token get the prompt after it; text encoders get a linear layer on their vector.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import SoftPrompt, Start, open_task, prompt_start
from reprogram.outputs import Words, answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    r"""The paper's choices (sections 2.1 and 3, as reported; not checked against its code).

    Attributes:
        tokens: n, of the soft prompt (paper: 100 unless said otherwise).
        start: "labels" (class names, then tokens of the vocabulary; the paper's best), "vocabulary", "text", or
            "random" with the vocabulary's mean and deviation.
        text: for start="text"; None for an instruction that names the classes.
        template: how the columns become a prompt; None for "{text}\nLabel:" and its like. `{soft:N}` in it says where
            the soft tokens go.
        words: label words by class; None for the class names.
        recipe: AdamW, constant rate, batches of 32 as in the paper. The rate is the one at which SmolLM2 learned SST-2
            (`docs/lab/2026-11-22-sst2.md`), for embeddings of deviation 0.14; `find_rate` finds that of other models.
    """

    tokens: int = 100
    start: Start = "labels"
    text: str | None = None
    template: str | None = None
    words: Words | None = None
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=0.005, weight_decay=1e-5, epochs=30, batch_size=32, refresh="once", clip_norm=1.0
    )


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template, [P; x]``, ``O = label words`` (or scores of tokens)."""
    model = text_source(source)
    opening = open_task(model, task, config.template, config.tokens)
    start = prompt_start(model, task, opening.tokens, config.start, config.text)
    output = answers(model, task, config.words, after=opening.lead)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, SoftPrompt(start, where=opening.where)], source, output, origin=origin)


METHOD = Method(
    name="prompt_tuning",
    summary="learned tokens before the text of a frozen language model; label words stand for the classes",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="The Power of Scale for Parameter-Efficient Prompt Tuning",
        authors="Brian Lester and Rami Al-Rfou and Noah Constant",
        year=2021,
        arxiv="2104.08691",
        venue="EMNLP",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {"tokens": 20, "start": "text", "recipe.epochs": 5, "recipe.batch_size": 16, "recipe.schedule": "cosine"}
    },
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION}),
    paper_tags="alignment: identity (the language model's own head)",
)
