"""Where tokens go: a padded batch with learned tokens next to its content, and the way back to its own places."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reprogram.core.inserting import Where


@final
@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """What a transformer reads.

    Attributes:
        embeds: [B, L, d].
        mask: [B, L], True where there is a token.
        own: [B, S], where the batch's own tokens are now.
    """

    embeds: Tensor
    mask: Tensor
    own: Tensor


def positions(mask: Bool[Tensor, " batch length"], start: Tensor | int = 0) -> Int[Tensor, " batch length"]:
    """Position ids from the mask alone, so that padding on either side changes nothing; 0 where padded.

    >>> positions(torch.tensor([[False, True, True], [True, True, False]]), 5).tolist()
    [[0, 5, 6], [5, 6, 0]]
    """
    return (mask.cumsum(1) - 1 + start).masked_fill(~mask, 0)


def last(mask: Bool[Tensor, " batch length"]) -> Int[Tensor, " batch"]:
    """Index of the last token of each row.

    >>> last(torch.tensor([[False, True, True], [True, True, False]])).tolist()
    [2, 1]
    """
    length = mask.shape[1]
    return length - 1 - mask.flip(1).int().argmax(1)


def insert(
    sequence: Sequence, tokens: Float[Tensor, " rows n d"], where: Where, present: Bool[Tensor, " rows n"] | None = None
) -> Sequence:
    """Put tokens next to the content of every row: never between padding and content.

    Args:
        sequence: a batch, padded on either side.
        tokens: the same for all rows (one row), or a row each.
        where: "start", "after_first" or "end" of the content.
        present: [rows, n], False for tokens of rows that get fewer; these become padding. None if all are there.

    >>> mask = torch.tensor([[False, True, True]])
    >>> batch = Sequence(torch.tensor([[[0.0], [5.0], [6.0]]]), mask, torch.arange(3)[None])
    >>> longer = insert(batch, torch.tensor([[[9.0]]]), "after_first")
    >>> longer.embeds.flatten().tolist(), longer.own.tolist(), longer.mask.int().tolist()
    ([0.0, 5.0, 9.0, 6.0], [[0, 1, 3]], [[0, 1, 1, 1]])
    """
    rows, length, _ = sequence.embeds.shape
    n = tokens.shape[1]
    first = sequence.mask.int().argmax(1)
    at = {"start": first, "after_first": first + 1, "end": last(sequence.mask) + 1}[
        where
    ]  # [B]: goes before this index
    columns = torch.arange(length, device=at.device)
    moved = columns + n * (columns >= at[:, None])  # [B, length]: where each old column goes
    added = at[:, None] + torch.arange(n, device=at.device)  # [B, n]
    source = torch.empty(rows, length + n, dtype=torch.int64, device=at.device)
    source.scatter_(1, moved, columns.expand(rows, -1)).scatter_(
        1, added, length + torch.arange(n, device=at.device).expand(rows, -1)
    )
    both = torch.cat([sequence.embeds, tokens.to(sequence.embeds.dtype).expand(rows, -1, -1)], dim=1)
    seen = torch.ones(1, n, dtype=torch.bool, device=at.device) if present is None else present
    return Sequence(
        embeds=both.gather(1, source[..., None].expand(-1, -1, both.shape[-1])),
        mask=torch.cat([sequence.mask, seen.expand(rows, -1)], dim=1).gather(1, source),
        own=moved.gather(1, sequence.own),
    )


def flush(sequence: Sequence) -> Sequence:
    """The same with all padding on the right, for models whose pooler or positions count from the first column.

    >>> mask = torch.tensor([[False, True, True]])
    >>> moved = flush(Sequence(torch.tensor([[[0.0], [5.0], [6.0]]]), mask, torch.arange(3)[None]))
    >>> moved.embeds.flatten().tolist(), moved.own.tolist(), moved.mask.tolist()
    ([5.0, 6.0, 0.0], [[2, 0, 1]], [[True, True, False]])
    """
    order = sequence.mask.int().argsort(dim=1, descending=True, stable=True)
    return Sequence(
        embeds=sequence.embeds.gather(1, order[..., None].expand_as(sequence.embeds)),
        mask=sequence.mask.gather(1, order),
        own=order.argsort(1).gather(1, sequence.own),
    )


def fill(
    embeds: Float[Tensor, " batch length d"], slots: Int[Tensor, " batch length"], tokens: Float[Tensor, " rows n d"]
) -> Float[Tensor, " batch length d"]:
    """Soft token k where `slots` says k; the rest as it was.

    >>> fill(torch.zeros(1, 3, 1), torch.tensor([[-1, 1, 0]]), torch.tensor([[[7.0], [8.0]]])).flatten().tolist()
    [0.0, 8.0, 7.0]
    """
    wide = tokens.to(embeds.dtype).expand(len(embeds), -1, -1)
    chosen = wide.gather(1, slots.clamp_min(0)[..., None].expand(-1, -1, wide.shape[-1]))
    return torch.where(slots[..., None] >= 0, chosen, embeds)
