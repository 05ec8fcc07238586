"""PTR: an answer of several words, each at a place of its own, and a class is a rule over them.

Han, Zhao, Ding, Liu, Sun, "PTR: Prompt Tuning with Rules for Text Classification", 2021, arXiv:2105.11259.

Departures: the language model stays frozen (the paper tunes it with the prompt); sub-prompts are learned tokens
before each answer's place unless a template says otherwise. For masked language models only: a causal one would have
to write the earlier answers before the later ones.
"""

from dataclasses import dataclass

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, TextSource, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import SoftPrompt, Start, open_task, prompt_start, with_classes
from reprogram.outputs import RuleVerbalizer, Words, words_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings, after section 3 of the paper; the recipe is ours, for its is for tuning the model.

    Attributes:
        tokens: learned tokens before each answer's place.
        words: of each class, one word a place: `{"org:founded_by": ("organization", "founded", "person")}`, where
            each is one token. None for the words of the class names, if they have equally many, else the whole names.
        template: with as many `{mask}` as a class has words. None for the columns, and before each place learned
            tokens.
        start: "vocabulary", "labels", "text" or "random".
        text: for start="text"; None for an instruction that names the classes.
        recipe: AdamW.
    """

    tokens: int = 3
    words: Words | None = None
    template: str | None = None
    start: Start = "vocabulary"
    text: str | None = None
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=0.005, schedule="cosine", epochs=20, batch_size=16, refresh="once", clip_norm=1.0
    )


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template with several answers, P at its places``, ``O = sum of their log-probabilities``."""
    model, task = text_source(source), with_classes(task, METHOD.name)
    if model.kind != "masked":
        raise CapabilityError(say("source", "must be a masked language model", f"{source.spec.ref} ({model.kind})"))
    rules = _rules(task, config.words)
    places = len(rules[0])
    opening = open_task(model, task, config.template or _layout(task, places, config.tokens), config.tokens)
    if opening.answers != places:
        raise ConfigError(say("template", f"must have {places} times {{mask}}, one a word", opening.answers))
    start = prompt_start(model, task, opening.tokens, config.start, config.text)
    output = RuleVerbalizer([_tokens(model, rule) for rule in rules], source.spec.outputs)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, SoftPrompt(start, where=opening.where)], source, output, origin=origin)


def _rules(task: TaskSpec, words: Words | None) -> list[tuple[str, ...]]:
    """The words of each class, one a place."""
    if words is None:
        parts = [tuple(name.split()) for name in task.classes]
        return parts if len({len(part) for part in parts}) == 1 else [(name,) for name in task.classes]
    rules = words_of(task, words)
    if len({len(rule) for rule in rules}) > 1:
        raise ConfigError(say("words", "must be as many for every class, one a place", [len(rule) for rule in rules]))
    return rules


def _tokens(model: TextSource, rule: tuple[str, ...]) -> list[int]:
    """The one token of each word, with its space where the tokenizer wants one."""
    found: list[int] = []
    for word in rule:
        ids = min(model.encode(f" {word}"), model.encode(word), key=len)
        if len(ids) != 1 or ids[0] == model.special.get("unk"):
            said = [model.decode([i]) for i in ids]
            raise ConfigError(say("words", f"must be one known token each, unlike {word!r}", said))
        found.append(ids[0])
    return found


def _layout(task: TaskSpec, places: int, tokens: int) -> str:
    texts = "{sep}".join(f"{{{name}}}" for name in task.sample.columns or ("text",))
    return f"{texts}{{sep}}" + f"{{soft:{tokens}}}{{mask}}" * places + "."


METHOD = Method(
    name="ptr",
    summary="an answer of several words at places of their own; a class is a rule over them (masked models)",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="PTR: Prompt Tuning with Rules for Text Classification",
        authors="Xu Han and Weilin Zhao and Ning Ding and Zhiyuan Liu and Maosong Sun",
        year=2021,
        arxiv="2105.11259",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"recipe.epochs": 5}},
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION}),
)
