"""SPoT: prompt tuning that starts from another task's prompt.

Vu, Lester, Constant, Al-Rfou, Cer, "SPoT: Better Frozen Model Adaptation through Soft Prompt Transfer", ACL 2022,
arXiv:2110.07904.

A source prompt is a program of `prompt_tuning` (or of this method) on the same model. The transfer is a step of its
own, between building and fitting, because a program file is not a setting:

    sources = [reprogram.load(path, source) for path in paths]
    program = reprogram.build("spot", source, task)
    reprogram.inputs.transfer(program, sources[0])                    # a source task one knows to be fit
    best = reprogram.inputs.most_similar(probe, sources)              # or: alike to a prompt trained for a few steps,
    reprogram.inputs.transfer(program, *sources, weights=[...])       # or a mixture, weighed by similarity

Departures: those of `prompt_tuning`. Without a transfer this is prompt tuning from a sample of the vocabulary.
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
    """The paper's choices (section 2, as reported; not checked against its code).

    Attributes:
        tokens: n, of the soft prompt (paper: 100); a source prompt is cut or repeated to that.
        start: before a transfer: "vocabulary" (the paper's), "labels", "text" or "random".
        text: for start="text"; None for an instruction that names the classes.
        template: how the columns become a prompt; None for the source's default.
        words: label words by class; None for the class names.
        recipe: as for prompt tuning.
    """

    tokens: int = 100
    start: Start = "vocabulary"
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
    name="spot",
    summary="prompt tuning that starts from the prompt of another task, the most similar one",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="SPoT: Better Frozen Model Adaptation through Soft Prompt Transfer",
        authors="Tu Vu and Brian Lester and Noah Constant and Rami Al-Rfou and Daniel Cer",
        year=2022,
        arxiv="2110.07904",
        venue="ACL",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"tokens": 20, "recipe.epochs": 5, "recipe.batch_size": 16, "recipe.schedule": "cosine"}},
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION}),
    paper_tags="alignment: identity (the language model's own head)",
)
