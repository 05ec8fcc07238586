"""Which demonstrations a prompt shows, and in what order: functions from vectors, labels and texts to index lists.

Nothing here reads a label of the query, and every function gives the same list for the same arguments. A choice is a
list of indices into the pool, best first, without repetition; `arrange` then puts it in the order of the prompt.
`selection_query` has the same as parts that choose anew for every query.
"""

import random
from collections.abc import Collection, Hashable, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say

Order = Literal["reversed", "ranked", "interleaved", "shuffled"]
"""Of the examples in a prompt. "reversed": the best stands last, next to the query; "ranked": it stands first;
"interleaved": as "reversed", but labels take turns; "shuffled": at random."""

Drop = Literal["last", "longest"]
"""What goes first when a choice is too long: the worst of it, or the longest."""

_CHUNK = 1024  # queries whose similarities to the pool are held at once
_FLAT = 1e-10  # of the largest volume; what is below has no volume left but rounding


def random_choice(labels: Sequence[Hashable], k: int, seed: int = 0, *, balanced: bool = False) -> list[int]:
    """Choose k examples at random.

    Args:
        labels: class or answer of each of n examples.
        k: how many, at most n.
        seed: of the draw.
        balanced: as many of each class as can be, see `balanced_choice`.

    Raises:
        ConfigError: k is below 0 or above n.

    >>> sorted(random_choice("aab", 3)), sorted(random_choice("aaaab", 2, balanced=True))[1]
    ([0, 1, 2], 4)
    """
    _check_k(k, len(labels))
    return balanced_choice(labels, k, seed) if balanced else random.Random(seed).sample(range(len(labels)), k)


def balanced_choice(labels: Sequence[Hashable], k: int, seed: int = 0) -> list[int]:
    """Choose k examples at random, the classes' numbers differing by one at most while no class runs out.

    Classes are dealt from in turn, in a random order; one that runs out is passed over.

    Raises:
        ConfigError: k is below 0 or above n.
    """
    _check_k(k, len(labels))
    draw, hands = random.Random(seed), dict[Hashable, list[int]]()
    for i, label in enumerate(labels):
        hands.setdefault(label, []).append(i)
    piles = list(hands.values())
    draw.shuffle(piles)
    for pile in piles:
        draw.shuffle(pile)
    return _dealt(piles)[:k]


def twins(queries: Sequence[str], pool: Sequence[str]) -> list[frozenset[int]]:
    """For each query, the examples of the pool with the same text: what must not be shown to it.

    Spaces at either end make no difference.

    >>> twins(["a ", "c"], ["a", "b", "a"])
    [frozenset({0, 2}), frozenset()]
    """
    places = dict[str, set[int]]()
    for i, text in enumerate(pool):
        places.setdefault(text.strip(), set()).add(i)
    return [frozenset(places.get(text.strip(), ())) for text in queries]


def nearest(
    queries: Float[Tensor, " batch dim"],
    pool: Float[Tensor, " n dim"],
    k: int,
    excluded: Sequence[Collection[int]] | None = None,
) -> list[list[int]]:
    """The k examples with the largest cosine to each query, nearest first; of equals the first of the pool.

    Args:
        queries: [B, d], of any length.
        pool: [n, d].
        k: how many, at most n.
        excluded: for each query, examples it must not get; its list is shorter where fewer than k are left.

    Raises:
        ConfigError: k is below 0 or above n, or there is not one exclusion for each query.

    >>> nearest(torch.tensor([[1.0, 0.1]]), torch.eye(2), 2)
    [[0, 1]]
    """
    _check_k(k, len(pool))
    barred = _barred(excluded, len(queries))
    units, found = F.normalize(pool, dim=-1), list[list[int]]()
    for start in range(0, len(queries), _CHUNK):
        close = _products(F.normalize(queries[start : start + _CHUNK], dim=-1), units)
        order = close.argsort(dim=1, descending=True, stable=True)
        for row, out in zip(order, barred[start : start + _CHUNK], strict=True):
            found.append([i for i in whole(row[: k + len(out)]) if i not in out][:k])
    return found


