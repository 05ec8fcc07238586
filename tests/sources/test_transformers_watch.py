"""Watching attention: what is kept is what was computed, and nothing about a pass changes."""

import pytest
import torch

from reprogram.core.errors import CapabilityError
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.inputs import Prefix, SoftPrompt
from reprogram.sources.transformers_watch import watching
from reprogram.testing import tiny_text_source

TOKENS = Reading(tokens=True)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_watched_pass_is_the_same_pass(kind):
    source = tiny_text_source(kind)
    ids = torch.tensor([source.encode("the cat was very good")])
    prefix = Prefix(source.keys_values("great film"))
    usual = source(ids, Input(prefix), TOKENS).token_scores
    with watching(source) as seen:
        watched = source(ids, Input(prefix), TOKENS).token_scores
    assert torch.equal(usual, watched)
    assert sorted(seen) == [0, 1]
    with watching(source) as nothing:
        pass
    assert not nothing
    source(ids, Input(), TOKENS)
    assert not nothing  # a pass after the block is nobody's business
    assert seen[0].query.shape == (1, 4, ids.shape[1], 8)
    assert seen[0].key.shape[1] == source.heads
    torch.testing.assert_close(seen[1].before.values[0], prefix.values[:, 1, 1].transpose(0, 1))
    assert not any(t.requires_grad for s in seen.values() for t in (s.query, s.key, s.value, s.output))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_what_is_kept_gives_the_output(kind):
    source = tiny_text_source(kind)
    ids = torch.tensor([source.encode("it is a bright day")])
    with watching(source) as seen:
        source(ids, Input(SoftPrompt(source.embeddings[:3].detach())), TOKENS)
    for layer in seen.values():
        rows, tokens = layer.query.shape[1], layer.query.shape[2]
        for head in range(rows):  # one query at a time, one key at a time
            own = head * layer.key.shape[1] // rows
            keys = torch.cat([layer.before.keys[0, own], layer.key[0, own]])
            values = torch.cat([layer.before.values[0, own], layer.value[0, own]])
            for i in range(tokens):
                visible = len(keys) - tokens + i + 1
                weights = (keys[:visible] @ layer.query[0, head, i] * layer.scaling).softmax(0)
                torch.testing.assert_close(weights @ values[:visible], layer.output[0, i, head], atol=1e-5, rtol=1e-4)


def test_the_usual_attention_is_back_after_an_error():
    source = tiny_text_source("llama")
    before = source.module.config._attn_implementation
    with pytest.raises(ValueError, match="oh"), watching(source):
        raise ValueError("oh")
    assert source.module.config._attn_implementation == before


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_only_causal_models_are_watched(kind):
    with pytest.raises(CapabilityError, match="causal"), watching(tiny_text_source(kind)):
        pass
