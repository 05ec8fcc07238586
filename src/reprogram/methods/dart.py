"""DART: the template's words and the label words are learned vectors, of a frozen language model.

Zhang, Li, Chen, Deng, Bi, Tan, Huang, Chen, "Differentiable Prompt Makes Pre-trained Language Models Better Few-shot
Learners", ICLR 2022, arXiv:2108.13161.

Departures: the language model stays frozen (the paper tunes all of it); the auxiliary loss that predicts masked words
of the input, which keeps a tuned model fluent, falls away with that. Template and label vectors start at real words,
in place of tokens that the vocabulary leaves unused.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import SoftPrompt, Start, open_task, prompt_start, with_classes
from reprogram.outputs import Words, soft_verbalizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings, after section 3 of the paper; sizes and recipe are ours, for its recipe is for tuning the model.

    Attributes:
        tokens: n, template words that are learned.
        start: "text" (words of a template), "vocabulary", "labels" or "random".
        text: for start="text".
        template: None for the text and then the n learned words before the answer.
        words: label words whose vectors the classes start at; None for the class names.
        recipe: AdamW in batches of 8.
    """

    tokens: int = 4
    start: Start = "text"
    text: str | None = "In one word, it was"
    template: str | None = None
    words: Words | None = None
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=3e-3, schedule="cosine", epochs=30, batch_size=8, refresh="once", clip_norm=1.0
    )


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template, P in place of its words``, ``O = label vectors . features``."""
    model, task = text_source(source), with_classes(task, METHOD.name)
    opening = open_task(model, task, config.template or _layout(model.kind, task, config.tokens), config.tokens)
    start = prompt_start(model, task, opening.tokens, config.start, config.text)
    output = soft_verbalizer(model, task, config.words, after=opening.lead, bias=False)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, SoftPrompt(start, where=opening.where)], source, output, origin=origin)


def _layout(kind: str, task: TaskSpec, tokens: int) -> str:
    texts = "{sep}".join(f"{{{name}}}" for name in task.sample.columns or ("text",))
    answer = "{mask}." if kind == "masked" else ""
    return f"{texts}{{sep}}{{soft:{tokens}}}{answer}"


METHOD = Method(
    name="dart",
    summary="a template whose words are learned, and learned label vectors that start at label words",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.LINEAR),
    paper=Paper(
        title="Differentiable Prompt Makes Pre-trained Language Models Better Few-shot Learners",
        authors=(
            "Ningyu Zhang and Luoqiu Li and Xiang Chen and Shumin Deng and Zhen Bi and Chuanqi Tan and Fei Huang "
            "and Huajun Chen"
        ),
        year=2022,
        arxiv="2108.13161",
        venue="ICLR",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"recipe.epochs": 5, "recipe.batch_size": 16}},
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION, Capability.FEATURES}),
)
