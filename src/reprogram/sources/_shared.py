"""Starts of prompts that many share, run once: how prompts divide into such starts, and what is kept of them."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, final

import torch

from reprogram.core.program import Input
from reprogram.sources._before import Before, behind

if TYPE_CHECKING:
    from reprogram.sources.language import LanguageSource

LEAST = 16
"""Tokens that a start must have to be run on its own: running them again costs less than a pass of their own."""

DEEPEST = 32
"""Starts within starts."""

KEPT = 4
"""Starts remembered from call to call, such as the demonstrations of a program."""

Ids = tuple[int, ...]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """Prompts with a common start: run that once, then each of `rows` behind it, and `branches` with starts of theirs.

    Attributes:
        start: number of tokens before it, which branches above have run.
        end: number of tokens that its prompts have in common, at least `start`.
        rows: numbers of prompts that are read from `end` on, each by itself.
        branches: of prompts that share more.
    """

    start: int
    end: int
    rows: tuple[int, ...]
    branches: tuple["Branch", ...]


def plan(prompts: Sequence[Ids], shared: Sequence[int]) -> Branch:
    """Divide prompts into starts that are worth sharing.

    A start is run by itself where that saves more tokens than `LEAST`, or where it is known to come again. Every prompt
    keeps a token of its own, since what follows its last token is asked for.

    Args:
        prompts: token ids, none empty.
        shared: for each, tokens at its start that are known to come again.

    >>> one = plan([tuple(range(20)) + (i,) for i in range(3)], [0, 0, 0])
    >>> one.end, one.rows, one.branches
    (20, (0, 1, 2), ())
    >>> plan([(1, 2), (3,)], [0, 0]).rows
    (0, 1)
    """
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    known = min(shared[i] for i in order) if order else 0
    return _branch(prompts, order, 0, known, DEEPEST)


def _branch(prompts: Sequence[Ids], order: list[int], start: int, known: int, depth: int) -> Branch:
    """The branch of prompts that are sorted and agree up to `start`."""
    first, last = prompts[order[0]], prompts[order[-1]]  # sorted: what these two share, all do
    most = min(len(prompts[i]) for i in order) - 1
    end = next((i for i in range(start, most) if first[i] != last[i]), most)
    if start == 0 and LEAST <= known <= end and known >= end // 2:
        end = known  # a little less than could be shared, but the same next time
    elif (len(order) - 1) * (end - start) < LEAST or end - start < LEAST // 2:
        end = start
    rows: list[int] = []
    branches: list[Branch] = []
    for _, group in groupby(order, key=lambda i: prompts[i][end : end + LEAST // 2]):
        members = list(group)
        alone = len(members) == 1 or depth == 0 or (len(members) == len(order) and end == start)
        below = None if alone else _branch(prompts, members, end, 0, depth - 1)
        if below is None or below.end == end:
            rows += members
        else:
            branches.append(below)
    return Branch(start, end, tuple(rows), tuple(branches))


@final
class Starts:
    """Keys and values of starts that were run, the latest of them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Ids, Before] = OrderedDict()

    def run(self, source: "LanguageSource", ids: Ids, before: Before | None, start: int, input: Input) -> Before | None:
        """What stands before position `len(ids)`, given what stands before position `start`.

        Args:
            source: causal.
            ids: of the whole start.
            before: of `ids[:start]`, and of learned prompts before them.
            start: where to go on.
            input: with learned prompts nothing is remembered.
        """
        if start == len(ids):
            return before
        remember = start == 0 and before is None
        found = self._kept.get(ids) if remember else None
        if found is None:
            row = torch.tensor([ids[start:]], device=source.device)
            made = source.record_behind(source.embedded(row), before)
            found = behind(before, made, len(ids) - start)
        if remember:
            self._kept.pop(ids, None)  # to the end; another thread may have dropped it
            self._kept[ids] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found
