"""Compact and compiled programs: the same predictions, in a file of their own, on causal models only."""

import pytest
import torch

import reprogram as rp
from reprogram.catalogue import compact_program, compile_program
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.taxonomy import Location
from reprogram.inputs import EncodedPrefix, Prefix, SoftPrompt
from reprogram.outputs import Identity
from reprogram.store import read
from reprogram.testing import tiny_source, tiny_text_source, tiny_text_task

TEXTS = ["the film was good", "bad", "it is a very long and boring story"]


def build(name, source, **settings):
    return rp.build(name, source, tiny_text_task(), tokens=4, seed=5, **settings)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["prompt_tuning", "prefix_tuning", "p_tuning"])
def test_a_compiled_program_predicts_the_same(tmp_path, name, kind):
    source = tiny_text_source(kind)
    program = build(name, source)
    made = compile_program(program)
    assert torch.allclose(made.predict(TEXTS).scores, program.predict(TEXTS).scores, atol=1e-5)
    assert made.taxonomy.location == {Location.HIDDEN}
    assert made.generate(TEXTS, max_new_tokens=4) == program.generate(TEXTS, max_new_tokens=4)
    path = tmp_path / "made.safetensors"
    rp.save(made, path)
    assert read(path).card.form == "compiled"
    again = rp.load(path, source)
    assert torch.equal(again.predict(TEXTS).scores, made.predict(TEXTS).scores)
    assert again.origin.form == "compiled"
    twice = compile_program(again)
    assert torch.allclose(twice.predict(TEXTS).scores, made.predict(TEXTS).scores, atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "bert_encoder"])
@pytest.mark.parametrize("name", ["prefix_tuning", "p_tuning"])
def test_a_compact_program_drops_the_network_only(tmp_path, name, kind):
    source = tiny_text_source(kind)
    program = build(name, source)
    made = compact_program(program)
    assert torch.allclose(made.predict(TEXTS).scores, program.predict(TEXTS).scores, atol=1e-5)
    assert made.count().allocated < program.count().allocated
    path = tmp_path / "made.safetensors"
    rp.save(made, path)
    again = rp.load(path, source)
    assert torch.equal(again.predict(TEXTS).scores, made.predict(TEXTS).scores)
    assert not any(isinstance(e, EncodedPrefix) for e in again.input)


def test_sizes_are_what_the_docs_say():
    source = tiny_text_source("llama")
    program = build("prompt_tuning", source)
    made = compile_program(program)
    assert program.count().allocated == 4 * 32
    assert made.count().allocated == 4 * 2 * source.blocks * source.heads * source.head_width
    assert [type(e) for e in program.input][-1] is SoftPrompt
    assert [type(e) for e in made.input][-1] is Prefix


def test_what_cannot_be_compiled_says_why():
    masked = tiny_text_source("bert")
    with pytest.raises(CapabilityError, match="before all of a causal"):
        compile_program(build("prompt_tuning", masked))
    inside = build("prompt_tuning", tiny_text_source("gpt2"), template="{text} {soft:4} is")
    with pytest.raises(CapabilityError, match="before all of a causal"):
        compile_program(inside)
    with pytest.raises(CapabilityError, match="learned tokens"):
        compile_program(rp.build("no_edit", tiny_text_source("gpt2"), tiny_text_task()))
    with pytest.raises(CapabilityError, match="causal language model"):
        compile_program(rp.Program([], tiny_source(), Identity()))
    source = tiny_text_source("gpt2")
    by_hand = rp.Program([SoftPrompt(torch.ones(2, 32))], source, Identity())
    with pytest.raises(ConfigError, match="method"):
        compile_program(by_hand)
