"""Label maps: from what the frozen source predicted for labelled samples to a reading of its S classes as T targets.

Pure functions, no state. Shapes: N or `batch` samples, S or `source` classes of the source, T or `target` classes of
the task. Random, frequency (FLM) and iterative (ILM) maps: Chen et al. 2023, arXiv 2211.11635; many-to-one maps:
AutoVP, Tsao et al. 2024, arXiv 2310.08381; Bayesian maps: Cai et al. 2024, arXiv 2410.24018.

T is always given, never read off the labels at hand, so that a class missing from a sample keeps its column. Nothing
here is differentiated: logits that carry a graph are read without it.
"""

import math
from itertools import islice
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Integer, Num
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.outputs._checks import check_above, check_at_least, check_one_to_one, check_sizes, not_finite
from reprogram.outputs._scores import precise

SOFT_UNIT = 2.0**-36
"""What one step of `top_counts` is worth: sums of whole numbers are exact, in any order and on any device."""

Cells = npt.NDArray[Any]

_AHEAD = 5  # cells a greedy scan looks at first, for each source class that it is to give away
_SCAN = 1024  # cells turned into Python numbers at a time
_CACHED = 2**17  # logits worked on at a time on a CPU, so that they stay in its cache
_UNCACHED = 2**25  # elsewhere: 128 MiB in float32
_FEW, _NARROW = 32, 4096  # up to which k and S a top-k on a CPU is quicker by k scans


@torch.no_grad()
def predicted_classes(logits: Float[Tensor, " batch source"]) -> Int[Tensor, " batch"]:
    """The source class with the highest score, the first of equals; what `count_pairs` counts.

    Raises:
        DataError: logits that are NaN, +inf, or -inf in a whole row.

    >>> predicted_classes(torch.tensor([[1.0, 3.0, 3.0]])).tolist()
    [1]
    """
    work = precise(logits).detach()
    # On a CPU, numpy's argmax is 7 times as fast as torch's.
    best = torch.as_tensor(work.numpy().argmax(1)) if work.device.type == "cpu" else work.argmax(1)
    if not bool(work.gather(1, best.unsqueeze(1)).isfinite().all()):  # argmax takes NaN for the highest
        raise not_finite(logits)
    return best


@torch.no_grad()
def count_pairs(
    predicted: Integer[Tensor, " batch"],
    target: Integer[Tensor, " batch"],
    sources: int,
    targets: int,
    *,
    out: Int[Tensor, " source target"] | None = None,
) -> Int[Tensor, " source target"]:
    """``C[s, t]`` = how many samples of class t the source took for its class s; int64.

    Args:
        predicted: source classes, 0 to S - 1.
        target: labels, 0 to T - 1.
        sources: S.
        targets: T.
        out: int64 counts to add to, in place; the cost is then N, whatever S and T are.

    Raises:
        ConfigError: S or T is below 1, or `out` is not int64 [S, T].
        DataError: classes or labels that are not whole numbers, out of range, or not as many as the other.

    >>> count_pairs(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 0]), sources=3, targets=2).tolist()
    [[0, 1], [0, 0], [2, 0]]
    """
    counts = _room_for_counts(sources, targets, target.device, out)
    if predicted.shape != target.shape:
        raise DataError(say("predicted", f"must be as many as the {len(target)} labels", len(predicted)))
    _check_classes({"predicted": (predicted, sources), "target": (target, targets)})
    cell = predicted.to(torch.int64) * targets + target
    counts.view(-1).scatter_add_(0, cell, torch.ones_like(cell))
    return counts


def random_map(sources: int, targets: int, seed: int) -> Int[Tensor, " target"]:
    """The first T entries of a random permutation of the S source classes: one of its own for every target.

    Args:
        sources: S.
        targets: T, at most S.
        seed: equal seeds give equal maps, whatever the global random state.

    Raises:
        ConfigError: S or T is below 1, or T is above S.

    >>> sorted(random_map(4, 4, seed=0).tolist())
    [0, 1, 2, 3]
    """
    check_one_to_one(sources, targets, 1)
    return torch.randperm(sources, generator=torch.Generator().manual_seed(seed))[:targets]


