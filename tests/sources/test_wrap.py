"""`rp.wrap`: one door for any module and for models of transformers."""

import pytest
import torch
from torch import nn

import reprogram as rp
from reprogram.core.errors import SourceError
from reprogram.sources import LanguageSource, ModuleSource
from reprogram.testing import tiny_language_model


def test_the_promise_of_the_design():
    """`rp.build("prompt_tuning", source, None, tokens=...)(input_ids, attention_mask)`."""
    model, tokenizer = tiny_language_model("gpt2")
    source = rp.wrap(model, tokenizer)
    assert isinstance(source, LanguageSource)
    program = rp.build("prompt_tuning", source, None, tokens=7)
    ids = torch.randint(5, 100, (2, 6))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    logits = program(ids, mask)
    assert logits.shape == (2, 6, source.spec.outputs)
    prompt = program.input.edits[-1].tokens()
    whole = torch.cat([prompt[None], source.embedded(ids[1:, 2:])], 1)
    assert torch.allclose(logits[1, 2:], model(inputs_embeds=whole).logits[0, 7:], atol=1e-5)
    assert torch.allclose(program(ids)[0], logits[0], atol=1e-5)


def test_without_a_tokenizer_it_reads_token_ids():
    source = rp.wrap(tiny_language_model("llama")[0])
    assert rp.build("prompt_tuning", source, None, tokens=3)(torch.ones(1, 4, dtype=torch.int64)).shape[:2] == (1, 4)


def test_pictures():
    vit, _ = tiny_language_model("vit")
    source = rp.wrap(vit)
    assert isinstance(source, ModuleSource)
    assert "embedding" in source.sites
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    assert rp.wrap(net, input_shape=(3, 8, 8)).spec.outputs == 5
    with pytest.raises(SourceError, match="input_shape"):
        rp.wrap(net)
