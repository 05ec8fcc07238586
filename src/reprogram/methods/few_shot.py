"""In-context learning: a few examples with their answers before the text, nothing learned.

Brown et al., "Language Models are Few-Shot Learners", 2020, arXiv:2005.14165. Choice of examples for each text: Liu et
al., "What Makes Good In-Context Examples for GPT-3?", 2021, arXiv:2101.06804 (nearest); Ye et al., "Compositional
Exemplars for In-context Learning", 2023, arXiv:2302.05698 (dpp); Su et al., 2022, arXiv:2209.01975 (votes).
Calibration: Zhao et al., 2021, arXiv:2102.09690 (contextual); Zhou et al., 2023, arXiv:2309.17249 (batch); Fei et al.,
2023, arXiv:2305.19148 (domain); Holtzman et al., 2021, arXiv:2104.08315 (pmi).

Departures: the content-free inputs are "N/A", "[MASK]" and "none"; batch calibration takes training texts, so that the
program's answer to a text does not depend on what else is asked.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Output, Program
from reprogram.core.source import Capability, PromptSource, Source, TextSource, prompt_source, text_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.texts import Texts
from reprogram.core.writing import Grammar, Writing
from reprogram.inputs import Demonstrations, Template, default_layout
from reprogram.inputs.jinja import JinjaLayout
from reprogram.inputs.selection import Order, arrange, balanced_choice, random_choice, vote_k
from reprogram.inputs.selection_query import VectorSelector, WordSelector
from reprogram.outputs import Calibrated, Likelihood, Words, content_free
from reprogram.outputs.class_texts import text_encoder, text_vectors
from reprogram.outputs.label_words import words_of
from reprogram.outputs.parsing import Parser
from reprogram.outputs.voted import ParsedText
from reprogram.sources import load_source

Select = Literal["random", "balanced", "first", "votes", "nearest", "bm25", "dpp"]
Calibration = Literal["none", "contextual", "batch", "domain", "pmi"]
EACH = ("nearest", "bm25", "dpp")
"""Choose for each text anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    r"""Settings.

    Attributes:
        shots: examples shown; 0 for none (Brown et al., sec. 2: 0, 1, and as many as fit).
        select: how they are chosen from the training split: at "random", "balanced" over the classes, the "first",
            by "votes" of their neighbours; or for each text: the "nearest" vectors, "bm25", "dpp" (near and varied).
        order: of the prompt: "reversed" (best or first drawn last, next to the text), "ranked", "interleaved" by
            class, "shuffled".
        pool: training examples that are looked at, and, where each text has its own, kept with the program.
        embedder: makes vectors of texts for "votes", "nearest" and "dpp".
        template: how the columns become a prompt; None for "{text}\nLabel:" and its like.
        words: label words by class; None for the class names.
        instruction: before the examples.
        separator: between examples.
        chat: as turns of a chat.
        jinja: the whole prompt as a jinja2 template, see `inputs.jinja`; in place of template, separator and chat.
        read: classes by "likelihood" of their words, or off the "text" that is written; None for the former where the
            source gives log-probabilities.
        answer: of a task of generation, what is compared: the whole "text", or the first "number" or "json" in it.
        normalise: of the likelihood: "sum", "token", "char" or "byte".
        calibration: "none"; "contextual", by inputs without content; "domain", by random words of the examples;
            "pmi", by the words right before the answer alone; "batch", by training texts.
        observe: training texts for "batch" (Zhou et al.: about 10 are too few, more than 100 change little).
        new_tokens: to write at most, where texts are written.
        stop: where writing ends.
        constrain: where classes are read off the text, let nothing but label words be written.
        schema: of a task of generation: a JSON schema that what is written must keep to.
        recipe: one pass for the calibration; there is nothing to learn.
    """

    shots: int = 8
    select: Select = "balanced"
    order: Order = "reversed"
    pool: int = 1000
    embedder: str = "bundled/minilm-l6"
    template: str | None = None
    words: Words | None = None
    instruction: str = ""
    separator: str = "\n\n"
    chat: bool = False
    jinja: str | None = None
    read: Literal["likelihood", "text"] | None = None
    answer: Literal["text", "number", "json"] = "text"
    normalise: Literal["sum", "token", "char", "byte"] = "sum"
    calibration: Calibration = "none"
    observe: int = 128
    new_tokens: int = 32
    stop: tuple[str, ...] = ("\n\n",)
    constrain: bool = False
    schema: str | None = None
    recipe: Recipe = Recipe(refresh="once", epochs=1)

    def __post_init__(self) -> None:
        for name, least in (("shots", 0), ("pool", 1), ("observe", 1), ("new_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(say(name, f"must be {least} or more", getattr(self, name)))
        if self.calibration in ("contextual", "domain") and self.select in EACH and self.shots:
            remedy = 'Use calibration "batch", or examples that are the same for all texts.'
            got = (self.calibration, self.select)
            raise ConfigError(say("calibration", "must not need a prior for every text's own examples", got, remedy))


def context(source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int) -> list[Example]:
    """The examples that are shown, in order; or those from which each text's own are chosen."""
    if config.shots == 0:
        return []
    if len(pool) < config.shots:
        raise ConfigError(say("shots", f"must be at most the {len(pool)} training examples", config.shots))
    looked = random.Random(seed).sample(range(len(pool)), min(len(pool), max(config.pool, config.shots)))
    if config.select == "first":
        looked = list(range(config.shots))
    some = [pool[i] for i in looked]
    if config.select in EACH:
        return some
    answers = [one.answer for one in some]
    if config.select == "first":
        chosen = list(range(config.shots))[::-1]
    elif config.select == "votes":
        chosen = vote_k(_vectors(config.embedder, _joined(some)), config.shots)
    else:
        draw = balanced_choice if config.select == "balanced" else random_choice
        chosen = draw(answers, config.shots, seed)
    return [some[i] for i in arrange(chosen, config.order, labels=answers, seed=seed)]


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = demonstrations``, ``O = likelihood of label words, calibrated or not; or the answer in the text``."""
    model = prompt_source(source)
    if config.shots and not task.context:
        remedy = "Build it for a task with data, not for its description alone; or set shots=0."
        raise ConfigError(say("task", f"must have {config.shots} examples to show", task.name, remedy))
    columns = task.sample.columns or ("text",)
    layout = config.template or default_layout("causal", columns, generates=task.generates)
    template = Template(layout, columns)
    words = {} if task.generates else {n: w[0] for n, w in zip(task.classes, words_of(task, config.words), strict=True)}
    likely = not task.generates and _likely(source, config)
    room = None if model.context is None else model.context - (16 if likely else config.new_tokens) - 8
    shown = Demonstrations(
        template, task.context, columns=columns, words=words, separator=config.separator, chat=config.chat,
        instruction=config.instruction, count=model.count, room=room, select=_select(task.context, config),
        jinja=None if config.jinja is None else JinjaLayout(config.jinja, columns),
    )  # fmt: skip
    output = _likelihood(model, task, config, shown) if likely else _text(task, config, shown.join)
    return Program([shown], source, output, origin=Origin(method=METHOD.name, config=config, task=task))


def _likely(source: Source, config: Config) -> bool:
    can = Capability.LOG_PROBABILITIES in source.capabilities
    if config.read == "likelihood" and not can:
        remedy = 'Set read="text": the source writes, and the class is read off the text.'
        raise CapabilityError(say("source", "must give log-probabilities", source.spec.ref, remedy))
    return can if config.read is None else config.read == "likelihood"


def _likelihood(source: PromptSource, task: TaskSpec, config: Config, shown: Demonstrations) -> Output:
    words = [[shown.join + word.strip() for word in several] for several in words_of(task, config.words)]
    likely = Likelihood(words, config.normalise)
    rows, bare = None, False
    if config.calibration == "none":
        return likely
    if config.calibration == "contextual":
        rows = content_free(shown.columns)
    elif config.calibration == "domain":
        rows = domain_rows(task.context, shown.columns)
    elif config.calibration == "pmi":
        rows, bare = Texts({"prompt": (shown.template.lead.strip() or ":",)}), True
    floor = 1e-300 if bare else 1e-6  # one text's own scores are taken as they are, a mean of many is not that sure
    return Calibrated(likely, len(task.classes), rows=rows, bare=bare, most=config.observe, floor=floor)


def domain_rows(examples: Sequence[Example], columns: Sequence[str], count: int = 20, seed: int = 0) -> Texts:
    """Random words of the examples, each text as long as theirs are on average (Fei et al. 2023: 20 texts).

    >>> rows = domain_rows([Example(("a b c",), "x"), Example(("d e f",), "y")], ["text"], 2)
    >>> [len(text.split()) for text in rows.columns["text"]]
    [3, 3]

    Raises:
        ConfigError: there are no examples to take words from.
    """
    words = [word for one in examples for text in one.texts for word in text.split()]
    if not words:
        remedy = 'Show examples (shots=8), or use calibration "contextual".'
        raise ConfigError(say("calibration", 'must have examples to take words from for "domain"', "none", remedy))
    draw, each = random.Random(seed), max(1, round(len(words) / len(examples) / len(columns)))
    return Texts({name: tuple(" ".join(draw.choices(words, k=each)) for _ in range(count)) for name in columns})


def _text(task: TaskSpec, config: Config, join: str) -> Output:
    grammar = None
    if task.generates and config.schema is not None:
        grammar = Grammar(kind="json", text=config.schema)
    elif not task.generates and config.constrain:
        words = [join + word.strip() for several in words_of(task, config.words) for word in several]
        grammar = Grammar(kind="choice", text="\n".join(words))
    writing = Writing(tokens=config.new_tokens, stop=config.stop, grammar=grammar)
    if task.generates:
        whole = Parser(kind="text", markers=(), fallback="whole", cut=config.stop)
        part = Parser(kind=config.answer, markers=(), fallback="first", cut=config.stop)
        return ParsedText(whole if config.answer == "text" else part, (), writing)
    named = words_of(task, config.words)
    spelled = tuple((word.strip(), name) for name, several in zip(task.classes, named, strict=True) for word in several)
    return ParsedText(Parser(kind="choice", choices=spelled, fallback="first", cut=config.stop), task.classes, writing)


# -- choosing for each text --------------------------------------------------------------------------------------------


def _select(pool: Sequence[Example], config: Config) -> VectorSelector | WordSelector | None:
    if config.select not in EACH or not config.shots:
        return None
    k = min(config.shots, len(pool))
    if config.select == "bm25":
        return WordSelector(pool, k=k, order=config.order)
    embed = partial(_vectors, config.embedder)
    by: Literal["nearest", "dpp"] = "dpp" if config.select == "dpp" else "nearest"
    more: Mapping[str, Any] = {"candidates": min(len(pool), max(100, k))} if by == "dpp" else {}
    blank = torch.zeros(len(pool), _embedder(config.embedder).spec.width or 1)
    return VectorSelector(pool, blank, embed, k=k, by=by, order=config.order, **more)


def _joined(examples: Sequence[Example]) -> list[str]:
    return ["\n".join(one.texts) for one in examples]


def _vectors(embedder: str, texts: list[str]) -> Tensor:
    """[texts, d], of a text encoder that is loaded when it is first needed."""
    return text_vectors(_embedder(embedder), texts)


def _embedder(name: str) -> TextSource:
    """A text encoder, loaded once. Its name comes with program files, so it is one that runs here."""
    found = _EMBEDDERS.get(name)
    if found is None:
        if not name.startswith(("bundled/", "hf/")):
            raise ConfigError(say("embedder", "must be bundled/... or hf/...", name, 'Use "bundled/minilm-l6".'))
        found = _EMBEDDERS[name] = text_source(text_encoder(load_source(name)))
    return found


_EMBEDDERS: dict[str, TextSource] = {}


METHOD = Method(
    name="few_shot",
    summary="examples with their answers before the text (in-context learning), calibrated or not",
    taxonomy=Taxonomy.of(
        Configuration.FIXED,
        Location.INPUT,
        Operator.CONCATENATIVE,
        Alignment.RULE_BASED,
    ),
    paper=Paper(
        title="Language Models are Few-Shot Learners",
        authors="Tom B. Brown and others",
        year=2020,
        arxiv="2005.14165",
    ),
    config=Config,
    build=build,
    context=context,
    needs=frozenset({Capability.GENERATION}),
)