def frequency_map(counts: Num[Tensor, " source target"]) -> Int[Tensor, " target"]:
    """One source class for each target, matched greedily (FLM; ILM is the same rule, again in every epoch).

    The largest remaining ``C[s, t]`` gives source s to target t and strikes row s and column t; T times. Ties go to
    the smallest ``s * T + t``. A class without a count so gets the smallest source class that is left.

    Args:
        counts: [S, T], none negative; `count_pairs` makes them.

    Raises:
        ConfigError: T is above S, so that there is no one-to-one map.
        DataError: a count is negative or not a number.

    Target 1 wins source 0 (5 > 4), and target 0 takes what it is counted with next:

    >>> frequency_map(torch.tensor([[4, 5], [1, 0], [2, 0]])).tolist()
    [2, 0]
    """
    return many_to_one_map(counts, 1)[:, 0]


@torch.no_grad()
def many_to_one_map(counts: Num[Tensor, " source target"], per_class: int) -> Int[Tensor, " target taken"]:
    """``m`` source classes for each target, each source class for one target only (AutoVP's frequency map).

    The greedy rule of `frequency_map`, but a column is struck when its target has m source classes. Targets that
    counts leave short are filled up, in order, with the smallest source classes not in use.

    Args:
        counts: [S, T], none negative.
        per_class: m; AutoVP tries 1, 5 and 10.

    Returns:
        [T, m], the source classes of each target in the order in which it got them.

    Raises:
        ConfigError: m is below 1, or m * T is above S.
        DataError: a count is negative or not a number.

    >>> many_to_one_map(torch.tensor([[9, 1], [8, 7], [0, 3], [0, 0], [0, 0]]), per_class=2).tolist()
    [[0, 1], [2, 3]]
    """
    sources, targets = counts.shape
    check_one_to_one(sources, targets, per_class)
    _check_counts(counts)
    chosen: list[list[int]] = [[] for _ in range(targets)]
    taken = bytearray(sources)
    flat = (precise(counts) if counts.is_floating_point() else counts.long()).flatten().cpu().numpy()
    cells = np.flatnonzero(flat)  # few, as a rule: at most one for each sample
    while len(cells) and not all(len(row) == per_class for row in chosen):
        best, ties, cells = _best(flat, cells, _AHEAD * targets * per_class)
        if not _scan(best, chosen, per_class, taken):
            _scan(ties, chosen, per_class, taken)
        cells = cells[_free(chosen, per_class, taken).take(cells)]
    rest = (s for s in range(sources) if not taken[s])
    for row in chosen:
        row.extend(islice(rest, per_class - len(row)))
    return torch.tensor(chosen, device=counts.device)


@torch.no_grad()
def bayesian_map(counts: Num[Tensor, " source target"], smoothing: float = 1.0) -> Float[Tensor, " source target"]:
    """How much each source class speaks for each target (BLM), float32.

    ``P[s, t] = C[s, t] / (sum_u C[s, u] + smoothing)``, the smoothed probability of t where the source says s; then
    ``W[s, t] = P[s, t] / sum_r P[r, t]``, so that a column is a weighted mean over source classes.

    0 / 0 is 0: without smoothing a source class that was never predicted has weight 0, and the column of a target
    that was never seen is 0 throughout, with any smoothing. Such a target has no score; see `BayesianMap`.

    Args:
        counts: [S, T], none negative; whole numbers or soft counts.
        smoothing: lambda; 1 in the published configuration.

    Raises:
        ConfigError: smoothing is negative or not finite.
        DataError: a count is negative or not a number.

    Row 0 is 1 / (1 + 1) for target 0, row 1 is 3 / (4 + 1) for target 0 and 1 / (4 + 1) for target 1:

    >>> bayesian_map(torch.tensor([[1, 0, 0], [3, 1, 0]]))
    tensor([[0.4545, 0.0000, 0.0000],
            [0.5455, 1.0000, 0.0000]])
    """
    check_at_least("smoothing", smoothing, 0.0)
    _check_counts(counts)
    weights = counts.to(torch.float32)
    seen = weights.sum(1, keepdim=True).add_(smoothing)
    weights = weights / seen.masked_fill_(seen == 0, 1.0)
    total = weights.sum(0)
    return weights.div_(total.masked_fill_(total == 0, 1.0))


