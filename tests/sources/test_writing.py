"""Texts that a causal source writes: against the library's own loop, and what draws depend on."""

import json
import re

import pytest
import torch

from reprogram.core.errors import ConfigError, DataError
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.core.texts import Texts
from reprogram.core.writing import Grammar, Writing
from reprogram.inputs import SoftPrompt
from reprogram.testing import tiny_text_source
from reprogram.testing.language import WORDS

DEMOS = " ".join(WORDS[i % 60] for i in range(40))


def said(source, prompts, writing, *edits):
    return source(Texts({"prompt": tuple(prompts)}), Input(*edits), Reading(writing=writing)).written


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_greedy_is_what_the_library_writes(kind):
    source = tiny_text_source(kind)
    prompts = [f"{DEMOS} the film is", f"{DEMOS} a", "look", f"{DEMOS} a"]
    got = said(source, prompts, Writing(tokens=12))
    for prompt, texts in zip(prompts, got, strict=True):
        ids = torch.tensor([[*source.tokeniser.before, *source.encode(prompt)]])
        with torch.no_grad():
            out = source.module.generate(ids, do_sample=False, max_new_tokens=12,
                                         pad_token_id=0, eos_token_id=sorted(source.ends))  # fmt: skip
        want = source.tokeniser.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert texts[0].text.replace("</s>", "").strip() == want.strip()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_log_probability_is_the_texts_own(kind):
    source = tiny_text_source(kind)
    one = said(source, ["the film is"], Writing(tokens=6))[0][0]
    ids, total = torch.tensor([[*source.tokeniser.before, *source.encode("the film is")]]), 0.0
    for _ in range(one.tokens):
        with torch.no_grad():
            best = source.module(input_ids=ids).logits[0, -1].log_softmax(0).max(0)
        total, ids = total + float(best.values), torch.cat([ids, best.indices[None, None]], 1)
    assert one.logprob == pytest.approx(total, abs=1e-4)


def test_draws_depend_on_seed_prompt_and_sample_alone():
    source = tiny_text_source("llama")
    prompts = [f"{DEMOS} the {w}" for w in WORDS[:9]]
    draw = Writing(tokens=10, temperature=0.8, samples=4, seed=5)
    together = said(source, prompts, draw)
    for prompt, texts in zip(prompts, together, strict=True):
        assert [t.text for t in said(source, [prompt], draw)[0]] == [t.text for t in texts]
    assert together[0][0].text == said(source, prompts[:1], Writing(tokens=10, temperature=0.8, seed=5))[0][0].text
    other = said(source, prompts, Writing(tokens=10, temperature=0.8, samples=4, seed=6))
    assert [t.text for row in other for t in row] != [t.text for row in together for t in row]
    assert len({t.text for t in together[0]}) > 1


def test_draws_have_the_models_frequencies():
    source = tiny_text_source("gpt2")
    draws = said(source, ["the film is"], Writing(tokens=1, temperature=1.0, samples=4000))[0]
    with torch.no_grad():
        chances = source.module(torch.tensor([source.encode("the film is")])).logits[0, -1].softmax(0)
    best = int(chances.argmax())
    text = source.decode([best])
    share = sum(d.text == text for d in draws) / len(draws)
    assert share == pytest.approx(float(chances[best]), abs=0.03)


def test_samples_share_their_prompt():
    source = tiny_text_source("llama")
    seen = []
    source.module.get_input_embeddings().register_forward_hook(lambda m, args, out: seen.append(args[0].numel()))
    said(source, [f"{DEMOS} the film"], Writing(tokens=2, temperature=1.0, samples=20))
    assert sum(seen) <= len(source.encode(f"{DEMOS} the film")) + 1 + 20


def test_stops_lengths_and_the_end_token():
    source = tiny_text_source("gpt2")
    whole = said(source, ["the film is"], Writing(tokens=8))[0][0]
    middle = whole.text[3:6]
    short = said(source, ["the film is"], Writing(tokens=8, stop=(middle,)))[0][0]
    assert short.text == whole.text[: whole.text.index(middle)] and short.finish == "stop"
    assert short.tokens <= whole.tokens and whole.finish in ("length", "stop")
    with pytest.raises(DataError, match="leave room"):
        said(source, ["a"], Writing(tokens=100_000))
    with pytest.raises(ConfigError, match="temperature 0"):
        Writing(samples=2)


def test_a_learned_prompt_is_in_the_cache():
    source = tiny_text_source("gpt2")
    edit = SoftPrompt(torch.randn(4, 32))
    prompts = [f"the {w} film" for w in WORDS[:5]]
    got = [t[0].text for t in said(source, prompts, Writing(tokens=6), edit)]
    want = source.generate(Texts({"prompt": tuple(prompts)}), Input(edit), max_new_tokens=6)
    assert [g.strip() for g in got] == [w.strip() for w in want]
    assert got != [t[0].text for t in said(source, prompts, Writing(tokens=6))]


def test_grammars_hold_whatever_the_model_likes():
    source = tiny_text_source("gpt2")
    pattern = r"the answer is [0-9]{1,3}\."
    texts = said(
        source, ["look"], Writing(tokens=24, temperature=1.0, samples=5, grammar=Grammar(kind="regex", text=pattern))
    )
    assert all(re.fullmatch(pattern, t.text.strip()) for t in texts[0])
    choice = said(source, ["look"], Writing(tokens=9, grammar=Grammar(kind="choice", text="good film\nbad")))[0][0]
    assert choice.text in ("good film", "bad") and choice.finish == "stop"
    schema = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}, "required": ["label"],
              "additionalProperties": False}  # fmt: skip
    made = said(source, ["look"], Writing(tokens=40, grammar=Grammar(kind="json", text=json.dumps(schema))))[0][0]
    assert json.loads(made.text)["label"] in ("good", "bad")
    with pytest.raises(ConfigError, match="can be followed"):
        said(source, ["look"], Writing(tokens=4, grammar=Grammar(kind="regex", text="(")))


def test_encoder_decoders_write_too():
    source = tiny_text_source("t5")
    assert len(said(source, ["a film", "a"], Writing(tokens=4))) == 2
