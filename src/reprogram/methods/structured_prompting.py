"""Structured prompting: hundreds of examples, in groups that are read apart, before the text.

Hao et al., "Structured Prompting: Scaling In-Context Learning to 1,000 Examples", 2022, arXiv:2212.06713.

Departure: groups hold a given number of examples each, and not as many as fit into the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Output, Program
from reprogram.core.source import Capability, Source, TextSource, text_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.texts import Texts
from reprogram.inputs import Demonstrations, GroupedDemonstrations, Template, default_layout
from reprogram.inputs.selection import balanced_choice
from reprogram.outputs import Calibrated, Likelihood, Words
from reprogram.outputs.label_words import words_of
from reprogram.outputs.likelihood import Normalise


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    r"""Settings.

    Attributes:
        groups: M, texts of examples that are read apart from one another (sec. 4: up to 1,000 examples in all).
        shots: examples in each. Every 1,000 tokens take 46 MB with SmolLM2-135M in float32.
        template: how the columns become a prompt; None for "{text}\nLabel:" and its like.
        words: label words by class; None for the class names.
        separator: between examples.
        normalise: of the likelihood: "sum", "token", "char" or "byte".
        calibrate: batch calibration on at most 128 training texts.
        recipe: one pass for the calibration; there is nothing to learn.
    """

    groups: int = 4
    shots: int = 8
    template: str | None = None
    words: Words | None = None
    separator: str = "\n\n"
    normalise: Normalise = "sum"
    calibrate: bool = False
    recipe: Recipe = Recipe(refresh="once", epochs=1)

    def __post_init__(self) -> None:
        if self.groups < 1 or self.shots < 1:
            raise ConfigError(say("groups, shots", "must be 1 or more", (self.groups, self.shots)))
        if not self.separator:
            raise ConfigError(say("separator", "must be text between a group and what follows it", self.separator))


def context(source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int) -> list[Example]:
    """Examples for all groups, balanced over the classes."""
    needed = config.groups * config.shots
    if len(pool) < needed:
        raise ConfigError(say("groups, shots", f"must be at most the {len(pool)} training examples", needed))
    labels = [one.answer for one in pool]
    return [pool[i] for i in balanced_choice(labels, needed, seed)]


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = [group 1; ...; group M] as keys and values, template``, ``O = likelihood of label words``."""
    model = text_source(source)
    _check(model, task, config)
    columns = task.sample.columns or ("text",)
    template = Template(config.template or default_layout("causal", columns), columns)
    words = {name: w[0] for name, w in zip(task.classes, words_of(task, config.words), strict=True)}
    parts = [task.context[g * config.shots : (g + 1) * config.shots] for g in range(config.groups)]
    blank = Texts({name: ("",) for name in columns})
    groups: list[str] = []
    for part in parts:
        shown = Demonstrations(template, part, columns=columns, words=words, separator=config.separator)
        whole, bare = shown(blank).prompts[0], template(blank).prompts[0]
        groups.append(whole[: len(whole) - len(bare)] if bare else whole)
    ask = Demonstrations(template, (), columns=columns)
    choices = [[ask.join + word.strip() for word in several] for several in words_of(task, config.words)]
    output: Output = Likelihood(choices, config.normalise)
    if config.calibrate:
        output = Calibrated(output, len(task.classes), most=128)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([template, GroupedDemonstrations(model, groups)], source, output, origin=origin)


def _check(source: TextSource, task: TaskSpec, config: Config) -> None:
    if task.generates:
        raise ConfigError(say("task", "must have classes for structured_prompting", task.name, "Use few_shot."))
    if source.kind != "causal":
        raise CapabilityError(say("source", "must be a causal language model", f"{source.spec.ref} ({source.kind})"))
    if len(task.context) != config.groups * config.shots:
        remedy = "Build it for a task with data, not for its description alone."
        raise ConfigError(say("task", f"must have {config.groups * config.shots} examples to show", task.name, remedy))


METHOD = Method(
    name="structured_prompting",
    summary="hundreds of examples in groups that are read apart, with attention rescaled to the text",
    taxonomy=Taxonomy.of(
        Configuration.FIXED,
        Location.HIDDEN,
        Operator.CONCATENATIVE,
        Alignment.RULE_BASED,
    ),
    paper=Paper(
        title="Structured Prompting: Scaling In-Context Learning to 1,000 Examples",
        authors="Yaru Hao and others",
        year=2022,
        arxiv="2212.06713",
    ),
    config=Config,
    build=build,
    context=context,
    needs=frozenset({Capability.GENERATION, Capability.LOG_PROBABILITIES}),
)
