"""Log-probabilities of choices after prompts, every shared token run once.

Prompts that share a start (demonstrations) read its keys and values (`_shared`). What is left of a prompt and all its
choices are one row: the choices are a tree behind the prompt, in which a token sees the prompt, and of the tree only
what leads to itself. The first token of a choice is predicted by the prompt's last one and costs nothing more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, say
from reprogram.core.program import Input
from reprogram.sources._before import Before
from reprogram.sources._prompts import Asked
from reprogram.sources._shared import Branch, Ids, plan

if TYPE_CHECKING:
    from reprogram.sources.language import LanguageSource

BUDGET = 1 << 30
"""Bytes that the rows of one pass may take, by an estimate from above."""

ROW = 1024
"""Tokens of choices behind one prompt in one row; more are divided over several rows."""

MOST = 64
"""Rows of one pass."""


@final
@dataclass(slots=True, eq=False)
class Row:
    """A prompt's own tokens and a tree of choices behind them.

    Attributes:
        asked: number of the prompt.
        ids: tokens, the prompt's first.
        depth: position of each, counted from the row's start.
        parent: index of the token before each; only those of the tree matter.
        body: how many tokens are the prompt's.
        reads: (index, token, choice): the token at `index` predicts `token` of a choice.
    """

    asked: int
    ids: list[int]
    depth: list[int]
    parent: list[int]
    body: int
    reads: list[tuple[int, int, int]] = field(default_factory=list)


@torch.no_grad()
def score(
    source: "LanguageSource", prompts: Sequence[Asked], input: Input, *, budget: int = BUDGET
) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probability of each choice of each prompt, float64 on the CPU, and how many tokens it has.

    Args:
        source: causal.
        prompts: see `_prompts.asked`.
        input: learned prompts and prefixes that stand before all of the text.
        budget: bytes.

    Raises:
        CapabilityError: the source does not take positions, or the input has edits that cannot stand before the text.
    """
    before = source.before_text(input)
    totals = [torch.zeros(len(one.choices), dtype=torch.float64) for one in prompts]
    if prompts:
        whole = plan([one.ids for one in prompts], [one.shared for one in prompts])
        for part, rows in _passes(source, prompts, whole, before, input, budget):
            _read(source, part, rows, totals)
    lengths = [torch.tensor([len(c) for c in one.choices], dtype=torch.int64) for one in prompts]
    return totals, lengths