def bayesian_map_plus(
    logits: Float[Tensor, " batch source"],
    target: Integer[Tensor, " batch"],
    targets: int,
    smoothing: float = 1.0,
    top_ratio: float = 0.15,
    temperature: float = 1.0,
) -> Float[Tensor, " source target"]:
    """`bayesian_map` of soft counts: each sample counts for its k most probable source classes (BLM+), float32.

    ``A[s, t] = sum of softmax(z_i / temperature)[s] over samples i of class t that have s among their top k``, with
    ``k = max(1, floor(top_ratio * T))``, at most S.

    Args:
        logits: z, [N, S].
        target: labels, 0 to T - 1.
        targets: T.
        smoothing: lambda; 1 in the published configuration.
        top_ratio: alpha; 0.15 as published.
        temperature: divides the logits; 1 as published.

    Raises:
        ConfigError: a setting is out of range.
        DataError: labels out of range, or logits that are not finite numbers.

    One sample, softmax (3/4, 1/4, 0), T = 2 and hence k = 1; its class gets one source class, the other class none:

    >>> bayesian_map_plus(torch.tensor([[3.0, 1.0, 0.0]]).log(), torch.tensor([1]), targets=2)
    tensor([[0., 1.],
            [0., 0.],
            [0., 0.]])
    """
    soft = top_counts(logits, target, targets, top_size(targets, top_ratio), temperature)
    return bayesian_map(soft * SOFT_UNIT, smoothing)


def top_size(targets: int, top_ratio: float) -> int:
    """``k = max(1, floor(top_ratio * T))``; published code without the 1 fails below 7 classes.

    Raises:
        ConfigError: the ratio is not above 0.

    >>> top_size(100, 0.15), top_size(5, 0.15)
    (15, 1)
    """
    check_above("top_ratio", top_ratio)
    return max(1, math.floor(top_ratio * targets))


