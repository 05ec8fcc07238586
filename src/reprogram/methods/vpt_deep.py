"""VPT-deep: fresh learned tokens among the patches at every block of a frozen vision transformer, and a linear head.

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
from reprogram.inputs import Place, PromptTokens, ReplacedTokens, patch_size, uniform_start
from reprogram.outputs import Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The released configuration's values (base-prompt; section 4).

    Attributes:
        tokens: n at every block (paper: 1 to 200, searched; 10 are 92,160 numbers on ViT-B/16).
        dropout: of the prompts while training (paper: 0, or 0.1 in its search).
        after: tokens at the front that stay there: the class token.
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD with momentum 0.9 and cosine over 100 epochs in batches of 128; ten epochs of warm-up are 80 steps
            on the paper's 1,000 examples.
    """

    tokens: int = 10
    dropout: float = 0.0
    after: int = 1
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-4, schedule="cosine", warmup_steps=80, epochs=100,
        batch_size=128, refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [c, P_0, x], then P_i at every later block i``, ``O = linear on features``."""
    size, width, depth = source.spec.canvas(config.canvas), source.spec.width, source.spec.depth
    if width is None or depth < 1:
        got = f"{source.spec.ref}, width {width}, {depth} blocks"
        raise CapabilityError(say("source", "must tell the width of its tokens and its blocks", got))
    starts = [uniform_start(config.tokens, width, patch_size(source)) for _ in range(depth)]
    first = PromptTokens(starts[0], after=config.after, dropout=config.dropout)
    later = [
        ReplacedTokens(start, site=f"hidden.{block}", after=config.after, dropout=config.dropout)
        for block, start in enumerate(starts[1:], 1)
    ]
    output = Linear(width, len(task.classes), features=True)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([Place(size, size), first, *later], source, output, origin=origin)


METHOD = Method(
    name="vpt_deep",
    summary="fresh learned tokens among the patches at every block of a frozen vision transformer; a linear head",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.EMBEDDING, Location.HIDDEN, Operator.CONCATENATIVE, Alignment.LINEAR
    ),
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
    presets={"cpu": {"recipe.warmup_steps": 20, "recipe.epochs": 10, "recipe.batch_size": 50}},
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.FEATURES}),
)
