"""VPT-shallow: learned tokens before the patches of a frozen vision transformer, and a linear head.

Jia, Tang, Chen, Cardie, Belongie, Hariharan, Lim, "Visual Prompt Tuning", ECCV 2022, arXiv:2203.12119.

Departures: the head reads standardised features (statistics of a first pass); one learning rate in place of the paper's
search over rates and decays for every task.
"""

from dataclasses import dataclass

from reprogram.core.errors import CapabilityError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place, PromptTokens, patch_size, uniform_start
from reprogram.outputs import Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The released configuration's values (base-prompt; section 4).

    Attributes:
        tokens: n (paper: 1 to 200, searched; 50 are 38,400 numbers on ViT-B/16).
        dropout: of the prompt while training (paper: 0, or 0.1 in its search).
        after: tokens at the front that stay there: the class token.
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD with momentum 0.9 and cosine over 100 epochs in batches of 128; ten epochs of warm-up are 80 steps
            on the paper's 1,000 examples.
    """

    tokens: int = 50
    dropout: float = 0.0
    after: int = 1
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-4, schedule="cosine", warmup_steps=80, epochs=100,
        batch_size=128, refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [c, P, x]``, ``O = linear on features``."""
    size, width = source.spec.canvas(config.canvas), source.spec.width
    if width is None:
        raise CapabilityError(say("source", "must tell the width of its tokens", source.spec.ref))
    start = uniform_start(config.tokens, width, patch_size(source))
    prompt = PromptTokens(start, after=config.after, dropout=config.dropout)
    output = Linear(width, len(task.classes), features=True)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), prompt], source, output, origin=origin)


METHOD = Method(
    name="vpt_shallow",
    summary="learned tokens among the patches of a frozen vision transformer; a linear head",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.LINEAR),
    paper=Paper(
        title="Visual Prompt Tuning",
        authors=(
            "Menglin Jia and Luming Tang and Bor-Chun Chen and Claire Cardie and Serge Belongie "
            "and Bharath Hariharan and Ser-Nam Lim"
        ),
        year=2022,
        arxiv="2203.12119",
        venue="ECCV",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"tokens": 10, "recipe.warmup_steps": 20, "recipe.epochs": 10, "recipe.batch_size": 50}},
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.FEATURES}),
)
