"""TransHP: tokens for coarse classes join a vision transformer's tokens at chosen blocks and leave after them.

Wang, Sun, Li, Yang, "TransHP: Image Classification with Hierarchical Prompting", NeurIPS 2023, arXiv:2304.06385.

Departures: the paper trains the whole network from scratch together with the prompts. Here the network is frozen, and
only the prompts, their readings and a linear layer on the features learn, so prompts must be of use to blocks that
never saw any; the paper gives no figure for this form. The linear layer reads standardised features, and there is one
learning rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import JoiningTokens, LeavingTokens, Place, block_paths
from reprogram.outputs import HierarchyHead, hierarchy_by_name, levels_of, token_start

BALANCE = (0.1, 0.1, 0.1, 0.1, 0.1, 0.15, 0.15, 0.15, 0.15, 1.0, 1.0)
"""Weights of the released configuration's eleven levels, the coarsest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the released code (DeiT-S) and the frozen form need.

    Attributes:
        hierarchy: for each class name its ancestors, the coarsest first, as many for each class, "" for none (the
            "background" of that level). None: one level in which classes whose names end with the same word are one
            coarse class, and if none do, every class is its own.
        blocks: at which block each level's prompts join, ascending; never the last block. None: one block a level, the
            last ones before the last block.
        weights: of each level's loss. None: the end of 0.1 x 5, 0.15 x 4, 1, 1, which are released for 11 levels.
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: as VPT, since the network is frozen: SGD with momentum 0.9 and cosine over 100 epochs in batches of 128.
    """

    hierarchy: Mapping[str, tuple[str, ...]] | None = None
    blocks: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-4, schedule="cosine", warmup_steps=80, epochs=100,
        batch_size=128, refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = [x, P_b] before block b, x after it``, ``O = linear on features, <o_k, M_b[k]> for coarse classes``.

    Raises:
        ConfigError: a hierarchy, blocks or weights that do not fit.
        CapabilityError: the source does not tell its blocks or the width of its tokens.
    """
    size, width, depth = source.spec.canvas(config.canvas), source.spec.width, source.spec.depth
    if width is None or depth < 2:
        got = f"{source.spec.ref}, width {width}, {depth} blocks"
        raise CapabilityError(say("source", "must tell the width of its tokens and have two blocks", got))
    levels = levels_of(config.hierarchy or hierarchy_by_name(task.classes), task.classes)
    blocks = _blocks(config, len(levels), depth)
    weights = config.weights or (1.0,) * max(0, len(levels) - len(BALANCE)) + BALANCE[-len(levels) :]
    edits: list[Edit] = [Place(size, size)]
    for block, level in zip(blocks, levels, strict=True):
        count = len(level.names) + 1
        edits += [
            JoiningTokens(token_start(count, width), site=f"hidden.{block}"),
            LeavingTokens(count, site=f"hidden.{block + 1}"),
        ]
    paths = block_paths(source)
    output = HierarchyHead(width, levels, [paths[block] for block in blocks], weights)
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


def _blocks(config: Config, levels: int, depth: int) -> tuple[int, ...]:
    blocks = config.blocks if config.blocks is not None else tuple(range(max(0, depth - 1 - levels), depth - 1))
    if len(blocks) != levels or list(blocks) != sorted(set(blocks)) or blocks[0] < 0 or blocks[-1] > depth - 2:
        need = f"must be {levels} ascending numbers from 0 to {depth - 2}, one a level of the hierarchy"
        raise ConfigError(say("blocks", need, list(blocks)))
    return blocks


METHOD = Method(
    name="transhp",
    summary="tokens for coarse classes join a frozen vision transformer at chosen blocks; a linear head",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.HIDDEN, Operator.CONCATENATIVE, Alignment.LINEAR),
    paper=Paper(
        title="TransHP: Image Classification with Hierarchical Prompting",
        authors="Wenhao Wang and Yifan Sun and Wei Li and Yi Yang",
        year=2023,
        arxiv="2304.06385",
        venue="NeurIPS",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"recipe.warmup_steps": 20, "recipe.epochs": 10, "recipe.batch_size": 50}},
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.FEATURES}),
)
