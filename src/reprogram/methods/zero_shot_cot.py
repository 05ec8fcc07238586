"""Zero-shot chain of thought: "Let's think step by step", then a second pass that asks for the answer alone.

Kojima et al., "Large Language Models are Zero-Shot Reasoners", 2022, arXiv:2205.11916. Greedy writing, 128 tokens of
steps and 32 of answer; the first answer of the task's kind after the second cue is taken.

Departures: a letter is a choice only as a word of its own; classes are offered as lettered choices; numbers are
compared by value and not by spelling.
"""

from dataclasses import dataclass

from reprogram.core.conversation import Budget
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, prompt_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.reasoning import TRIGGER, TwoPasses, cue_for, question
from reprogram.outputs.parsing import Kind, parser_for
from reprogram.outputs.voted import ParsedText


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        template: how the columns become a question; None for "Q: ..." and "A:".
        trigger: after the question (table 4).
        cue: before the answer; None for that of the task's kind of answer (appendix A.5).
        chat: as turns of a chat.
        answer: kind of the answers of a task without classes.
        tokens: of the steps, at most (appendix A.4).
        answer_tokens: of the answer.
        recipe: nothing is learned.
    """

    template: str | None = None
    trigger: str = TRIGGER
    cue: str | None = None
    chat: bool = False
    answer: Kind | None = None
    tokens: int = 128
    answer_tokens: int = 32
    recipe: Recipe = Recipe(epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = question and trigger, then steps and cue``, ``O = the answer parsed``."""
    prompt_source(source)
    kind = parser_for(task, config.answer).kind
    cue = cue_for(task, kind) if config.cue is None else config.cue
    edit = TwoPasses(
        question(task, config.template), trigger=config.trigger, cue=cue, chat=config.chat, budget=Budget(calls=2),
        writing=Writing(tokens=config.tokens, stop=("\nQ:",)),
        answer=Writing(tokens=config.answer_tokens, stop=("\nQ:",)),
    )  # fmt: skip
    parser = parser_for(task, config.answer, markers=("cue",), cues=(cue,), fallback="none")
    return Program([edit], source, ParsedText(parser, task.classes),
                   origin=Origin(method=METHOD.name, config=config, task=task))  # fmt: skip


METHOD = Method(
    name="zero_shot_cot",
    summary="ask for the steps without demonstrations, then for the answer",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Large Language Models are Zero-Shot Reasoners",
        authors="Takeshi Kojima and Shixiang Shane Gu and Machel Reid and Yutaka Matsuo and Yusuke Iwasawa",
        year=2022,
        arxiv="2205.11916",
        venue="NeurIPS",
    ),
    config=Config,
    build=build,
    needs=frozenset({Capability.GENERATION}),
)
