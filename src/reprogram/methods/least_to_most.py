"""Least-to-most prompting: the source lists simpler questions and answers them in order, the whole question last.

Zhou et al., "Least-to-Most Prompting Enables Complex Reasoning in Large Language Models", 2022, arXiv:2205.10625.
Greedy writing; every answer is in the prompts that follow.

Departures: the demonstrations are our own, for word problems; give others for other tasks. The list of questions is
limited, repetitions are left out, and a list that cannot be used is asked for once more, with the reason; then the
question is put as a plain chain of thought.
"""

from dataclasses import dataclass

from reprogram.core.conversation import Budget
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, prompt_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.least_to_most import DECOMPOSING, SOLVING, LadderPrompts, LeastToMost
from reprogram.inputs.reasoning import STOP, own_examples, question
from reprogram.outputs.parsing import Kind, parser_for
from reprogram.outputs.voted import ParsedText


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        decomposing: demonstrations of questions taken apart, as text (section 2, stage 1).
        solving: demonstrations of the parts answered in order (section 2, stage 2).
        template: how the columns become a question; None for "Q: ..." and "A:".
        answer: kind of the answers of a task without classes; None for numbers.
        most: questions that one may be taken apart to.
        calls: questions to the source for an input, at most.
        budget_tokens: written by it for an input, at most.
        tokens: of one answer, at most.
        stop: texts that end it.
        recipe: nothing is learned.
    """

    decomposing: str = DECOMPOSING
    solving: str = SOLVING
    template: str | None = None
    answer: Kind | None = None
    most: int = 8
    calls: int = 32
    budget_tokens: int = 8192
    tokens: int = 256
    stop: tuple[str, ...] = STOP
    recipe: Recipe = Recipe(epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = simpler questions, then their answers``, ``O = the last answer parsed``."""
    prompt_source(source)
    prompts = LadderPrompts(decomposing=config.decomposing, solving=config.solving, chain=own_examples(task))
    edit = LeastToMost(
        question(task, config.template), prompts, most=config.most,
        writing=Writing(tokens=config.tokens, stop=config.stop),
        budget=Budget(calls=config.calls, tokens=config.budget_tokens),
    )  # fmt: skip
    return Program([edit], source, ParsedText(parser_for(task, config.answer), task.classes),
                   origin=Origin(method=METHOD.name, config=config, task=task))  # fmt: skip


METHOD = Method(
    name="least_to_most",
    summary="simpler questions first, each answered with all earlier answers in view",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Least-to-Most Prompting Enables Complex Reasoning in Large Language Models",
        authors="Denny Zhou and Nathanael Schärli and Le Hou and Jason Wei and Nathan Scales and Xuezhi Wang and "
        "Dale Schuurmans and Claire Cui and Olivier Bousquet and Quoc Le and Ed Chi",
        year=2022,
        arxiv="2205.10625",
        venue="ICLR 2023",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"tokens": 96, "most": 4}},
    needs=frozenset({Capability.GENERATION}),
)
