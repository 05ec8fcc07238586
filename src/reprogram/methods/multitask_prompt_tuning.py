"""MPT: a soft prompt that tasks share, times a low-rank matrix of each task's own.

Wang, Panda, Karlinsky, Feris, Sun, Kim, "Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning", ICLR
2023, arXiv:2303.02861.

Departures: a program is of one task; the source stage (several tasks at once, distilled from a teacher prompt each)
is not run here, but its result can be put in: `edit.shared.copy_(...)`, and factors from `inputs.of_tasks`. The
factors start at a product of ones, so that the prompt starts at the shared one.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import MultitaskPrompt, Start, open_task, prompt_start
from reprogram.outputs import Words, answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's choices (section 4, as reported; not checked against its code).

    Attributes:
        tokens: n, of the prompt (paper: 100).
        rank: r, of the task's factors (paper: 1).
        learn_shared: learn the shared prompt too, as the paper does when it adapts to a target task.
        start: of the shared prompt: "vocabulary", "labels", "text" or "random".
        text: for start="text"; None for an instruction that names the classes.
        template: how the columns become a prompt; None for the source's default.
        words: label words by class; None for the class names.
        recipe: as for prompt tuning, batches of 32 as in the paper.
    """

    tokens: int = 100
    rank: int = 1
    learn_shared: bool = True
    start: Start = "vocabulary"
    text: str | None = None
    template: str | None = None
    words: Words | None = None
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=0.005, weight_decay=1e-5, epochs=30, batch_size=32, refresh="once", clip_norm=1.0
    )


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template, [P * (u v); x]``, ``O = label words`` (or scores of tokens)."""
    model = text_source(source)
    opening = open_task(model, task, config.template, config.tokens)
    prompt = MultitaskPrompt(
        prompt_start(model, task, opening.tokens, config.start, config.text),
        rank=config.rank,
        learn_shared=config.learn_shared,
        where=opening.where,
    )
    output = answers(model, task, config.words, after=opening.lead)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, prompt], source, output, origin=origin)


METHOD = Method(
    name="multitask_prompt_tuning",
    summary="a soft prompt that tasks share, times a low-rank matrix of the task's own; label words for the classes",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning",
        authors="Zhen Wang and Rameswar Panda and Leonid Karlinsky and Rogerio Feris and Huan Sun and Yoon Kim",
        year=2023,
        arxiv="2303.02861",
        venue="ICLR",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {"tokens": 20, "start": "text", "recipe.epochs": 5, "recipe.batch_size": 16, "recipe.schedule": "cosine"}
    },
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION}),
    paper_tags="alignment: identity (the language model's own head)",
)