def dpp(
    query: Float[Tensor, " dim"],
    pool: Float[Tensor, " n dim"],
    k: int,
    candidates: int = 100,
    scale: float = 0.1,
    excluded: Collection[int] = (),
) -> list[int]:
    """Choose k examples close to the query and unlike one another: the likeliest set of a determinantal process.

    Among the `candidates` nearest, with ``r_i = (cos(q, i) + 1) / 2`` less its maximum, ``w_i = exp(r_i / (2 scale))``
    and ``S_ij = (cos(i, j) + 1) / 2``, the kernel is ``L_ij = w_i S_ij w_j`` (Ye et al., "Compositional Exemplars for
    In-context Learning", 2023, arXiv 2302.05698); `greedy_map` chooses from it.

    Args:
        query: [d].
        pool: [n, d].
        k: how many, at most n; fewer come where fewer are not excluded.
        candidates: at least k; more than there are do no harm.
        scale: of the relevance; small values leave nothing but closeness.
        excluded: examples not to be chosen.

    Returns:
        Indices into the pool, closest first.

    Raises:
        ConfigError: k, `candidates` or `scale` is out of range.
    """
    _check_k(k, len(pool))
    if candidates < k or not 0 < scale < float("inf"):
        raise ConfigError(say("candidates, scale", f"must be at least k = {k}, and above 0", (candidates, scale)))
    near = nearest(query[None], pool, min(candidates, len(pool)), [excluded])[0]
    if not near:
        return []
    units = F.normalize(pool[near].double(), dim=-1)
    relevance = (_products(units, F.normalize(query[None].double(), dim=-1)).squeeze(1) + 1) / 2
    weight = ((relevance - relevance.max()) / (2 * scale)).exp()
    kernel = weight[:, None] * ((_products(units, units) + 1) / 2) * weight
    return [near[i] for i in sorted(greedy_map(kernel, min(k, len(near))))]  # `near` is ranked


def greedy_map(kernel: Float[Tensor, " n n"], k: int) -> list[int]:
    """Items that make the determinant of their part of the kernel large, one after the other the one that adds most.

    By an incremental Cholesky factor (Chen, Zhang, Zhou 2018, arXiv 1709.05135). Once nothing adds volume, which
    happens when k is above the kernel's rank, the items left come in the order of their own entries on the diagonal.

    Args:
        kernel: [n, n], symmetric and positive semidefinite.
        k: how many, at most n.

    Returns:
        k different indices, in the order in which they were chosen.

    Raises:
        ConfigError: k is below 0 or above n.

    >>> greedy_map(torch.tensor([[4.0, 3.9, 0.0], [3.9, 4.0, 0.0], [0.0, 0.0, 1.0]]), 2)
    [0, 2]
    """
    _check_k(k, len(kernel))
    left = kernel.diagonal().clone().double()  # the volume that each item would add
    least = _FLAT * float(left.max()) if len(left) else 0.0
    factor = left.new_zeros(len(left), k)
    chosen = list[int]()
    while len(chosen) < k:
        best = int(left.argmax())
        if float(left[best]) <= least:
            break
        step = len(chosen)
        row = (kernel[best].double() - factor @ factor[best]) / left[best].sqrt()
        factor[:, step] = row
        left = (left - row.square()).clamp_min(0)
        chosen.append(best)
        left[chosen] = -1.0
    own = whole(kernel.diagonal().argsort(descending=True, stable=True))
    return [*chosen, *(i for i in own if i not in chosen)][:k]


def vote_k(pool: Float[Tensor, " n dim"], k: int, neighbours: int = 10, discount: float = 10.0) -> list[int]:
    """Choose k examples that many others are close to, spread over the pool: one set for all queries.

    Every example not chosen votes for its nearest neighbours, with ``discount ** -c`` where c of them are chosen
    already; the one with the most votes is chosen next (the graph stage of vote-k, Su et al., "Selective Annotation
    Makes Language Models Better Few-Shot Learners", 2022, arXiv 2209.01975). No label is read.

    Args:
        pool: [n, d].
        k: how many, at most n.
        neighbours: that each example votes for, itself not among them (paper: 150 of thousands).
        discount: at least 1 (paper: 10).

    Raises:
        ConfigError: a number is out of range.
    """
    _check_k(k, len(pool))
    if neighbours < 1 or not 1 <= discount < float("inf"):
        raise ConfigError(say("neighbours, discount", "must be 1 or more", (neighbours, discount)))
    if len(pool) < 2:
        return list(range(k))
    several = min(neighbours, len(pool) - 1)
    near = torch.tensor(nearest(pool, pool, several, [{i} for i in range(len(pool))]))  # [n, neighbours]
    taken, chosen = torch.zeros(len(pool), dtype=torch.bool), list[int]()
    while len(chosen) < k:
        weight = (~taken).double() * discount ** -taken[near].sum(1).double()
        votes = torch.zeros(len(pool), dtype=torch.float64)
        votes.index_add_(0, near.flatten(), weight.repeat_interleave(several))
        best = int(votes.masked_fill(taken, -1.0).argmax())
        chosen.append(best)
        taken[best] = True
    return chosen


