"""Many demonstrations in groups that are read independently of one another.

Hao et al., "Structured Prompting: Scaling In-Context Learning to 1,000 Examples", 2022, arXiv:2212.06713.
"""

import math
from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.source import TextSource
from reprogram.core.taxonomy import Operator


@final
class GroupedDemonstrations(Edit):
    """Keys and values of M texts before the sequence, each read by itself, ending at the same position.

    The sequence's own keys count M times as much as those of a group (section 3 of the paper), so that many groups do
    not drown it; one group is ordinary in-context learning, and their order changes nothing. Nothing is learned or
    saved: the keys and values follow from the texts, and are made when they are first needed.

    Args:
        source: a causal language model.
        groups: M texts of demonstrations.

    Raises:
        ConfigError: no group, or one without a token.
    """

    site = "kv"
    operators = frozenset({Operator.CONCATENATIVE})
    continued: Literal[True] = True

    def __init__(self, source: TextSource, groups: Sequence[str]) -> None:
        super().__init__()
        if not groups or not all(groups):
            raise ConfigError(say("groups", "must be one or more texts", list(groups)))
        self.groups = tuple(groups)
        self._source = (source,)  # in a tuple: shared, not owned
        start = len(source.keys_values(groups[0][:1], begin=True)) - len(source.encode(groups[0][:1]))
        self._sizes = [start + len(source.encode(text)) for text in groups]
        self._made: Tensor | None = None

    @property
    def length(self) -> int:
        """The number of tokens of all groups."""
        return sum(self._sizes)

    @property
    def shift(self) -> int:
        """The sequence's positions start where the longest group ends."""
        return max(self._sizes)

    @property
    def log_weight(self) -> float:
        """Of the groups' keys: -log M, which is the same as log M for the sequence's own."""
        return -math.log(len(self.groups))

    @torch.no_grad()
    def keys_values(self) -> Tensor:
        """[n, layers, 2, heads, head width] of all groups, one after another."""
        if self._made is None or self._made.device != self._source[0].device:
            source, last = self._source[0], self.shift
            parts = [
                source.keys_values(text, start=last - size, begin=True)
                for text, size in zip(self.groups, self._sizes, strict=True)
            ]
            self._made = torch.cat(parts)
        return self._made

    def forward(self, value: Tensor) -> Tensor:
        """Keys and values of all layers [batch, layers, 2, heads, tokens, width] with the groups before them."""
        made = self.keys_values().permute(1, 2, 3, 0, 4)[None]
        return torch.cat([made.expand(len(value), -1, -1, -1, -1, -1).to(value), value], -2)

    def extra_repr(self) -> str:
        """What `print(program)` shows; it tells programs with different demonstrations apart."""
        return repr(self.groups)
