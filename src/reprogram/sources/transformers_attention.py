"""Keys and values before those of the sequence, in every attention layer of any transformers model.

The library lets an attention function be registered by name. Ours does what its own does, on keys and values that are
longer at the front. So a prefix needs no cache object: nothing is stored, a checkpointed block can run twice, encoders
take prefixes as decoders do, and what a layer made of a soft prompt can be read where it is made.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from reprogram.core.slot import Slot

NAME = "reprogram"


@final
@dataclass(frozen=True, slots=True, eq=False)
class LayerPrefix:
    """What one layer finds before the sequence.

    Attributes:
        keys: [R, heads, n, width], R = 1 for all rows alike, or B.
        values: the same.
        mask: [R, n], False where a shorter prefix is padded; None if there is no such place.
        bias: [n], added to the attention scores of these keys; None for nothing.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None


@dataclass(slots=True, eq=False)
class AttentionCall:
    """What the layers of one forward pass do: read a prefix, or leave a record of their own keys and values."""

    prefix: dict[int, LayerPrefix]
    record: dict[int, tuple[Tensor, Tensor]] | None = None


@final
class _Place:
    """Which source, and which of its layers, an attention module belongs to; set on the module."""

    def __init__(self, slot: Slot[AttentionCall], layer: int) -> None:
        self.slot = slot
        self.layer = layer

    def __deepcopy__(self, _: dict[int, Any]) -> "_Place":
        return self  # a copied module is given a place of its own when a source is made of it


def install(model: Any, blocks: tuple[str, ...], slot: Slot[AttentionCall]) -> bool:
    """Let the attention layers in `blocks` read `slot`. False if the model's attention cannot be replaced."""
    attention = importlib.import_module("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS
    masks = importlib.import_module("transformers.masking_utils").ALL_MASK_ATTENTION_FUNCTIONS
    if model.config._attn_implementation not in ("sdpa", NAME):
        return False
    sdpa = importlib.import_module("transformers.integrations.sdpa_attention").sdpa_attention_forward
    attention.register(NAME, partial(_attend, sdpa))  # found once: a compiler cannot trace an import
    masks.register(NAME, masks["sdpa"])
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        return False
    for layer, path in enumerate(blocks):
        for module in model.get_submodule(path).modules():
            module.reprogram_place = _Place(slot, layer)  # type: ignore[assignment]
    return True


def _attend(
    sdpa: Callable[..., tuple[Tensor, Tensor | None]], module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
    attention_mask: Tensor | None, **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    place: _Place | None = getattr(module, "reprogram_place", None)
    call = None if place is None else place.slot.current()
    if call is not None and place is not None:
        if call.record is not None:
            call.record[place.layer] = (key, value)
        before = call.prefix.get(place.layer)
        if before is not None:
            attention_mask = _extended_mask(module, query, key, attention_mask, before, kwargs)
            key, value = _joined(before.keys, key), _joined(before.values, value)
    return sdpa(module, query, key, value, attention_mask, **kwargs)


def _joined(before: Tensor, own: Tensor) -> Tensor:
    return torch.cat([before.to(own.dtype).expand(len(own), -1, -1, -1), own], dim=2)


def _extended_mask(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, before: LayerPrefix, kwargs: dict[str, Any]
) -> Tensor | None:
    """The mask over prefix and sequence. None still means that everything may be seen."""
    n, rows, columns = before.keys.shape[2], query.shape[2], key.shape[2]
    bias = kwargs.get("position_bias")
    if bias is not None:  # relative positions (T5): a prefix is nowhere, so it has no bias
        kwargs["position_bias"] = torch.cat([bias.new_zeros(*bias.shape[:-1], n), bias], dim=-1)
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if mask is None and (not causal or rows == 1):
        if before.mask is None and before.bias is None:
            return None
        mask = torch.ones(1, 1, rows, columns, dtype=torch.bool, device=query.device)
    elif mask is None:
        mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril()[None, None]
    sees = torch.ones(1, 1, 1, n, dtype=torch.bool, device=query.device) if before.mask is None \
        else before.mask[:, None, None, :]  # fmt: skip
    size = max(len(mask), len(sees))
    if before.bias is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    if mask.dtype != torch.bool:  # additive
        sees = torch.zeros_like(sees, dtype=mask.dtype).masked_fill_(~sees, torch.finfo(mask.dtype).min)
        sees = sees if before.bias is None else sees + before.bias.to(mask.dtype)
    sees = sees.expand(size, mask.shape[1], mask.shape[2], n)
    return torch.cat([sees, mask.expand(size, -1, -1, -1)], dim=-1)
