"""Dividing examples: stratified parts, k of each class, and the splits that a data set lacks.

Everything here works on labels [N] and gives row numbers. The order of a class's examples is drawn from the seed and
the class's number alone, so that more examples of one class do not reshuffle the others.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.tasks.options import Options

SPLITS = ("train", "val", "test")


def stratified(labels: Tensor, fractions: Sequence[float], seed: int) -> list[Tensor]:
    """Divide examples into parts with the same mix of classes.

    Every part but the first gets its fraction of each class, rounded up for some classes and down for others so that
    the part's total is right; the first takes the rest, and at least one example of every class.

    Args:
        labels: class numbers, [N].
        fractions: one a part, adding up to 1.
        seed: other seeds give other parts.

    Returns:
        Row numbers, ascending, one tensor a part; together they are all rows.

    >>> [part.tolist() for part in stratified(torch.tensor([0, 0, 0, 1, 1, 1]), (2 / 3, 1 / 3), seed=0)]
    [[0, 2, 4, 5], [1, 3]]

    Raises:
        ConfigError: the fractions are negative or do not add up to 1.
    """
    if not fractions or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6:
        raise ConfigError(say("fractions", "must be 0 or more and add up to 1", list(fractions)))
    rows = by_class(labels)
    room = [max(0, len(r) - (fractions[0] > 0)) for r in rows]
    parts: list[list[int]] = []
    for number, fraction in enumerate(fractions[1:]):
        parts.append(allocate([len(r) for r in rows], round(len(labels) * fraction), room, seed + number))
        room = [left - taken for left, taken in zip(room, parts[-1], strict=True)]
    cut: list[list[Tensor]] = [[] for _ in fractions]
    for label, members in enumerate(rows):
        held = [counts[label] for counts in parts]
        pieces = shuffled(members, seed, label).split([len(members) - sum(held), *held])
        for part, piece in zip(cut, pieces, strict=True):
            part.append(piece)
    return [_joined(part) for part in cut]


def allocate(counts: Sequence[int], total: int, room: Sequence[int], seed: int) -> list[int]:
    """Share `total` among classes in proportion to `counts`: each its share rounded down or up, at most its room.

    Who is rounded up goes by the remainder, then by a draw from the seed. The sum is `total` unless room lacks.

    >>> allocate([5, 5, 10], 4, [5, 5, 10], seed=0)
    [1, 1, 2]
    """
    everything = max(1, sum(counts))
    shares = [min(count * total // everything, most) for count, most in zip(counts, room, strict=True)]
    draw = torch.rand(len(counts), generator=_generator(seed, -1)).tolist()
    remainder = [-(count * total % everything) for count in counts]
    waiting = sorted(range(len(counts)), key=lambda c: (remainder[c], draw[c]))
    for c in waiting:
        if sum(shares) >= total:
            break
        shares[c] += shares[c] < room[c] and remainder[c] < 0
    return shares


def pick(labels: Tensor, counts: Sequence[int], seed: int) -> Tensor:
    """Row numbers of `counts[c]` examples of each class c (or as many as there are), ascending.

    Fewer of the same seed are always among more.
    """
    rows = by_class(labels, len(counts))
    return _joined([shuffled(r, seed, c)[: counts[c]] for c, r in enumerate(rows)])


def by_class(labels: Tensor, classes: int | None = None) -> list[Tensor]:
    """The row numbers of each class, ascending.

    >>> [rows.tolist() for rows in by_class(torch.tensor([1, 0, 1]))]
    [[1], [0, 2]]
    """
    sizes = torch.bincount(labels, minlength=classes or 0)
    return list(torch.argsort(labels, stable=True).split(sizes.tolist()))


def shuffled(rows: Tensor, seed: int, label: int) -> Tensor:
    """The rows in an order that only the seed, the class and their number decide."""
    return rows[torch.randperm(len(rows), generator=_generator(seed, label))]


def complete(
    groups: Mapping[str, Tensor], labels: Tensor, options: Options
) -> tuple[dict[str, Tensor], list[str], Tensor]:
    """Make the splits that are missing out of those that are there.

    Only train: validation and test are taken from it, in the fractions of the options. Train and test: validation is
    taken from train. Train and validation: what was validation becomes the test, and a new validation split is taken
    from train, because numbers from a split that was used to choose are no test.

    Args:
        groups: row numbers of the splits that the data have.
        labels: class numbers of all rows, [N].
        options: `val`, `test` and `seed`.

    Returns:
        Row numbers of "train", "val" and "test"; warnings; the rows that train was divided from (empty if it was not).

    Raises:
        DataError: there is nothing to train on.
    """
    if not len(groups.get("train", ())):
        raise DataError(say("train", "must be among the splits and have examples", sorted(groups)))
    done, notes = dict(groups), list[str]()
    if "val" in done and "test" not in done:
        done["test"] = done.pop("val")
        notes.append(
            "There is no test split: the validation split is used as the test, "
            "and a new validation split is taken from train."
        )
    missing = [name for name in ("val", "test") if name not in done]
    if not missing:
        return done, notes, torch.empty(0, dtype=torch.int64)
    whole = done["train"]
    shares = [float(getattr(options, name)) for name in missing]
    parts = stratified(labels[whole], [1 - sum(shares), *shares], options.seed)
    done |= {name: whole[part] for name, part in zip(("train", *missing), parts, strict=True)}
    return {name: done[name] for name in SPLITS}, notes, whole


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(pieces)).sort().values if pieces else torch.empty(0, dtype=torch.int64)


def _generator(seed: int, label: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + label) % 2**63)
