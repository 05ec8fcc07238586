"""Learned words around class names: contexts of an image-text source's text tower (CoOp; Zhou et al. 2022)."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.inserting import Where
from reprogram.core.program import Edit
from reprogram.core.source import ImageTextSource
from reprogram.core.taxonomy import Operator
from reprogram.core.texts import SLOT, SLOTS
from reprogram.inputs._insert import check_start, check_where, inserted
from reprogram.inputs.starts import text_start

Position = Literal["end", "middle", "front"]
"""Where the class name is among the learned words."""

SITE = "text.embedding"


@final
class ClassContexts(Edit):
    """``x_t -> [P_t; x_t]``: n learned rows of its own for every class text.

    Args:
        start: [T, n, d], what P is at first, a row for each class text in order. Copied.
        where: as for `SoftPrompt`; "slots" for places that the class texts name.
        site: where the text tower's embeddings are.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite, or an unknown place.

    >>> edit = ClassContexts(torch.tensor([[[1.0]], [[2.0]]]))
    >>> edit(torch.zeros(2, 2, 1)).squeeze(-1).tolist()
    [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})
    by_row: Literal[True] = True
    where: Where

    def __init__(self, start: Float[Tensor, " classes n d"], *, where: Where = "start", site: str = SITE) -> None:
        super().__init__()
        check_start(start, "classes n d")
        check_where(where)
        self.site, self.where = site, where
        self.values = nn.Parameter(start.detach().float().clone())

    @property
    def length(self) -> int:
        """The number n of tokens."""
        return self.values.shape[1]

    def tokens(self) -> Float[Tensor, " classes n d"]:
        """P."""
        return self.values

    def forward(self, value: Float[Tensor, " classes tokens d"]) -> Float[Tensor, " classes longer d"]:
        """The class texts with their own P in them."""
        return inserted(value, self.values, self.where)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, where={self.where!r}, site={self.site!r}"


def context_start(
    source: ImageTextSource, n: int, words: str | None = None, *, std: float = 0.02
) -> Float[Tensor, " n d"]:
    """What a context starts as: the embeddings of words, or N(0, std^2) (CoOp, section 3.2).

    Args:
        source: whose text tower's table is meant.
        n: tokens; with words, as many of theirs, and N(0, std^2) for the rest.
        words: such as "a photo of a"; None for random numbers.
        std: of those (paper's code: 0.02).

    Raises:
        ConfigError: no token is asked for, or the words have none.
    """
    if n < 1:
        raise ConfigError(say("tokens", "must be 1 or more", n))
    table = source.text.embeddings
    start = torch.randn(n, table.shape[1]) * std
    if words is not None:
        ids = source.text.encode(words)
        known = text_start(table, ids, min(n, len(ids)) or 1)
        start[: len(known)] = known
    return start


def context_layout(n: int, position: Position, layout: str = "{class}.") -> tuple[str, Where]:
    """The class texts' layout with places for n learned words, and where the edit puts them.

    Args:
        n: tokens.
        position: of the name: after the words ("end"), between two halves of them ("middle", the first half is the
            smaller one), or before them ("front").
        layout: of the rest, with `{class}`.

    Raises:
        ConfigError: an unknown position, too many tokens, or a layout without `{class}`.

    >>> context_layout(4, "end")
    ('{class}.', 'start')
    >>> [len(text) for text in context_layout(5, "middle")[0].split("{class}")]
    [2, 4]
    """
    if position not in ("end", "middle", "front"):
        raise ConfigError(say("position", "must be end, middle or front", position))
    if not 1 <= n <= SLOTS or "{class}" not in layout:
        raise ConfigError(say("layout", f"must have {{class}}, and 1 to {SLOTS} learned tokens", (layout, n)))
    if position == "end":
        return layout, "start"
    half = n // 2 if position == "middle" else 0
    marks = [chr(SLOT + k) for k in range(n)]
    before, after = "".join(marks[:half]), "".join(marks[half:])
    return layout.replace("{class}", f"{before}{{class}}{after}", 1), "slots"
