"""Methods of prompt learning: on every kind of model, for classes, for texts to be written, and without a task."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import reprogram as rp
from reprogram.catalogue import find, make_config, methods
from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.source import Capability
from reprogram.core.taxonomy import Alignment
from reprogram.fit import FitOptions
from reprogram.inputs import EncodedPrefix, Prefix, PromptTokens, ReplacedTokens, SoftPrompt, prompt_of, transfer
from reprogram.methods.ppt import CLASSES, next_sentences
from reprogram.outputs import ContinuationVerbalizer, Linear, TokenScores, Verbalizer
from reprogram.store import read
from reprogram.testing import tiny_text_source
from tests.methods.text_tasks import opinions, orders, pairs, vision_transformer

TEXT = [m.name for m in methods() if m.needs >= {Capability.TOKEN_INSERTION} and Capability.CLASS_TEXTS not in m.needs]
WRITING = ["prompt_tuning", "prefix_tuning", "p_tuning", "multitask_prompt_tuning", "spot", "ppt"]
CHOOSING = sorted(set(TEXT) - set(WRITING))
KINDS = ["gpt2", "llama", "bert", "roberta", "t5", "bert_encoder", "bert_classifier"]
NO_WORDS = {"bert_encoder", "bert_classifier"}
SMALL = {"recipe.epochs": 15, "recipe.batch_size": 8, "recipe.warmup_steps": 0}
silent = FitOptions(progress=False)


@pytest.fixture(scope="module")
def sources():
    made = {}

    def source(kind):
        if kind not in made:
            made[kind] = tiny_text_source(kind)
        return made[kind]

    return source


def test_the_family_is_complete():
    wanted = {
        "dart", "mixture_of_soft_prompts", "multitask_prompt_tuning", "p_tuning", "p_tuning_v2", "ppt", "prefix_tuning",
        "prompt_tuning", "ptr", "spot", "warp",
    }  # fmt: skip
    assert set(TEXT) >= wanted
    assert {m.name for m in methods()} >= {"vpt_shallow", "vpt_deep"}


def cannot(name: str, kind: str) -> bool:
    """Combinations that must be refused when the program is built."""
    return (name == "ptr" and kind not in ("bert", "roberta")) or (name in ("warp", "dart") and kind in NO_WORDS)


@pytest.mark.parametrize("task", [opinions, pairs])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEXT)
def test_every_kind_of_model_gives_scores_and_gradients_or_refuses(sources, name, kind, task):
    if cannot(name, kind):
        with pytest.raises(CapabilityError):
            rp.build(name, sources(kind), task(), tokens=5)
        return
    program = rp.build(name, sources(kind), task(), tokens=5).train()
    with torch.no_grad():  # a head that starts at zero hides the prompt from the gradient
        for p in program.output.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    index = torch.arange(4)
    scores = program(task().train.fetch(index))
    assert scores.shape == (4, len(task().spec.classes))
    F.cross_entropy(scores, task().train.labels[index]).backward()
    grads = {n: p.grad for n, p in program.named_parameters() if n.startswith("input.")}
    assert grads and all(g is not None and bool(g.isfinite().all()) and bool(g.any()) for g in grads.values())


@pytest.mark.parametrize("name", TEXT)
def test_every_method_learns(sources, name):
    program = rp.build(name, sources("bert" if name == "ptr" else "gpt2"), opinions(), tokens=8, **SMALL)
    history = rp.fit(program, opinions(), options=silent).history
    assert history[-1]["loss"] < 0.85 * history[0]["loss"]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("name", WRITING)
def test_generation_is_scored_at_the_targets_tokens(sources, name, kind):
    source = sources(kind)
    program = rp.build(name, source, orders(), tokens=5).train()
    assert isinstance(program.output, TokenScores)
    assert program.taxonomy.alignment == {Alignment.IDENTITY}
    x = orders().train.fetch(torch.arange(3))
    said = source(x, program.input, program.output.reading)
    scores = program.output(said)
    assert scores.shape == (len(said.targets), source.spec.outputs)
    F.cross_entropy(scores, said.targets).backward()
    assert all(bool(p.grad.any()) for p in program.parameters())


@pytest.mark.parametrize("name", WRITING)
def test_without_a_task_scores_are_at_the_input_s_own_positions(sources, name):
    source = sources("gpt2")
    ids = torch.randint(5, 90, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, :3] = 0
    program = rp.build(name, source, None, tokens=5)
    scores = program(ids, mask)
    assert scores.shape == (2, 7, source.spec.outputs)
    alone = program(ids[1:, 3:], mask[1:, 3:])
    torch.testing.assert_close(scores[1:, 3:], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(scores[:1], rp.build(name, source, None, tokens=5, seed=7, start="random")(ids, mask)[:1])


@pytest.mark.parametrize("task", [None, orders], ids=["none", "generation"])
@pytest.mark.parametrize("name", CHOOSING)
def test_methods_that_choose_need_classes(sources, name, task):
    with pytest.raises(ConfigError, match=f"`task` must have classes for {name}"):
        rp.build(name, sources("bert"), task and task(), tokens=5)


# Templates, words, starts


def test_a_template_says_where_soft_tokens_go(sources):
    program = rp.build("prompt_tuning", sources("gpt2"), opinions(), tokens=9, template="so{soft:2} {text}{soft:3} is")
    edit = prompt_of(program)
    assert (edit.length, edit.where) == (5, "slots")
    x = opinions().test.fetch(torch.arange(2))
    before = program(x)
    with torch.no_grad():
        edit.values[4] += torch.linspace(-2, 2, 32)
    assert not torch.allclose(program(x), before)


def test_class_tokens_stay_first(sources):
    wanted = {"gpt2": "start", "llama": "start", "t5": "start", "bert": "after_first", "bert_encoder": "after_first"}
    for kind, where in wanted.items():
        assert prompt_of(rp.build("prompt_tuning", sources(kind), opinions(), tokens=3)).where == where


@pytest.mark.parametrize(
    "words",
    [
        {"bad": ("awful", "poor"), "funny": "best", "good": ["great"]},
        [["awful", "poor"], "best", "great"],
        (("awful", "poor"), "best", ("great",)),
    ],
)
def test_label_words_are_settings_that_come_back_from_a_file(sources, words, tmp_path):
    source = sources("gpt2")
    program = rp.build("prompt_tuning", source, opinions(), tokens=3, words=words)
    assert isinstance(program.output, Verbalizer)
    assert program.output.present.sum(1).tolist() == [2, 1, 1]
    path = tmp_path / "program.safetensors"
    rp.save(program, path)
    again = rp.load(path, source)
    x = opinions().test.fetch(torch.arange(3))
    assert torch.equal(again(x), program(x))
    assert read(path).card.method == "prompt_tuning"


def test_words_of_several_tokens_are_continuations(sources):
    program = rp.build("prompt_tuning", sources("gpt2"), opinions(), tokens=3, words=("zigzag", "best", "good"))
    assert isinstance(program.output, ContinuationVerbalizer)
    assert program(opinions().test.fetch(torch.arange(3))).shape == (3, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"words": {"bad": "awful"}}, r"`words\['funny'\]` must be a word or several"),
        ({"words": {"bda": "awful"}}, "Did you mean 'bad'"),
        ({"words": ("bad", "bad", "good")}, "cannot tell these apart"),
        ({"template": "{txt} is"}, r"Did you mean \{text\}"),
        ({"template": "{text"}, "brace without its other"),
        ({"tokens": 0}, "`tokens` must be 1 or more"),
        ({"start": "zeros"}, "start"),
        ({"start": "text", "text": ""}, "at least one token to start from"),
    ],
)
def test_settings_that_do_not_fit_are_named(sources, settings, said):
    with pytest.raises(ConfigError, match=said):
        rp.build("prompt_tuning", sources("gpt2"), opinions(), **settings)


@pytest.mark.parametrize("name", ["prefix_tuning", "p_tuning_v2"])
def test_places_for_soft_tokens_that_nothing_fills(sources, name):
    with pytest.raises(ConfigError, match=r"must have no \{soft:N\}"):
        rp.build(name, sources("gpt2"), opinions(), template="{soft:3}{text}")


def test_a_masked_model_s_template_has_a_place_for_the_answer(sources):
    with pytest.raises(ConfigError, match=r"must have a \{mask\}"):
        rp.build("prompt_tuning", sources("bert"), opinions(), template="{text}")


def test_words_that_nothing_reads(sources):
    with pytest.raises(ConfigError, match="`words` must be for a source that scores a vocabulary"):
        rp.build("prompt_tuning", sources("bert_encoder"), opinions(), words=("bad", "best", "good"))


def test_texts_of_a_program_with_a_template_are_not_token_ids(sources):
    program = rp.build("prompt_tuning", sources("gpt2"), opinions(), tokens=3)
    with pytest.raises(DataError):
        program(torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3))


# One method each


def test_prefixes_with_and_without_the_network_start_alike(sources):
    source, x = sources("gpt2"), opinions().test.fetch(torch.arange(4))
    flat = rp.build("prefix_tuning", source, opinions(), tokens=4, hidden=None)
    made = rp.build("prefix_tuning", source, opinions(), tokens=4)
    kinds = [type(program.input.edits[1]) for program in (flat, made)]
    assert kinds == [Prefix, EncodedPrefix]
    torch.testing.assert_close(made(x), flat(x), atol=1e-3, rtol=1e-3)
    assert flat.count().allocated == 4 * 2 * 2 * 32  # n * L * 2 * d


def test_a_multitask_prompt_starts_as_its_shared_prompt(sources):
    source, x = sources("gpt2"), opinions().test.fetch(torch.arange(4))
    soft = rp.build("prompt_tuning", source, opinions(), tokens=4, start="text")
    multi = rp.build("multitask_prompt_tuning", source, opinions(), tokens=4, start="text", rank=2)
    torch.testing.assert_close(multi(x), soft(x))
    assert multi.count().allocated == 4 * 32 + 2 * (4 + 32)
    assert rp.build("multitask_prompt_tuning", source, opinions(), learn_shared=False).count().allocated == 100 + 32


def test_a_mixture_of_one_is_prompt_tuning(sources):
    source, x = sources("gpt2"), opinions().test.fetch(torch.arange(4))
    one = rp.build("mixture_of_soft_prompts", source, opinions(), prompts=1, tokens=4)
    soft = rp.build("prompt_tuning", source, opinions(), tokens=4, start="vocabulary")
    torch.testing.assert_close(one(x).exp(), soft(x).softmax(1))
    several = rp.build("mixture_of_soft_prompts", source, opinions(), prompts=3, tokens=4)
    parts = []
    for k in range(3):
        with torch.no_grad():
            prompt_of(soft).values.copy_(several.input.edits[1].values[k])
        parts.append(soft(x).softmax(1))
    torch.testing.assert_close(several(x).exp(), torch.stack(parts).mean(0), atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="`prompts` must be 1 or more"):
        rp.build("mixture_of_soft_prompts", source, opinions(), prompts=0)


def test_ptr_reads_several_places(sources):
    source = sources("bert")
    words = {"bad": ("bad", "book"), "funny": ("bad", "film"), "good": ("good", "film")}
    program = rp.build("ptr", source, opinions(), words=words)
    assert program.output.places == 2
    assert prompt_of(program).length == 6
    assert program(opinions().test.fetch(torch.arange(3))).exp().sum(1).max() <= 1.0001
    with pytest.raises(ConfigError, match=r"must have 2 times \{mask\}, one a word, got 1"):
        rp.build("ptr", source, opinions(), words=words, template="{text}{mask}")
    with pytest.raises(ConfigError, match="must be one known token each, unlike 'zigzag'"):
        rp.build("ptr", source, opinions(), words=("zigzag", "good", "bad"))
    with pytest.raises(ConfigError, match="as many for every class"):
        rp.build("ptr", source, opinions(), words=(("a", "b"), "good", "bad"))
    with pytest.raises(CapabilityError, match="masked language model"):
        rp.build("ptr", sources("gpt2"), opinions())


def test_warp_weaves_its_tokens_around_text_and_answer(sources):
    masked = rp.build("warp", sources("bert"), opinions(), tokens=8)
    assert masked.input.edits[0].layout == "{soft:3}{text}{soft:3}{mask}{soft:2}"
    assert masked.count().allocated == 8 * 32 + 3 * 32 + 3
    causal = rp.build("warp", sources("gpt2"), pairs(), tokens=8)
    assert causal.input.edits[0].layout == "{soft:3}{text}{soft:3}{text_pair}{soft:2}"


def test_p_tuning_v2_has_a_prefix_in_every_layer_and_a_linear_head(sources):
    program = rp.build("p_tuning_v2", sources("bert_encoder"), opinions(), tokens=4)
    assert isinstance(program.output, Linear)
    assert program.count().allocated == 2 * 2 * 4 * 32 + 3 * 32 + 3  # 2 L n d + d C + C


def test_pretraining_on_next_sentences_transfers(sources):
    source = sources("gpt2")
    texts = [f"the film was {w}. it was {w} and new. so {w}." for w in ("good", "bad", "long", "short", "big", "small")]
    columns, labels, classes = next_sentences(texts, per_class=8)
    pretraining = rp.Task.from_texts(columns, labels, classes=classes, name="next", on_error="skip")
    first = rp.build("ppt", source, pretraining, tokens=4, **{**SMALL, "recipe.epochs": 2})
    rp.fit(first, pretraining, options=silent)
    program = rp.build("ppt", source, opinions(), tokens=4)
    transfer(program, first)
    assert torch.equal(prompt_of(program).values, prompt_of(first).values)


sentences = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=6, unique=True), min_size=2, max_size=5)


@settings(deadline=None, max_examples=50)
@given(sentences, st.integers(0, 9))
def test_next_sentences_are_what_their_labels_say(texts, seed):
    documents = [" ".join(f"{i}{letter}." for letter in text) for i, text in enumerate(texts)]
    columns, labels, classes = next_sentences(documents, per_class=6, seed=seed)
    assert classes == CLASSES
    assert labels == [0, 1, 2] * 6
    for one, two, label in zip(columns["sentence1"], columns["sentence2"], labels, strict=True):
        (a, x), (b, y) = (re.fullmatch(r"(\d)([a-h])\.", s).groups() for s in (one, two))
        gap = texts[int(b)].index(y) - texts[int(a)].index(x) if a == b else None
        assert {0: a != b, 1: gap is not None and abs(gap) > 1, 2: gap == 1}[label]
    assert next_sentences(documents, per_class=6, seed=seed)[0] == columns


@pytest.mark.parametrize("texts", [[], ["One. Two. Three."], ["One.", "Two."], ["", " "]])
def test_texts_without_enough_sentences(texts):
    with pytest.raises(DataError, match="two at least, one of them with three sentences"):
        next_sentences(texts)


# Vision transformers


def test_vpt_puts_its_tokens_at_every_block():
    from reprogram.testing import tiny_task

    source = vision_transformer()
    shallow = rp.build("vpt_shallow", source, tiny_task(), tokens=4)
    deep = rp.build("vpt_deep", source, tiny_task(), tokens=4)
    assert [type(e) for e in deep.input][1:] == [PromptTokens, ReplacedTokens]
    head = 32 * 3 + 3
    assert (shallow.count().allocated, deep.count().allocated) == (4 * 32 + head, 2 * 4 * 32 + head)
    bound = (6 / (3 * 4 * 4 + 32)) ** 0.5
    assert 0.8 * bound < float(deep.input.edits[1].values.detach().abs().max()) <= bound


def test_vpt_deep_forgets_what_became_of_the_first_tokens():
    """With the second block's tokens replaced, the first block's still act through the patches alone."""
    from reprogram.testing import tiny_task

    program = rp.build("vpt_deep", vision_transformer(), tiny_task(), tokens=4)
    with torch.no_grad():
        program.output.weight.normal_(generator=torch.Generator().manual_seed(0))
    x = tiny_task().test.fetch(torch.arange(4)).float() / 255
    program(x).sum().backward()
    assert all(bool(e.values.grad.any()) for e in list(program.input)[1:])


@pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])
def test_vpt_needs_a_vision_transformer(name):
    from reprogram.testing import tiny_source, tiny_task

    with pytest.raises(CapabilityError, match="embedding"):
        rp.build(name, tiny_source(resizable=False), tiny_task(), tokens=4)


def test_soft_prompts_are_the_only_ones_that_transfer(sources):
    program = rp.build("p_tuning", sources("gpt2"), opinions(), tokens=4)
    with pytest.raises(ConfigError, match="one SoftPrompt"):
        prompt_of(program)
    assert isinstance(program.input.edits[1].compact(), SoftPrompt)


def test_every_preset_is_within_its_method():
    for name in (*TEXT, "vpt_shallow", "vpt_deep"):
        config = make_config(find(name), preset="cpu")
        assert config.recipe.epochs <= 10
        assert config.recipe.refresh == "once"  # a linear head is standardised before it learns, not while
