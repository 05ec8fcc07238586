"""A mixture of soft prompts: every text is read with each of several learned prompts, and the answers are averaged.

Qin, Eisner, "Learning How to Ask: Querying LMs with Mixtures of Soft Prompts", NAACL 2021, arXiv:2104.06599.

Departures: weights of the mixture do not depend on the input (the paper tries both); prompts are tokens before the
text, or at the template's places, and are not perturbed in deeper layers; label words answer, in place of the whole
vocabulary.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import PromptMixture, open_task, prompt_start, with_classes
from reprogram.outputs import MixtureOfAnswers, Words, answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings, after sections 2 and 3 of the paper; sizes and recipe are ours, for none of its could be checked.

    Attributes:
        prompts: K; each costs a pass of its own.
        tokens: n, of each prompt.
        start: "vocabulary" or "random"; each prompt draws for itself, for prompts that start alike stay alike.
        template: how the columns become a prompt; None for the source's default.
        words: label words by class; None for the class names.
        recipe: AdamW.
    """

    prompts: int = 4
    tokens: int = 10
    start: Literal["vocabulary", "random"] = "vocabulary"
    template: str | None = None
    words: Words | None = None
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=0.005, schedule="cosine", epochs=20, batch_size=16, refresh="once", clip_norm=1.0
    )


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template, [P_k; x] for every k``, ``O = log of the mean probability of label words``."""
    model, task = text_source(source), with_classes(task, METHOD.name)
    if config.prompts < 1:
        raise ConfigError(say("prompts", "must be 1 or more", config.prompts))
    opening = open_task(model, task, config.template, config.tokens)
    start = [prompt_start(model, task, opening.tokens, config.start) for _ in range(config.prompts)]
    prompts = PromptMixture(torch.stack(start), where=opening.where)
    output = MixtureOfAnswers(answers(model, task, config.words, after=opening.lead), config.prompts)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, prompts], source, output, origin=origin)


METHOD = Method(
    name="mixture_of_soft_prompts",
    summary="each text read with each of several soft prompts; a learned mixture of their answers",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="Learning How to Ask: Querying LMs with Mixtures of Soft Prompts",
        authors="Guanghui Qin and Jason Eisner",
        year=2021,
        arxiv="2104.06599",
        venue="NAACL",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"prompts": 2, "recipe.epochs": 5}},
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION}),
)
