"""A few attributes of a class that stand for all that were written (ArGue; Tian et al. 2024, arXiv 2311.16494)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.outputs.clusters import k_means


@torch.no_grad()
def representatives(
    vectors: Float[Tensor, " n d"], count: int, pictures: Float[Tensor, " seen d"] | None = None, *, seed: int = 0
) -> list[int]:
    """One vector of each cluster of directions: the one most like the pictures, or most like the rest of its cluster.

    Args:
        vectors: of a class's attributes, as class texts; of any length above 0.
        count: clusters; all vectors are kept where there are not more.
        pictures: of the class, of length 1; None, or no row, where there are none to compare with.
        seed: of the clusters' starts.

    Returns:
        indices, in order: at most `count`.

    Raises:
        ConfigError: `count` is below 1.

    >>> attributes = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2]])
    >>> representatives(attributes, 2), representatives(attributes, 2, torch.tensor([[1.0, 0.0]]))
    ([1, 2], [0, 2])
    """
    if count < 1:
        raise ConfigError(say("kept", "must be 1 or more attributes for a class", count))
    if len(vectors) <= count:
        return list(range(len(vectors)))
    unit = F.normalize(vectors.double(), dim=-1)
    owner = k_means(unit.float(), count, seed=seed)
    like = None if pictures is None or not len(pictures) else pictures.double().mean(0)
    found: list[int] = []
    for cluster in range(count):
        members = (owner == cluster).nonzero().flatten()
        wanted = unit[members].sum(0) if like is None else like
        near = (unit[members] @ wanted).round(decimals=9)  # so that of equals the first is taken
        found.append(int(members[near.argmax()]))
    return sorted(found)