def _passes(
    source: "LanguageSource", prompts: Sequence[Asked], branch: Branch, before: Before | None, input: Input, budget: int
) -> Iterator[tuple[Before | None, list[Row]]]:
    """Slices of rows with what stands before them; what a branch shares is let go when its rows are done."""
    some = prompts[_any(branch)].ids
    part = source.starts.run(source, some[: branch.end], before, branch.start, input)
    rows = [row for i in branch.rows for row in trees(i, prompts[i], branch.end)]
    rows.sort(key=lambda row: len(row.ids))
    ahead = 0 if part is None else part.length
    while rows:
        most = max(1, budget // max(1, source.bytes_of(len(rows[-1].ids), ahead, len(rows[-1].reads))))
        taken = min(len(rows), MOST, most)
        yield part, rows[-taken:]  # the longest first, so that too little memory shows at once
        del rows[-taken:]
    for below in branch.branches:
        yield from _passes(source, prompts, below, part, input, budget)


def _any(branch: Branch) -> int:
    while not branch.rows:
        branch = branch.branches[0]
    return branch.rows[0]


def trees(number: int, one: Asked, start: int) -> list[Row]:
    """The rows of one prompt from token `start` on: one, or several if its choices are many.

    >>> row = trees(0, Asked((7, 8), ((1, 2), (1, 3), (4,))), 1)[0]
    >>> row.ids, row.depth, row.parent, row.reads
    ([8, 1], [0, 1], [-1, 0], [(0, 1, 0), (1, 2, 0), (0, 1, 1), (1, 3, 1), (0, 4, 2)])
    """
    rows: list[Row] = []
    known: dict[tuple[int, ...], int] = {}
    body = list(one.ids[start:])
    for number_of_choice, choice in enumerate(one.choices):
        if not rows or len(rows[-1].ids) - rows[-1].body + len(choice) - 1 > ROW:
            rows.append(Row(number, list(body), list(range(len(body))), list(range(-1, len(body) - 1)), len(body)))
            known = {(): len(body) - 1}
        _add(rows[-1], known, number_of_choice, choice)
    return rows


def _add(row: Row, known: dict[tuple[int, ...], int], number: int, choice: Ids) -> None:
    """Put a choice into the tree; `known` has the index of every path that is there."""
    for n, token in enumerate(choice):
        at = known[choice[:n]]
        row.reads.append((at, token, number))
        if n + 1 < len(choice) and choice[: n + 1] not in known:
            known[choice[: n + 1]] = len(row.ids)
            row.ids.append(token)
            row.depth.append(row.depth[at] + 1)
            row.parent.append(at)


def _read(source: "LanguageSource", before: Before | None, rows: list[Row], totals: list[Tensor]) -> None:
    """One pass, and its log-probabilities added to the totals."""
    width = max(len(row.ids) for row in rows)
    ids, depth = (torch.zeros(len(rows), width, dtype=torch.int64) for _ in range(2))
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        depth[i, : len(row.ids)] = torch.tensor(row.depth)
    places = torch.tensor([i * width + at for i, row in enumerate(rows) for at, _, _ in row.reads])
    tokens = torch.tensor([token for row in rows for _, token, _ in row.reads])
    distinct, back = places.unique(return_inverse=True)
    arguments: dict[str, Any] = source.arguments_at(ids.to(source.device), depth.to(source.device), before)
    arguments["attention_mask"] = tree_mask(rows, width).to(source.device)
    logits = source.logits_at(arguments, before, distinct.to(source.device))
    there = logits.float().gather(1, _first_by_place(back, tokens, len(distinct)).to(logits.device))
    chances = there - logits.float().logsumexp(1, keepdim=True)
    found = chances.cpu().double()[back, _rank(back)]
    k = 0
    for row in rows:
        for _, _, choice in row.reads:
            totals[row.asked][choice] += found[k]
            k += 1


def _rank(back: Tensor) -> Tensor:
    """The how-manieth of its place each read is.

    >>> _rank(torch.tensor([0, 1, 0, 0])).tolist()
    [0, 0, 1, 2]
    """
    order = back.argsort(stable=True)
    counts = back.bincount()
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(back)
    rank[order] = torch.arange(len(back)) - first[back[order]]
    return rank


def _first_by_place(back: Tensor, tokens: Tensor, places: int) -> Tensor:
    """The tokens asked for at each place, [places, most], filled up with 0."""
    rank = _rank(back)
    table = torch.zeros(places, int(rank.max()) + 1, dtype=torch.int64)
    table[back, rank] = tokens
    return table


def tree_mask(rows: Sequence[Row], width: int) -> Tensor:
    """Who sees whom, [B, 1, width, width]: a prompt is causal, a choice's token sees the prompt and its own path.

    >>> rows = [Row(0, [7, 8, 1, 2], [0, 1, 2, 2], [-1, 0, 1, 1], 2)]
    >>> tree_mask(rows, 4)[0, 0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    """
    mask = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)  # a row of padding must see something
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    for i, row in enumerate(rows):
        mask[i, : row.body] |= causal[: row.body]
        for at in range(row.body, len(row.ids)):
            mask[i, at] |= mask[i, row.parent[at]]
    return mask[:, None]


def check_positions(source: "LanguageSource") -> None:
    """Raise CapabilityError if trees of choices cannot be placed."""
    if not source.shares:
        remedy = "Score with a model whose layers can be given keys, values and positions."
        raise CapabilityError(say("source", "must take positions and keys to score choices", source.spec.ref, remedy))
