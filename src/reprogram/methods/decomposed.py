"""Decomposed prompting: a decomposer hands parts of the question to handlers, one line after the other.

Khot et al., "Decomposed Prompting: A Modular Approach for Solving Complex Tasks", 2022, arXiv:2210.02406. Greedy; at
most ten lines a level.

Departures: no search over several lines at a time; a tool of ours works out arithmetic in place of running what the
model wrote; calls, tokens, levels and repetitions are limited, and the same call within itself is refused; a line that
cannot be used is asked for once more, with the reason, and then the question is put as a plain chain of thought, where
the authors' code gives an empty answer. The demonstrations are our own, for word problems; give others for other tasks.
Merges (`join`, `sum`, ...) are our own list.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from reprogram.core.conversation import Budget
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, prompt_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.decomposition import ANSWERING, ARITHMETIC, Decomposed, Handlers, Limits
from reprogram.inputs.json_answers import letters, words
from reprogram.inputs.reasoning import own_examples, question
from reprogram.outputs.arithmetic import evaluate
from reprogram.outputs.numbers import canonical_number
from reprogram.outputs.parsing import Kind, parser_for
from reprogram.outputs.voted import ParsedText


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        decomposers: demonstrations of decomposers, by name; "main" takes the input's question. They may call others.
        prompts: demonstrations of handlers that answer a single question in JSON or plain text, by name.
        template: how the columns become a question; None for "Q: ..." and "A:".
        answer: kind of the answers of a task without classes; None for numbers.
        steps: lines on one level (the authors' code: 10).
        depth: levels of decomposers within one another.
        calls: questions to the source for an input, at most.
        budget_tokens: written by it for an input, at most.
        tokens: of one line or answer, at most.
        recipe: nothing is learned.

    The tools "calc" (arithmetic), "letters" and "words" (what a text consists of) are always there.
    """

    decomposers: Mapping[str, str] = field(default_factory=lambda: {"main": ARITHMETIC})
    prompts: Mapping[str, str] = field(default_factory=lambda: {"qa": ANSWERING})
    template: str | None = None
    answer: Kind | None = None
    steps: int = 10
    depth: int = 4
    calls: int = 64
    budget_tokens: int = 8192
    tokens: int = 128
    recipe: Recipe = Recipe(epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = a controller of decomposers, prompts and tools``, ``O = its answer parsed``."""
    prompt_source(source)
    tools = {"calc": calculate, "letters": letters, "words": words}
    handlers = Handlers(decomposers=config.decomposers, prompts=config.prompts, tools=tools, chain=own_examples(task))
    edit = Decomposed(
        question(task, config.template), handlers, limits=Limits(steps=config.steps, depth=config.depth),
        writing=Writing(tokens=config.tokens, stop=("\n",)),
        budget=Budget(calls=config.calls, tokens=config.budget_tokens),
    )  # fmt: skip
    return Program([edit], source, ParsedText(parser_for(task, config.answer), task.classes),
                   origin=Origin(method=METHOD.name, config=config, task=task))  # fmt: skip


def calculate(text: str) -> object:
    """The tool "calc": what an expression comes to, as a number; a fraction without an end as text.

    Raises:
        DataError: it is no expression.

    >>> calculate("(2 + 3) * 4"), calculate("1 / 3"), calculate('"1/3" * 3'), calculate("1 / 8")
    (20, '1/3', 1, 0.125)
    """
    value = evaluate(re.sub(r'"([^"]*)"', r"(\1)", text))
    plain = canonical_number(value)
    if value.denominator == 1:
        return int(value)
    return float(plain) if "/" not in plain and canonical_number(type(value)(repr(float(plain)))) == plain else plain


METHOD = Method(
    name="decomposed",
    summary="a decomposer hands the parts of a question to prompts, tools and other decomposers",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Decomposed Prompting: A Modular Approach for Solving Complex Tasks",
        authors="Tushar Khot and Harsh Trivedi and Matthew Finlayson and Yao Fu and Kyle Richardson and "
        "Peter Clark and Ashish Sabharwal",
        year=2022,
        arxiv="2210.02406",
        venue="ICLR 2023",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"tokens": 64, "calls": 24}},
    needs=frozenset({Capability.GENERATION}),
)
