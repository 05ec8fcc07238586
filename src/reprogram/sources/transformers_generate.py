"""Writing with a learned prompt, through transformers' own `generate`.

A prompt before the text of a causal model is put into the cache, and the token ids are given that many dummies in
front, which the library takes as computed already. So every decoding strategy works, positions and masks are right on
either side of the padding, and the prompt costs nothing after the first token.
"""

import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, say
from reprogram.core.program import Input
from reprogram.core.texts import Texts, Tokens

if TYPE_CHECKING:
    from reprogram.sources.language import Before, LanguageSource


def generate(
    source: "LanguageSource", x: Texts, input: Input, max_new_tokens: int, options: dict[str, Any]
) -> tuple[str, ...]:
    """What the model writes after each prompt.

    Raises:
        CapabilityError: an edit is at a hidden site, where each new token would meet it anew.
    """
    hidden = [e.site for e in input if not (e.site in ("input", "embedding") or e.site.startswith("kv"))]
    if hidden:
        raise CapabilityError(say("program", "must not edit hidden sites to generate", hidden))
    asked = Texts(x.columns, None, x.spans)
    tokens = source.tokens(asked, input, left=True)
    settings = {"do_sample": False, "max_new_tokens": max_new_tokens, **options}
    settings.setdefault("pad_token_id", source.special.get("pad", source.special.get("eos", 0)))
    with torch.no_grad():
        if source.kind == "causal":
            ids = _causal(source, tokens, input, settings)
        else:
            ids = _seq2seq(source, tokens, input, settings)
    return tuple(source.tokeniser.tokenizer.batch_decode(ids, skip_special_tokens=True))


def _causal(source: "LanguageSource", tokens: Tokens, input: Input, settings: dict[str, Any]) -> Tensor:
    model: Any = source.module
    before = source.before(input)
    variants, sequence = source.assemble(tokens, input, before)
    if variants > 1:
        raise CapabilityError(say("program", "must have one learned prompt to generate, not a mixture", variants))
    if sequence.embeds.shape[1] != tokens.ids.shape[1] or tokens.slots is not None:
        if before is not None:
            raise CapabilityError(
                say("program", "must not have both a prefix and tokens inside the text to generate", 2)
            )
        return model.generate(inputs_embeds=sequence.embeds, attention_mask=sequence.mask.long(), **settings)
    n = 0 if before is None else before.length
    ids, mask = tokens.ids, tokens.mask.long()
    if before is not None:
        settings = {**settings, "past_key_values": _cache(source, before, len(ids))}
        ids = torch.cat([ids.new_full((len(ids), n), settings["pad_token_id"]), ids], 1)
        mask = torch.cat([mask.new_ones(len(ids), n), mask], 1)
    return model.generate(input_ids=ids, attention_mask=mask, **settings)[:, ids.shape[1] :]


def _cache(source: "LanguageSource", before: "Before", rows: int) -> Any:
    if before.shift != before.length or len(before.layers) != source.blocks:
        need = "must stand before all layers and move the text's positions to generate"
        raise CapabilityError(say("prefix", need, f"{len(before.layers)} of {source.blocks} layers"))
    model: Any = source.module
    cache = importlib.import_module("transformers").DynamicCache(config=model.config)
    kind = next(model.parameters()).dtype
    for i in range(source.blocks):
        keys, values = (
            t.to(kind).expand(rows, -1, -1, -1).contiguous() for t in (before.layers[i].keys, before.layers[i].values)
        )
        cache.update(keys, values, i)
    return cache


def _seq2seq(source: "LanguageSource", tokens: Tokens, input: Input, settings: dict[str, Any]) -> Tensor:
    model: Any = source.module
    before = source.before(input)
    if before is not None:
        raise CapabilityError(say("program", "must not have a prefix to generate with an encoder-decoder model", "one"))
    _, sequence = source.assemble(tokens, input, None)
    return model.generate(inputs_embeds=sequence.embeds, attention_mask=sequence.mask.long(), **settings)
