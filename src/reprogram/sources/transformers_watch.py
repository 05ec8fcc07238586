"""What attention does, layer by layer: queries, keys, values and outputs of a source's passes, for diagnosis.

Nothing about a pass changes. While a source is watched, its attention goes through a function of another name that
calls the one it always goes through and keeps what went in and came out.
"""

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, say
from reprogram.sources.language import LanguageSource
from reprogram.sources.transformers_attention import NAME, LayerPrefix

_WATCHED = f"{NAME}_watched"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """One layer's attention in one pass of a causal model without padding.

    Attributes:
        query: [B, heads, S, width], as compared with keys (after rotary positions, if any).
        key: [B, key heads, S, width]; key heads may be fewer, each then serves heads / key heads neighbours.
        value: the same shape.
        before: keys and values before the sequence's own, if any.
        scaling: of the products of queries and keys.
        output: [B, S, heads, width], before the heads are mixed.
    """

    query: Float[Tensor, " batch heads tokens width"]
    key: Float[Tensor, " batch keyheads tokens width"]
    value: Float[Tensor, " batch keyheads tokens width"]
    before: LayerPrefix | None
    scaling: float
    output: Float[Tensor, " batch tokens heads width"]


@contextmanager
def watching(source: LanguageSource) -> Generator[dict[int, Attended]]:
    """Keep what every attention layer does in the passes inside the block; a later pass replaces an earlier one.

    Args:
        source: a causal language model whose attention takes prefixes. Texts in a batch must be of one length.

    Yields:
        By number of the layer. Tensors are detached.

    Raises:
        CapabilityError: the model is not causal, or its attention cannot be replaced.
    """
    if source.kind != "causal" or not source.prefixes:
        need = "must be a causal language model whose attention takes prefixes"
        raise CapabilityError(say("source", need, f"{source.spec.ref} ({source.kind})"))
    model: Any = source.module
    attention = importlib.import_module("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS
    masks = importlib.import_module("transformers.masking_utils").ALL_MASK_ATTENTION_FUNCTIONS
    seen: dict[int, Attended] = {}
    usual = attention[NAME]

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        found = usual(module, query, key, value, attention_mask, **kwargs)
        place: Any = getattr(module, "reprogram_place", None)
        call = None if place is None else place.slot.current()
        if call is not None and place is not None:
            scaling = kwargs.get("scaling")
            seen[place.layer] = Attended(
                query.detach(), key.detach(), value.detach(), call.prefix.get(place.layer),
                query.shape[-1] ** -0.5 if scaling is None else float(scaling), found[0].detach(),
            )  # fmt: skip
        return found

    attention.register(_WATCHED, attend)
    masks.register(_WATCHED, masks[NAME])
    model.set_attn_implementation(_WATCHED)
    try:
        yield seen
    finally:
        model.set_attn_implementation(NAME)
