"""IRCoT: retrieval and reasoning in turns, then a reader over all that was found.

Trivedi et al., "Interleaving Retrieval with Chain-of-Thought Reasoning for Knowledge-Intensive Multi-Step Questions",
2022, arXiv:2212.10509. Greedy; one sentence a turn, at most ten; passages are collected up to 15.

Departures: BM25 over texts at hand in place of a search server; sentences are split by rule; near duplicates are told
by common word triples; the demonstration is our own. The authors tune the number of passages a turn and find more than
20 points between the best and the worst setting: tune it, too.
"""

from dataclasses import dataclass, replace

from reprogram.core.conversation import Budget
from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, prompt_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.interleaved import DEMONSTRATION, DIRECT, Interleaved, Reader, Turns
from reprogram.inputs.reasoning import STOP, question
from reprogram.inputs.retrieval import Passage, Passages, read_passages
from reprogram.outputs.parsing import Kind, parser_for
from reprogram.outputs.voted import ParsedText


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        corpus: a folder of .txt and .md files, or a file of JSON lines with "text" and perhaps "title".
        passages: (title, text) pairs in place of a corpus.
        digest: of the passages; filled in when a program is built, so that one that is built again from its file finds
            the same.
        k: passages to find each turn (the paper tunes it among 2, 4, 6 and 8).
        sentences: turns at most.
        most: passages in all.
        reader: "cot", "direct", or "none" for the answer in the last sentence.
        reasoning: demonstrations with passages and sentences, as text.
        reading: demonstrations of a direct reader, as text.
        template: how the columns become a question; None for "Q: ..." and "A:".
        answer: kind of the answers of a task without classes.
        budget_tokens: written by the source for an input, at most.
        tokens: of one sentence or answer, at most.
        recipe: nothing is learned.
    """

    corpus: str | None = None
    passages: tuple[tuple[str, str], ...] = ()
    digest: str = ""
    k: int = 6
    sentences: int = 10
    most: int = 15
    reader: Reader = "cot"
    reasoning: str = DEMONSTRATION
    reading: str = DIRECT
    template: str | None = None
    answer: Kind = "text"
    budget_tokens: int = 8192
    tokens: int = 128
    recipe: Recipe = Recipe(epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = passages and sentences in turns``, ``O = the reader's answer parsed``."""
    prompt_source(source)
    found = _passages(config)
    turns = Turns(k=config.k, sentences=config.sentences, most=config.most, reader=config.reader,
                  reasoning=config.reasoning, reading=config.reading)  # fmt: skip
    edit = Interleaved(
        question(task, config.template), found, turns, writing=Writing(tokens=config.tokens, stop=STOP),
        budget=Budget(calls=config.sentences + 1, tokens=config.budget_tokens),
    )  # fmt: skip
    parser = parser_for(task, None if task.classes else config.answer)
    settings = replace(config, digest=found.digest())
    return Program([edit], source, ParsedText(parser, task.classes),
                   origin=Origin(method=METHOD.name, config=settings, task=task))  # fmt: skip


def _passages(config: Config) -> Passages:
    if (config.corpus is None) == (not config.passages):
        got = (config.corpus, len(config.passages))
        raise ConfigError(say("corpus, passages", "must be given, one of the two", got))
    given = [Passage(*pair) for pair in config.passages] if config.corpus is None else read_passages(config.corpus)
    found = Passages(given)
    if config.digest and config.digest != found.digest():
        raise DataError(say("corpus", f"must be the one the program was built with ({config.digest[:12]})",
                            found.digest()[:12]))  # fmt: skip
    return found


METHOD = Method(
    name="ircot",
    summary="retrieval and reasoning in turns, then a reader over all that was found",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Interleaving Retrieval with Chain-of-Thought Reasoning for Knowledge-Intensive Multi-Step Questions",
        authors="Harsh Trivedi and Niranjan Balasubramanian and Tushar Khot and Ashish Sabharwal",
        year=2022,
        arxiv="2212.10509",
        venue="ACL 2023",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"k": 2, "sentences": 4, "most": 6, "tokens": 64}},
    needs=frozenset({Capability.GENERATION}),
)
