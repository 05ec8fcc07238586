"""Scores of choices with everything shared, against one plain pass for each whole sequence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import CapabilityError, DataError
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.core.texts import MASK, Texts
from reprogram.core.writing import ASSISTANT, USER
from reprogram.inputs import SoftPrompt, Template
from reprogram.sources import _scoring
from reprogram.sources._shared import LEAST, plan
from reprogram.testing import tiny_text_source
from reprogram.testing.language import WORDS

DEMOS = " ".join(WORDS[i % 60] for i in range(70))


def plain(source, prompt, choices):
    """Log-probability of each choice: one pass a whole sequence, no sharing."""
    start = source.encode(prompt)
    found = []
    for choice in choices:
        whole = source.encode(prompt + choice)
        assert whole[: len(start)] == start
        ids = torch.tensor([[*source.tokeniser.before, *whole]])
        with torch.no_grad():
            chances = source.module(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
        n = len(whole) - len(start)
        found.append(sum(chances[ids.shape[1] - n - 1 + k, ids[0, ids.shape[1] - n + k]] for k in range(n)))
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("demos", ["", DEMOS + "\n\n"])
def test_equal_to_whole_sequences(kind, demos):
    source = tiny_text_source(kind)
    prompts = [f"{demos}the {word} film is long and {word} so it was" for word in ("good", "bad", "dull", "fine")]
    choices = [[" good", " bad", " very good film", " very bad film", " a"], [" yes", " no"], [" x y"], [" best", " z"]]
    got = source.score(prompts, choices)
    for prompt, several, scores in zip(prompts, choices, got, strict=True):
        assert torch.allclose(scores, plain(source, prompt, several), atol=2e-5)


def test_every_shared_token_runs_once():
    """Linear in distinct tokens: the demonstrations once, each query once, and of labels what the tree has."""
    source = tiny_text_source("llama")
    seen = []
    source.module.get_input_embeddings().register_forward_hook(lambda m, args, out: seen.append(args[0].numel()))
    prompts = [f"{DEMOS}\n{word} is" for word in WORDS[:16]]
    choices = [" good film", " good book", " bad"]
    source.score(prompts, [choices] * 16)
    start = len(source.encode(DEMOS + "\n")) + 1
    rows = [len(source.encode(p + " good")) + 1 - start for p in prompts]  # "film" and "book" predict nothing
    assert sum(seen) <= start + 16 * max(rows) + LEAST
    seen.clear()
    source.score(prompts, [choices] * 16)  # the start is remembered
    assert sum(seen) <= 16 * max(rows)


def test_slices_change_nothing(monkeypatch):
    source = tiny_text_source("gpt2")
    prompts = [f"{DEMOS} {word} is" + " so" * (i % 4) for i, word in enumerate(WORDS[:20])]
    choices = [[" good film", " bad", " one two three four"]] * 20
    whole = source.score(prompts, choices)
    for some, least in ((1, 1 << 30), (1, 1)):
        monkeypatch.setattr(_scoring, "ROW", some)
        again = source.score(prompts, choices, memory=least)
        assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(whole, again, strict=True))


def test_a_learned_prompt_stands_before_all():
    source = tiny_text_source("gpt2")
    edit = SoftPrompt(torch.randn(5, 32) * 0.3)
    rows = Texts({"text": tuple(f"the {w} film was" for w in WORDS[:6])})
    template = Template("{text} so it is", ["text"])
    input = Input(template, edit)
    reading = Reading(choices=(" good", " bad"))
    got = source(rows, input, reading).choices
    ids = tuple(tuple(source.encode(c)) for c in reading.choices)
    with torch.no_grad():
        want = source(rows, input, Reading(continuations=ids)).continuations
    assert torch.allclose(got, want.double(), atol=2e-5)


def test_joint_tokens_where_prompt_and_choice_join():
    """ "wor" + "ld" is one token together: the letters count with every choice alike."""
    source = tiny_text_source("gpt2")
    got = source.score(["the wor"], [["ld", "k"]])[0]
    base = source.encode("the")
    want = []
    for text in ("the world", "the work"):
        ids = torch.tensor([source.encode(text)])
        with torch.no_grad():
            chances = source.module(input_ids=ids).logits[0].double().log_softmax(-1)
        want.append(sum(chances[k - 1, ids[0, k]] for k in range(len(base), ids.shape[1])))
    assert torch.allclose(got, torch.stack(want), atol=2e-5)


def test_an_empty_prompt_follows_the_start_token():
    source = tiny_text_source("gpt2")
    got = source.score([""], [[" good", " bad"]])[0]
    start = source.special.get("bos", source.special["eos"])
    with torch.no_grad():
        chances = source.module(input_ids=torch.tensor([[start]])).logits[0, 0].double().log_softmax(-1)
    assert torch.allclose(got, torch.stack([chances[source.encode(c)[0]] for c in (" good", " bad")]), atol=2e-5)


def test_a_text_that_is_too_long_is_cut_and_demonstrations_stay():
    source = tiny_text_source("gpt2")
    long = " ".join(["film"] * 2000)
    template = Template("good book\n{text}\nit is{mask}", ["text"])
    out = source(Texts({"text": (long, "a film")}), Input(template), Reading(choices=(" good", " very bad")))
    assert out.choices.shape == (2, 2) and bool(out.choices.isfinite().all())
    assert out.choice_tokens.tolist() == [[1, 2], [1, 2]]


def test_refusals():
    source = tiny_text_source("gpt2")
    with pytest.raises(DataError, match="for each of 1 prompts"):
        source.score(["a"], [])
    with pytest.raises(DataError, match="token of its own"):
        source.score(["a"], [[""]])
    with pytest.raises(CapabilityError, match="end in its"):
        source.score([f"it was{MASK} then"], [[" good"]])
    with pytest.raises(CapabilityError, match="chat template"):
        source.score([f"{USER}hello{ASSISTANT}"], [[" good"]])
    with pytest.raises(CapabilityError, match="positions and keys"):
        tiny_text_source("bert").score(["a"], [[" good"]])
    assert source.score([], []) == []


def test_chats_are_rendered_by_the_tokenizer():
    source = tiny_text_source("gpt2")
    source.tokeniser.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant :{% endif %}"
    )
    got = source.score([f"{USER}is it good?{ASSISTANT}"], [[" yes", " no"]])[0]
    want = source.score(["user : is it good?\nassistant :"], [[" yes", " no"]])[0]
    assert torch.allclose(got, want)


def test_encoder_decoders_score_choices_too():
    source = tiny_text_source("t5")
    out = source(Texts({"text": ("a film", "a book")}), Input(), Reading(choices=(" good", " bad film")))
    assert out.choices.shape == (2, 2) and bool((out.choices < 0).all())


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=40), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_plan_reads_every_prompt_once_and_leaves_it_a_token(prompts):
    ids = [tuple(p) for p in prompts]
    seen = []

    def walk(branch, above):
        assert branch.end >= branch.start == above
        for i in branch.rows:
            assert len(ids[i]) > branch.end
            seen.append((i, branch.end))
        for below in branch.branches:
            members = list(walk(below, branch.end))
            assert len({ids[i][: below.end] for i in members}) == 1
        return [i for i, _ in seen if i in _members(branch)]

    walk(plan(ids, [0] * len(ids)), 0)
    assert sorted(i for i, _ in seen) == list(range(len(ids)))


def _members(branch):
    return {*branch.rows, *(i for below in branch.branches for i in _members(below))}


def test_a_plan_of_prompts_that_grow_does_not_grow_deep():
    assert len(_members(plan([tuple(range(n)) for n in range(1, 1200)], [0] * 1199))) == 1199
