"""k-means, small and repeatable."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.outputs._checks import not_finite


@torch.no_grad()
def k_means(
    points: Float[Tensor, " n d"], clusters: int, *, seed: int = 0, starts: int = 10, rounds: int = 300
) -> Int[Tensor, " n"]:
    """The cluster of each point, from 0 on in the order in which clusters appear; none is empty.

    Lloyd's rounds from starts chosen by k-means++ (Arthur and Vassilvitskii 2007); of several starts the one with the
    smallest sum of squared distances, the first of equals. In float64 on the CPU.

    Args:
        points: n of them.
        clusters: at most n.
        seed: of the starts.
        starts: how many.
        rounds: of each at most.

    Raises:
        ConfigError: more clusters than points, or a number below 1.
        DataError: a point is not finite.

    >>> k_means(torch.tensor([[0.0], [9.0], [0.1], [9.1]]), 2).tolist()
    [0, 1, 0, 1]
    """
    if not 1 <= clusters <= len(points) or starts < 1 or rounds < 1:
        raise ConfigError(say("clusters", f"must be from 1 to the {len(points)} points there are", clusters))
    if not bool(points.isfinite().all()):
        raise not_finite(points, "points")
    data = points.detach().double().cpu()
    generator = torch.Generator().manual_seed(seed)
    best, labels = float("inf"), torch.zeros(len(data), dtype=torch.int64)
    for _ in range(starts):
        found, spread = _lloyd(data, _spread_out(data, clusters, generator), rounds)
        if spread < best:
            best, labels = spread, found
    return _by_appearance(labels, clusters).to(points.device)


def _distances(data: Tensor, centres: Tensor) -> Tensor:
    """Squared, [n, k]."""
    return (data.square().sum(1, keepdim=True) - 2 * data @ centres.T + centres.square().sum(1)).clamp_min_(0)


def _spread_out(data: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Points to start from, each drawn by its squared distance to those there are."""
    chosen = [int(torch.randint(len(data), (1,), generator=generator))]
    near = _distances(data, data[chosen]).squeeze(1)
    while len(chosen) < clusters:
        near[chosen] = 0.0
        weight = near if bool(near.any()) else _others(len(data), chosen)  # points that are all the same
        chosen.append(int(torch.multinomial(weight, 1, generator=generator)))
        near = torch.minimum(near, _distances(data, data[chosen[-1:]]).squeeze(1))
    return data[chosen]


def _others(n: int, chosen: list[int]) -> Tensor:
    left = torch.ones(n, dtype=torch.float64)
    left[chosen] = 0.0
    return left


def _lloyd(data: Tensor, centres: Tensor, rounds: int) -> tuple[Tensor, float]:
    """Labels, and the sum of squared distances to the centres."""
    labels = torch.full((len(data),), -1)
    away = torch.zeros(len(data), dtype=data.dtype)
    for _ in range(rounds):
        away, found = _distances(data, centres).min(1)
        found = _none_empty(found, away, len(centres))
        if torch.equal(found, labels):
            break
        labels = found
        sizes = torch.bincount(labels, minlength=len(centres))
        centres = torch.zeros_like(centres).index_add_(0, labels, data) / sizes[:, None]
    return labels, float((data - centres[labels]).square().sum())


def _none_empty(labels: Tensor, away: Tensor, clusters: int) -> Tensor:
    """The point that is farthest from its centre, of a cluster of several, for every cluster without one."""
    sizes = torch.bincount(labels, minlength=clusters)
    for empty in range(clusters):
        if int(sizes[empty]):
            continue
        farthest = int(torch.where(sizes[labels] > 1, away, -1.0).argmax())
        sizes[labels[farthest]] -= 1
        sizes[empty] += 1
        labels[farthest] = empty
    return labels


def _by_appearance(labels: Tensor, clusters: int) -> Tensor:
    first = [int((labels == k).nonzero()[0]) for k in range(clusters)]
    order = torch.tensor(sorted(range(clusters), key=first.__getitem__))
    return order.argsort()[labels]
