"""Self-consistency: several chains of thought are drawn, and the answer that most of them end with is taken.

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models", 2022, arXiv:2203.11171. 40
chains at temperature 0.7 from the 40 likeliest tokens; votes count alike.

Departures: those of `chain_of_thought`. A chain of which no answer can be read is no vote; ties go to the answer whose
chains are together likeliest, where the source tells that, then to the earliest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, prompt_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.reasoning import Chains, chain_edits, choose_chains, stops
from reprogram.inputs.reasoning import Origin as Demonstrated
from reprogram.outputs.parsing import Kind, parser_for
from reprogram.outputs.voted import Voted, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        demonstrations: "own" for this library's, "train" for examples whose targets hold their rationale.
        shots: how many; None for 8 (4 with choices).
        template: how the columns become a question; None for "Q: ..." and "A:".
        instruction: before everything.
        chat: as turns of a chat.
        answer: kind of the answers of a task without classes; None for numbers if the demonstrations' are.
        calculator: recompute the equations of a chain.
        samples: chains (section 3.1: 40).
        temperature: of the draws (section 3.1).
        top_k: tokens drawn from (section 3.1, PaLM).
        top_p: probability of the tokens drawn from.
        weights: "votes" (the paper's choice, table 1) or "probability", by each chain's mean token probability.
        seed: of the draws.
        tokens: to write at most, a chain.
        stop: texts that end it; None for the next question and, unless it is a chat, a blank line.
        recipe: nothing is learned.

    Raises:
        ConfigError: chains that would all be the same.
    """

    demonstrations: Demonstrated = "own"
    shots: int | None = None
    template: str | None = None
    instruction: str = ""
    chat: bool = False
    answer: Kind | None = None
    calculator: bool = False
    samples: int = 40
    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 1.0
    weights: Weights = "votes"
    seed: int = 0
    tokens: int = 256
    stop: tuple[str, ...] | None = None
    recipe: Recipe = Recipe(epochs=1)

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.temperature > 0:
            got = (self.samples, self.temperature)
            raise ConfigError(say("samples, temperature", "must be 1 or more, and above 0", got))


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = question, demonstrations with rationales``, ``O = a vote of the answers parsed``."""
    stop = stops(config.chat) if config.stop is None else config.stop
    writing = Writing(
        tokens=config.tokens, stop=stop, samples=config.samples, temperature=config.temperature,
        top_k=config.top_k, top_p=config.top_p, seed=config.seed,
    )  # fmt: skip
    edits = chain_edits(prompt_source(source), task, _chains(config), config.tokens)
    output = Voted(parser_for(task, config.answer), task.classes, writing, weights=config.weights,
                   calculator=config.calculator)  # fmt: skip
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


def context(source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int) -> Sequence[Example]:
    """Examples of the training split with their rationales, if these are to be shown."""
    return choose_chains(_chains(config), task, pool, seed)


def _chains(config: Config) -> Chains:
    return Chains(demonstrations=config.demonstrations, shots=config.shots, template=config.template,
                  instruction=config.instruction, chat=config.chat)  # fmt: skip


METHOD = Method(
    name="self_consistency",
    summary="a vote of several chains of thought",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.CONCATENATIVE, Alignment.STATISTICAL),
    paper=Paper(
        title="Self-Consistency Improves Chain of Thought Reasoning in Language Models",
        authors="Xuezhi Wang and Jason Wei and Dale Schuurmans and Quoc Le and Ed Chi and Sharan Narang and "
        "Aakanksha Chowdhery and Denny Zhou",
        year=2022,
        arxiv="2203.11171",
        venue="ICLR 2023",
    ),
    config=Config,
    build=build,
    context=context,
    presets={"cpu": {"shots": 4, "samples": 5, "tokens": 128}},
    needs=frozenset({Capability.GENERATION}),
)
