"""Chain of thought: demonstrations that show the steps before the answer make the source write steps, too.

Wei et al., "Chain-of-Thought Prompting Elicits Reasoning in Large Language Models", 2022, arXiv:2201.11903. Eight
demonstrations (four with choices), greedy writing that ends at a blank line or the next question, and the answer behind
"The answer is".

Departures: the demonstrations are our own or come from the training split, where its targets hold rationales; classes
are offered as lettered choices; where the cue is missing the last number or choice is taken (Kojima et al., 2022,
arXiv:2205.11916). The calculator works out equations of bare numbers only, and is off unless asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, prompt_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.reasoning import Chains, chain_edits, choose_chains, stops
from reprogram.inputs.reasoning import Origin as Demonstrated
from reprogram.outputs.parsing import Kind, parser_for
from reprogram.outputs.voted import ParsedText


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        demonstrations: "own" for this library's, "train" for examples whose targets hold their rationale.
        shots: how many; None for 8 (4 with choices), as in the paper (section 3.1).
        template: how the columns become a question; None for "Q: ..." and "A:".
        instruction: before everything.
        chat: as turns of a chat.
        answer: kind of the answers of a task without classes; None for numbers if the demonstrations' are.
        calculator: recompute the equations of a chain (section 3.2, "external calculator").
        tokens: to write at most.
        stop: texts that end it; None for the next question and, unless it is a chat, a blank line (section 3.1).
        recipe: nothing is learned.
    """

    demonstrations: Demonstrated = "own"
    shots: int | None = None
    template: str | None = None
    instruction: str = ""
    chat: bool = False
    answer: Kind | None = None
    calculator: bool = False
    tokens: int = 256
    stop: tuple[str, ...] | None = None
    recipe: Recipe = Recipe(epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = question, demonstrations with rationales``, ``O = the answer parsed``."""
    stop = stops(config.chat) if config.stop is None else config.stop
    writing = Writing(tokens=config.tokens, stop=stop)
    edits = chain_edits(prompt_source(source), task, _chains(config), config.tokens)
    output = ParsedText(parser_for(task, config.answer), task.classes, writing, calculator=config.calculator)
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


def context(source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int) -> Sequence[Example]:
    """Examples of the training split with their rationales, if these are to be shown."""
    return choose_chains(_chains(config), task, pool, seed)


def _chains(config: Config) -> Chains:
    return Chains(demonstrations=config.demonstrations, shots=config.shots, template=config.template,
                  instruction=config.instruction, chat=config.chat)  # fmt: skip


METHOD = Method(
    name="chain_of_thought",
    summary="demonstrations with the steps that lead to their answers; the answer is parsed",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Chain-of-Thought Prompting Elicits Reasoning in Large Language Models",
        authors="Jason Wei and Xuezhi Wang and Dale Schuurmans and Maarten Bosma and Brian Ichter and Fei Xia and "
        "Ed Chi and Quoc Le and Denny Zhou",
        year=2022,
        arxiv="2201.11903",
        venue="NeurIPS",
    ),
    config=Config,
    build=build,
    context=context,
    presets={"cpu": {"shots": 4, "tokens": 128}},
    needs=frozenset({Capability.GENERATION}),
)
