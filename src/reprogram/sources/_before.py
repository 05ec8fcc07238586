"""Keys and values before a batch: of prefixes, and those that a learned prompt left when it was run once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, say
from reprogram.core.inserting import Prefixing, Weighted
from reprogram.core.program import Input
from reprogram.sources.transformers_attention import LayerPrefix

Record = dict[int, tuple[Tensor, Tensor]]
"""By layer: keys and values [1, heads, n, width]."""


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """Keys and values that stand before a batch: those of prefixes, and those a learned prompt left.

    Attributes:
        layers: by number of the layer.
        length: how many tokens they stand for; [B] where rows differ.
        shift: by how much the sequence's own positions move: one number, or [B, 1].
        shared: a learned prompt is in it, which the sequence then has no more.
    """

    layers: dict[int, LayerPrefix]
    length: int
    shift: int | Tensor
    shared: bool = False


def prefixes_of(input: Input, shape: tuple[int, int, int], ref: str) -> Before | None:
    """What the edits at "kv" and "kv.i" put before a batch; None if there are none.

    Args:
        input: I.
        shape: layers, heads and head width of the source.
        ref: the source's name, for errors.

    Raises:
        CapabilityError: a prefix is for another shape.
    """
    layers: dict[int, LayerPrefix] = {}
    length = shift = 0
    for edit in input:
        if not (edit.site.startswith("kv") and isinstance(edit, Prefixing)):
            continue
        given = edit.keys_values()
        numbers = range(shape[0]) if edit.site == "kv" else [int(edit.site.removeprefix("kv."))]
        if tuple(given.shape[1:]) != (len(numbers), 2, *shape[1:]):
            need = f"must be [n, {len(numbers)}, 2, {shape[1]}, {shape[2]}] for {ref}"
            raise CapabilityError(say("prefix", need, tuple(given.shape)))
        weight = edit.log_weight if isinstance(edit, Weighted) else 0.0
        for i, layer in zip(numbers, given.permute(1, 2, 3, 0, 4), strict=True):  # [layers, 2, heads, n, width]
            layers[i] = _weighed(_behind(layers.get(i), layer[0][None], layer[1][None]), len(given), weight)
        length = max(length, len(given))
        moved = len(given) if edit.shift is True else int(edit.shift)
        shift += moved if edit.site == "kv" or not shift else 0
    return Before(layers, length, shift) if layers else None


def behind(prefix: Before | None, made: Record, n: int) -> Before:
    """Prefixes, and behind them what n tokens left in every layer."""
    old = {} if prefix is None else prefix.layers
    layers = {i: _behind(old.get(i), keys, values) for i, (keys, values) in made.items()}
    return Before(
        layers, n + (0 if prefix is None else prefix.length), n + (0 if prefix is None else prefix.shift), True
    )


def stacked(record: Record, layers: int) -> Tensor:
    """[n, layers, 2, heads, width] of what each layer made of one row."""
    both = torch.stack([torch.stack([t[0] for t in record[i]]) for i in range(layers)])
    return both.permute(3, 0, 1, 2, 4).contiguous()


def _behind(old: LayerPrefix | None, keys: Tensor, values: Tensor) -> LayerPrefix:
    if old is None:
        return LayerPrefix(keys, values)
    bias = None if old.bias is None else torch.cat([old.bias, old.bias.new_zeros(keys.shape[2])])
    return LayerPrefix(
        torch.cat([old.keys.to(keys.dtype), keys], 2), torch.cat([old.values.to(values.dtype), values], 2), None, bias
    )


def _weighed(layer: LayerPrefix, n: int, log_weight: float) -> LayerPrefix:
    """The last n keys with something added to their attention scores."""
    if log_weight == 0:
        return layer
    bias = layer.keys.new_zeros(layer.keys.shape[2]) if layer.bias is None else layer.bias.clone()
    bias[-n:] = log_weight
    return LayerPrefix(layer.keys, layer.values, layer.mask, bias)


def gathered(parts: Sequence[Before], rows: Tensor) -> Before:
    """What stands before each row of a batch: row r gets part `rows[r]`, shorter ones padded and masked.

    Args:
        parts: K of them; what is there in one layer of one may be missing in another.
        rows: [B], numbers of parts.
    """
    layers: dict[int, LayerPrefix] = {}
    for i in sorted({i for part in parts for i in part.layers}):
        like = next(part.layers[i].keys for part in parts if i in part.layers)
        sizes = [part.layers[i].keys.shape[2] if i in part.layers else 0 for part in parts]
        n = max(sizes)
        keys, values = (like.new_zeros(len(parts), like.shape[1], n, like.shape[3]) for _ in range(2))
        for k, part in enumerate(parts):
            if i in part.layers:
                keys[k, :, : sizes[k]] = part.layers[i].keys[0]
                values[k, :, : sizes[k]] = part.layers[i].values[0]
        mask = None
        if min(sizes) < n:
            mask = (torch.arange(n) < torch.tensor(sizes)[:, None]).to(like.device)[rows]
        layers[i] = LayerPrefix(keys[rows], values[rows], mask)
    shifts = torch.tensor([int(part.shift) for part in parts], device=rows.device)
    return Before(layers, max(part.length for part in parts), shifts[rows][:, None])