@torch.no_grad()
def top_counts(
    logits: Float[Tensor, " batch source"],
    target: Integer[Tensor, " batch"],
    targets: int,
    top: int,
    temperature: float = 1.0,
    *,
    out: Int[Tensor, " source target"] | None = None,
) -> Int[Tensor, " source target"]:
    """Soft counts, the A of `bayesian_map_plus`, int64 in steps of `SOFT_UNIT`.

    Whole numbers, so that batches, ranks and runs add up to the same A bit for bit, and no cast of a module to half
    precision can spoil them. Neither the softmax nor its N x S mask is ever stored: k values a sample are normalised
    and added straight to A.

    Args:
        logits: z, [N, S].
        target: labels, 0 to T - 1.
        targets: T.
        top: k; above S it means S. Which of several equal logits at the border counts is left open.
        temperature: divides the logits.
        out: soft counts to add to, in place.

    Raises:
        ConfigError: a setting is out of range, or `out` is not int64 [S, T].
        DataError: labels out of range or not one a row, or logits that are NaN, +inf or -inf in a whole row.

    >>> soft = top_counts(torch.tensor([[3.0, 1.0, 0.0]]).log(), torch.tensor([1]), targets=2, top=2)
    >>> soft * SOFT_UNIT
    tensor([[0.0000, 0.7500],
            [0.0000, 0.2500],
            [0.0000, 0.0000]])
    """
    check_above("temperature", temperature)
    if top < 1:
        raise ConfigError(say("top", "must be 1 or more", top))
    sources = logits.shape[1]
    counts = _room_for_counts(sources, targets, logits.device, out)
    if len(target) != len(logits):
        raise DataError(say("target", f"must be one label for each of the {len(logits)} rows", len(target)))
    _check_classes({"target": (target, targets)})
    size = max(1, (_CACHED if logits.device.type == "cpu" else _UNCACHED) // sources)
    for start in range(0, len(logits), size):
        chance, source = _top_softmax(logits[start : start + size], min(top, sources), temperature)
        _add_soft(counts, chance, source, target[start : start + size])
    return counts


def _top_softmax(logits: Tensor, top: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The k largest softmax values [batch, k] and their places: ``exp(v - v_max) / sum exp(z - v_max)``."""
    work = precise(logits)
    if temperature != 1.0:
        work = work / temperature
    value, place = _top(work, top)
    best = value[:, :1].clone()
    total = (work - best).exp_().sum(1, keepdim=True)
    if not bool(total.isfinite().all()):
        raise not_finite(logits)
    return value.sub_(best).exp_().div_(total), place


def _top(values: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """`topk`, or on a CPU k times the highest that is left, which took half the time for S = 1,000 and k = 15."""
    if values.device.type != "cpu" or top > _FEW or values.shape[1] > _NARROW:
        return values.topk(top, dim=1)
    left = values.detach().numpy().copy()
    flat, first = left.reshape(-1), np.arange(len(left)) * left.shape[1]
    value, place = np.empty((top, len(left)), left.dtype), np.empty((top, len(left)), np.int64)
    for k in range(top):
        left.argmax(1, out=place[k])
        at = first + place[k]
        value[k] = flat[at]
        flat[at] = -np.inf
    return torch.as_tensor(value.T), torch.as_tensor(place.T)


def _add_soft(counts: Tensor, chance: Tensor, source: Tensor, target: Tensor) -> None:
    cell = source * counts.shape[1] + target.unsqueeze(1)
    steps = (chance * (1 / SOFT_UNIT)).round_().to(torch.int64)
    counts.view(-1).scatter_add_(0, cell.flatten(), steps.flatten())


def _best(flat: Cells, cells: Cells, many: int) -> tuple[Cells, Cells, Cells]:
    """Cells in three parts: about `many` with the largest counts, sorted; those that equal the least of them; the rest.

    Each in row-major order where counts are equal. Sorting all S x T cells would take most of the time of a map, and a
    scan seldom gets beyond the first few.
    """
    values = flat[cells]
    least = torch.as_tensor(values).topk(min(many, len(values))).values[-1].item()
    above = np.flatnonzero(values > least)
    above = above[np.argsort(-values[above], kind="stable")]
    ties, rest = np.flatnonzero(values == least), np.flatnonzero(values < least)  # far quicker than masks
    return cells[above], cells[ties], cells[rest]


def _scan(cells: Cells, chosen: list[list[int]], per_class: int, taken: bytearray) -> bool:
    """Give sources to targets, cell by cell, and mark those taken. True as soon as every target has enough."""
    missing = len(chosen) * per_class - sum(taken)
    for start in range(0, len(cells), _SCAN):
        for cell in cast("list[int]", cells[start : start + _SCAN].tolist()):
            source, target = divmod(cell, len(chosen))
            if taken[source] or len(chosen[target]) == per_class:
                continue
            taken[source] = 1
            chosen[target].append(source)
            missing -= 1
            if not missing:
                return True
    return False


def _free(chosen: list[list[int]], per_class: int, taken: bytearray) -> Cells:
    """[S, T], true where the source is not taken and the target has not enough."""
    return np.logical_and.outer([not t for t in taken], [len(row) < per_class for row in chosen])


def _room_for_counts(sources: int, targets: int, device: torch.device, out: Tensor | None) -> Tensor:
    check_sizes(sources, targets)
    if out is None:
        return torch.zeros(sources, targets, dtype=torch.int64, device=device)
    if out.shape != (sources, targets) or out.dtype != torch.int64:
        got = (tuple(out.shape), out.dtype)
        raise ConfigError(say("out", f"must be int64 of shape ({sources}, {targets})", got))
    return out


def _check_counts(counts: Tensor) -> None:
    check_sizes(*counts.shape)
    least = float(counts.min())
    if not least >= 0:
        raise DataError(say("counts", "must be 0 or more", least))


def _check_classes(classes: dict[str, tuple[Tensor, int]]) -> None:
    """Whole numbers from 0 to each bound - 1. Waits for the device once, however many are checked."""
    for name, (values, _) in classes.items():
        if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
            raise DataError(say(name, "must hold whole numbers", values.dtype))
        if values.numel() == 0:
            return
    ends = torch.stack([end.to(torch.int64) for values, _ in classes.values() for end in values.aminmax()])
    found = cast("list[int]", ends.tolist())  # pyright: ignore[reportUnknownMemberType]
    for (name, (_, bound)), low, high in zip(classes.items(), found[::2], found[1::2], strict=True):
        if low < 0 or high >= bound:
            raise DataError(say(name, f"must be from 0 to {bound - 1}", low if low < 0 else high))
