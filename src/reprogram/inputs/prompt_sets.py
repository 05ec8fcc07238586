"""Several sets of learned tokens, each of which everything is read with (PLOT, Chen et al. 2023, arXiv 2210.01253).

At the first layer (`PromptMixture`) every row becomes K rows, one for each set, row 0 with all sets first; what comes
before that place is computed once. Edits of later layers put fresh tokens of set ``r mod K`` into row r.
"""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.source import ImageTextSource
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import by_row, check_sequences, check_start
from reprogram.inputs.contexts import SITE, context_start
from reprogram.inputs.deep_prompts import depth_within, lead_of
from reprogram.inputs.prompt_mixture import PromptMixture


@final
class FreshSets(Edit):
    """``[c, q, x] -> [c, P_k, x]`` in row r of set ``k = r mod K``: fresh tokens where those of an earlier layer were.

    Args:
        start: [K, n, d], what P is at first, n as many as were put there. Copied.
        site: what a block reads, "text.hidden.i".
        after: how many tokens c is.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite, or an `after` below 0.

    >>> edit = FreshSets(torch.tensor([[[6.0]], [[7.0]]]), site="text.hidden.1")
    >>> edit(torch.zeros(4, 3, 1)).squeeze(-1).tolist()
    [[0.0, 6.0, 0.0], [0.0, 7.0, 0.0], [0.0, 6.0, 0.0], [0.0, 7.0, 0.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, start: Float[Tensor, " sets n d"], *, site: str, after: int = 1) -> None:
        super().__init__()
        check_start(start, "sets n d")
        if after < 0:
            raise ConfigError(say("after", "must be 0 or more tokens", after))
        self.site, self.after = site, after
        self.values = nn.Parameter(start.detach().float().clone())

    def forward(self, value: Float[Tensor, " rows tokens d"]) -> Float[Tensor, " rows tokens d"]:
        """The sequences with fresh tokens in the n places."""
        fresh, end = by_row(value, self.values), self.after + self.values.shape[1]
        check_sequences(value, self.values.shape[2], end)
        return torch.cat([value[:, : self.after], fresh, value[:, end:]], dim=1)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, after={self.after}, site={self.site!r}"


def set_starts(
    source: ImageTextSource, sets: int, tokens: int, words: Sequence[str] | None = None
) -> Float[Tensor, " sets n d"]:
    """What K sets of a text tower start as: the embeddings of some words each, N(0, 0.02^2) where there are none.

    Args:
        source: whose text tower is meant.
        sets: K.
        tokens: n of each.
        words: for the first sets, in order; of a text with fewer tokens the rest is random.

    Raises:
        ConfigError: no set or token is asked for, or there are more words than sets.
    """
    given = list(words or ())
    if sets < 1:
        raise ConfigError(say("sets", "must be 1 or more", sets))
    if len(given) > sets:
        raise ConfigError(say("words", f"must be texts for {sets} sets at most", given))
    return torch.stack([context_start(source, tokens, w) for w in [*given, *[None] * (sets - len(given))]])


def text_sets(
    source: ImageTextSource, sets: int, tokens: int, depth: int, words: Sequence[str] | None = None
) -> list[PromptMixture | FreshSets]:
    """Edits of the text tower: K sets of n tokens before the class name, and fresh ones at the layers after the first.

    Args:
        source: whose text tower is meant.
        sets: K.
        tokens: n of each, at every layer.
        depth: J, layers that get their own; as many as the tower has if those are fewer.
        words: as for `set_starts`, at the first layer.

    Raises:
        ConfigError: no set, token or layer is asked for, or there are more words than sets.
    """
    layers, lead = range(1, depth_within(depth, source.text.spec.depth)), lead_of(source)
    later = [FreshSets(set_starts(source, sets, tokens), site=f"text.hidden.{i}", after=lead) for i in layers]
    return [PromptMixture(set_starts(source, sets, tokens, words), site=SITE), *later]
