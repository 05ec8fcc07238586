"""A hierarchy of classes, and TransHP's output: a linear layer for classes, the prompts' own scores for ancestors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import no_autocast
from reprogram.outputs.linear import Linear

START = 0.02
"""Deviation of the truncated normal that prompts and their readings start from."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a hierarchy.

    Attributes:
        names: K coarse classes.
        parents: for each class its coarse class's number, T of them; K for one that has none ("background").
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]


def levels_of(hierarchy: Mapping[str, Sequence[str]], classes: Sequence[str]) -> tuple[Level, ...]:
    """The levels of a hierarchy that says for each class its ancestors, the coarsest first.

    Args:
        hierarchy: ancestors by class name, as many for each; "" where a class has none. A class that is not in it has
            none at any level.
        classes: T names.

    Raises:
        ConfigError: a name that is no class, ancestors of different numbers, or a level without any.

    >>> levels_of({"cat": ["animal"], "cow": ["animal"], "car": ["thing"]}, ["car", "cat", "cow", "sky"])
    (Level(names=('thing', 'animal'), parents=(0, 1, 1, 2)),)
    """
    strange = sorted(hierarchy.keys() - set(classes))
    if strange:
        raise ConfigError(say("hierarchy", f"must be about the classes {list(classes)[:5]} …", strange))
    depths = {len(ancestors) for ancestors in hierarchy.values()}
    if len(depths) != 1 or 0 in depths:
        need = "must give every class the same number of ancestors, at least one"
        raise ConfigError(say("hierarchy", need, sorted(depths)))
    made: list[Level] = []
    for depth in range(depths.pop()):
        own = [hierarchy[c][depth] if c in hierarchy else "" for c in classes]
        names = tuple(dict.fromkeys(name for name in own if name))
        if not names:
            raise ConfigError(say("hierarchy", f"must have a coarse class at level {depth + 1}", "none"))
        made.append(Level(names, tuple(names.index(name) if name else len(names) for name in own)))
    return tuple(made)


def hierarchy_by_name(classes: Sequence[str]) -> dict[str, tuple[str]]:
    """One level: classes whose names end with the same word are one coarse class ("golden retriever").

    Where that puts no two classes together, every class is a coarse class of its own.

    >>> hierarchy_by_name(["red fox", "arctic fox", "hen"])
    {'red fox': ('fox',), 'arctic fox': ('fox',), 'hen': ('hen',)}
    >>> hierarchy_by_name(["0", "1"])
    {'0': ('0',), '1': ('1',)}
    """
    last = {c: (c.replace("_", " ").split() or [c])[-1].lower() for c in classes}
    alike = len(set(last.values())) < len(classes) and len(set(last.values())) > 1
    return {c: (last[c] if alike else c,) for c in classes}


def token_start(n: int, d: int) -> Float[Tensor, " n d"]:
    """Truncated normal numbers of deviation 0.02."""
    return nn.init.trunc_normal_(torch.empty(n, d), std=START)


@final
class HierarchyHead(Output):
    """``y = linear(features)``, fitted together with the coarse classes that the prompts are to stand for.

    At level b, what became of prompt k in its block has the score ``<o_k, M_b[k]>``; the loss is
    ``CE(y) + sum_b weight_b CE(scores_b)`` with the ancestor at that level for the truth.

    Args:
        width: d, of features and tokens.
        levels: of the hierarchy.
        sites: for each level, where its prompts' results are: the last tokens of the value there.
        weights: one a level.

    Raises:
        ConfigError: as many sites and weights as levels are needed, weights of 0 or more.
    """

    alignment = Alignment.LINEAR
    reads_features = True

    def __init__(self, width: int, levels: Sequence[Level], sites: Sequence[str], weights: Sequence[float]) -> None:
        super().__init__()
        if not levels or len({len(levels), len(sites), len(weights)}) > 1 or min(weights) < 0:
            got = (len(levels), len(sites), list(weights))
            raise ConfigError(say("levels, sites, weights", "must be equally many, weights 0 or more", got))
        self.levels, self.sites, self.weights = tuple(levels), tuple(sites), tuple(weights)
        self.linear = Linear(width, len(levels[0].parents), features=True)
        self.read = nn.ParameterList(token_start(len(level.names) + 1, width) for level in levels)

    @property
    def reading(self) -> Reading:
        """Features, and what the blocks with prompts return."""
        return Reading(features=True, sites=self.sites)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        return self.linear(output)

    def coarse(self, output: SourceOutput, level: int) -> Float[Tensor, " batch coarse"]:
        """Scores of a level's coarse classes and of "background", [B, K + 1], in float32.

        Raises:
            CapabilityError: the source does not give the values at the level's site.
        """
        value, read = output.at.get(self.sites[level]), cast("Tensor", self.read[level])
        if value is None:
            raise CapabilityError(say("output", "must come with the value at the prompts' site", self.sites[level]))
        with no_autocast(value):
            return (value[:, -len(read) :].float() * read).sum(-1)

    def loss(
        self, output: SourceOutput, scores: Float[Tensor, " batch target"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """See the class."""
        whole = F.cross_entropy(scores, target)
        for i, (level, weight) in enumerate(zip(self.levels, self.weights, strict=True)):
            parents = torch.tensor(level.parents, device=target.device)[target]
            whole = whole + weight * F.cross_entropy(self.coarse(output, i), parents)
        return whole

    def observe(self, output: SourceOutput, target: Int[Tensor, " batch"]) -> None:
        """See `Linear`."""
        self.linear.observe(output, target)

    def refresh(self) -> None:
        """See `Linear`."""
        self.linear.refresh()

    def forget(self) -> None:
        """See `Linear`."""
        self.linear.forget()

    def statistics(self) -> dict[str, Tensor]:
        """See `Linear`."""
        return self.linear.statistics()

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """See `Linear`."""
        self.linear.load_statistics(statistics)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"levels={[len(level.names) for level in self.levels]}, sites={list(self.sites)}"