def arrange(
    choice: Sequence[int], order: Order = "reversed", *, labels: Sequence[Hashable] = (), seed: int = 0
) -> list[int]:
    """Put a choice, best first, in the order of the prompt.

    Args:
        choice: indices.
        order: see `Order`.
        labels: of the whole pool, for "interleaved".
        seed: for "shuffled"; the order depends on it and the choice alone.

    Raises:
        ConfigError: labels are missing.

    >>> arrange([7, 3, 5]), arrange([7, 3, 5], "ranked")
    ([5, 3, 7], [7, 3, 5])
    >>> arrange([0, 1, 2, 3], "interleaved", labels="aabb")
    [3, 1, 2, 0]
    """
    if order == "shuffled":
        return random.Random(f"{seed}:{list(choice)}").sample(list(choice), len(choice))
    if order == "interleaved":
        if choice and len(labels) <= max(choice):
            raise ConfigError(say("labels", f"must be those of the pool, {max(choice) + 1} at least", len(labels)))
        piles = dict[Hashable, list[int]]()
        for i in choice:
            piles.setdefault(labels[i], []).append(i)
        choice = _dealt(list(piles.values()))
    return list(choice) if order == "ranked" else list(choice)[::-1]


def within(choice: Sequence[int], lengths: Sequence[int], limit: int, drop: Drop = "last") -> list[int]:
    """As much of a choice as a limit allows, in its order.

    Args:
        choice: indices, best first.
        lengths: of each of them, in tokens, in the order of `choice`.
        limit: of their sum.
        drop: what goes first; of equally long ones the last.

    Raises:
        DataError: there is not one length for each.

    >>> within([7, 3, 5], [4, 9, 2], 8), within([7, 3, 5], [4, 9, 2], 8, "longest")
    ([7], [7, 5])
    """
    if len(lengths) != len(choice):
        raise DataError(say("lengths", f"must be {len(choice)}, one for each example chosen", len(lengths)))
    kept = list(range(len(choice)))
    while kept and sum(lengths[i] for i in kept) > limit:
        kept.remove(kept[-1] if drop == "last" else max(kept, key=lambda i: (lengths[i], i)))
    return [choice[i] for i in kept]


def whole(numbers: Integer[Tensor, " n"]) -> list[int]:
    """A row of whole numbers as a list."""
    return cast("list[int]", numbers.tolist())  # pyright: ignore[reportUnknownMemberType]


def _dealt(piles: Sequence[Sequence[int]]) -> list[int]:
    """One of each pile in turn, until all are empty."""
    rounds = max((len(pile) for pile in piles), default=0)
    return [pile[turn] for turn in range(rounds) for pile in piles if turn < len(pile)]


def _products(one: Tensor, other: Tensor) -> Tensor:
    """[n, d] and [m, d] to [n, m], in their own precision."""
    with torch.autocast(one.device.type, enabled=False):
        return one @ other.T


def _barred(excluded: Sequence[Collection[int]] | None, queries: int) -> list[frozenset[int]]:
    if excluded is not None and len(excluded) != queries:
        raise ConfigError(say("excluded", f"must be {queries}, one for each query", len(excluded)))
    return [frozenset(some) for some in excluded] if excluded is not None else [frozenset()] * queries


def _check_k(k: int, size: int) -> None:
    if not 0 <= k <= size:
        raise ConfigError(say("k", f"must be from 0 to {size}, the examples there are to choose from", k))
