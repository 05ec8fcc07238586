"""Class texts and weighed templates: against the formulas written out in plain Python, and what must not matter."""

import math
import random

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError, DataError
from reprogram.core.program import Input, Observing
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.inputs import Template
from reprogram.outputs import ensemble
from reprogram.outputs.class_texts import article, named, text_encoder, text_vectors
from reprogram.outputs.ensemble import (
    ClassTexts,
    PromptEnsemble,
    prompt_bias,
    prompt_scores,
    prompt_weights,
    standing_out,
)
from reprogram.testing import tiny_text_source

few = settings(deadline=None, max_examples=25)
DEBIAS = ("both", "test", "pretrain", "pretrain_all", "none")


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def features(x):
    return SourceOutput(features=x)


# -- in plain Python ---------------------------------------------------------------------------------------------------


def unit(v):
    length = math.sqrt(sum(x * x for x in v))
    return [x / length for x in v]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def slow_weights(inputs, texts, reference, debias, weighing, scale):
    """The paper's formulas, one number at a time. texts [T][P][d]."""
    prompts, targets = range(len(texts[0])), range(len(texts))

    def logit(x, p, c):
        return scale * dot(unit(x), unit(texts[c][p]))

    def bias(p, c):
        test = mean(logit(x, p, c) for x in inputs)
        pre = mean(logit(x, p, c) for x in reference)
        every = mean(logit(x, p, k) for x in reference for k in targets)
        return {"both": (test + pre) / 2, "test": test, "pretrain": pre, "pretrain_all": every, "none": 0.0}[debias]

    scores = [mean(max(logit(x, p, c) - bias(p, c) for c in targets) for x in inputs) for p in prompts]
    scores = [0.0 if abs(s) < 1e-5 * scale else s for s in scores]
    if weighing == "softmax":
        raw = [math.exp(s) for s in scores]
    else:
        raw = [max(s, 0.0) if weighing == "raw" else 1.0 for s in scores]
    raw = raw if sum(raw) > 0 else [1.0] * len(raw)
    return [w / sum(raw) for w in raw]


def slow_pooled(x, texts, owner, targets, pooling):
    score = []
    for t in range(targets):
        mine = [unit(v) for v, o in zip(texts, owner, strict=True) if o == t]
        middle = [mean(column) for column in zip(*mine, strict=True)]
        each = [dot(unit(x), v) for v in mine]
        score.append({"mean": dot(unit(x), unit(middle)), "logits": mean(each), "max": max(each)}[pooling])
    return score


# -- class texts -------------------------------------------------------------------------------------------------------


@few
@given(st.lists(st.integers(0, 2), max_size=6), st.sampled_from(["mean", "logits", "max"]), st.integers(0, 99))
def test_class_texts_are_the_formula(more, pooling, seed):
    owner = [0, 1, 2, *more]
    texts, x = vectors(len(owner), 4, seed=seed), vectors(5, 4, seed=seed + 1)
    output = ClassTexts(texts, torch.tensor(owner), 3, pooling=pooling, scale=2.0)
    wanted = [[2 * s for s in slow_pooled(row, texts.tolist(), owner, 3, pooling)] for row in x.tolist()]
    torch.testing.assert_close(output(features(x)), torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_class_texts_keep_their_table_only():
    texts, owner = vectors(5, 4), torch.tensor([0, 0, 0, 1, 1])
    output = ClassTexts(texts, owner, 2)
    assert {name: tuple(t.shape) for name, t in output.state_dict().items()} == {"table": (2, 4)}
    assert (output.alignment, ClassTexts(texts, owner, 2, pooling="max").alignment) == (
        Alignment.LINEAR, Alignment.RULE_BASED,
    )  # fmt: skip
    other = ClassTexts(vectors(5, 4, seed=9), owner, 2)
    other.load_state_dict(output.state_dict())
    x = features(vectors(3, 4, seed=2))
    assert torch.equal(other(x), output(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(output(x), other(x))


@pytest.mark.parametrize(
    "texts, owner, targets, options, kind, message",
    [
        (torch.ones(2, 3), [0, 0], 2, {}, ConfigError, "owner"),
        (torch.ones(2, 3), [0, 2], 2, {}, ConfigError, "owner"),
        (torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), [0, 0, 1], 2, {}, DataError, "direction"),
        (torch.tensor([[1.0, torch.nan], [1.0, 0.0]]), [0, 1], 2, {}, DataError, "vectors"),
        (torch.ones(2, 3), [0, 1], 2, {"scale": 0.0}, ConfigError, "scale"),
    ],
)
def test_class_texts_refuse(texts, owner, targets, options, kind, message):
    with pytest.raises(kind, match=message):
        ClassTexts(texts, torch.tensor(owner), targets, **options)


# -- weighed templates -------------------------------------------------------------------------------------------------


@few
@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.sampled_from(DEBIAS),
    st.sampled_from(["softmax", "raw", "equal"]), st.integers(0, 99),
)  # fmt: skip
@example(2, 3, 1, "test", "raw", 1)  # all scores are 0 but for rounding
def test_weights_are_the_formula(n, prompts, targets, debias, weighing, seed):
    texts, x, reference = vectors(targets, prompts, 5, seed=seed), vectors(n, 5, seed=seed + 1), vectors(3, 5, seed=7)
    output = PromptEnsemble(texts, reference, debias=debias, weighing=weighing, scale=3.0)
    for part in x.split(4):
        output.observe(features(part), torch.zeros(len(part), dtype=torch.int64))
    output.refresh()
    wanted = slow_weights(x.tolist(), texts.tolist(), reference.tolist(), debias, weighing, 3.0)
    torch.testing.assert_close(output.weights, torch.tensor(wanted), rtol=1e-3, atol=1e-4)
    logits = [
        [sum(w * 3 * dot(unit(row), unit(v)) for w, v in zip(wanted, c, strict=True)) for c in texts.tolist()]
        for row in x.tolist()
    ]
    torch.testing.assert_close(output(features(x)), torch.tensor(logits), rtol=1e-3, atol=1e-3)


def fitted(texts, x, reference=None, labels=None, **options):
    output = PromptEnsemble(texts, reference, **options)
    output.observe(features(x), torch.zeros(len(x), dtype=torch.int64) if labels is None else labels)
    output.refresh()
    return output


def test_identical_templates_weigh_the_same():
    texts = vectors(3, 1, 6).expand(3, 7, 6)
    for weighing in ("softmax", "raw"):
        output = fitted(texts, vectors(40, 6, seed=1), vectors(5, 6, seed=2), weighing=weighing)
        torch.testing.assert_close(output.weights, torch.full((7,), 1 / 7))
        cut = fitted(texts, vectors(40, 6, seed=1), vectors(5, 6, seed=2), weighing=weighing, threshold=0.5)
        torch.testing.assert_close(cut.weights, torch.full((7,), 1 / 7))  # a spread of rounding picks no favourites


@pytest.mark.parametrize("debias", ["both", "test", "pretrain"])
def test_what_a_template_scores_anyway_does_not_matter(debias):
    logits, pre, shift = vectors(20, 4, 3), vectors(4, 3, seed=1), vectors(4, 3, seed=2) * 5

    def scores(logits, pre):
        return prompt_scores(logits, prompt_bias(logits.mean(0), pre, debias))

    torch.testing.assert_close(scores(logits + shift, pre + shift), scores(logits, pre), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(scores(logits + shift, pre), scores(logits, pre)) or debias == "test"


def test_labels_are_not_looked_at():
    texts, x = vectors(3, 5, 6), vectors(30, 6, seed=1)
    one = fitted(texts, x, debias="test", labels=torch.zeros(30, dtype=torch.int64))
    other = fitted(texts, x, debias="test", labels=torch.arange(30) % 3)
    assert torch.equal(one.weights, other.weights)


def test_chunks_change_nothing(monkeypatch):
    texts, x = vectors(3, 5, 6), vectors(30, 6, seed=1)
    whole = fitted(texts, x, debias="test")
    monkeypatch.setattr(ensemble, "_CELLS", 1)
    torch.testing.assert_close(fitted(texts, x, debias="test").weights, whole.weights)


def test_a_surer_template_weighs_more():
    """One tells the classes apart, one says the same of all."""
    texts = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    x = torch.tensor([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1]]).repeat(5, 1)
    output = fitted(texts, x, debias="test")
    assert output.weights[0] > 0.9
    assert fitted(texts, x, debias="test", weighing="equal", threshold=0.5).weights.tolist() == [1.0, 0.0]


def test_before_and_without_observation_weights_are_equal():
    output = PromptEnsemble(vectors(2, 4, 3), debias="test")
    assert isinstance(output, Observing)
    output.refresh()
    assert output.weights.tolist() == [0.25] * 4


def test_the_state_is_the_weights():
    texts, x = vectors(3, 5, 6), vectors(9, 6, seed=1)
    output = fitted(texts, x, debias="test")
    assert {name: tuple(t.shape) for name, t in output.state_dict().items()} == {"weights": (5,)}
    other = PromptEnsemble(texts, debias="test")
    other.load_state_dict(output.state_dict())
    assert torch.equal(other(features(x)), output(features(x)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(other(features(x)), output(features(x)))


def test_statistics_resume_exactly():
    texts, x = vectors(3, 5, 6), vectors(20, 6, seed=1)
    labels = torch.zeros(10, dtype=torch.int64)
    whole, half = PromptEnsemble(texts, debias="test", capacity=8), PromptEnsemble(texts, debias="test", capacity=8)
    for output in (whole, half):
        output.observe(features(x[:10]), labels)
    again = PromptEnsemble(texts, debias="test", capacity=8)
    again.load_statistics(half.statistics())
    for output in (whole, again):
        output.observe(features(x[10:]), labels)
        output.refresh()
    assert torch.equal(whole.weights, again.weights)
    before = again.weights.clone()
    again.forget()
    again.refresh()
    assert torch.equal(again.weights, before) and int(again.seen) == 0
    with pytest.raises(ArtifactError, match="statistics"):
        PromptEnsemble(texts, debias="test", capacity=9).load_statistics(half.statistics())


def test_what_is_kept_is_a_fair_sample():
    """Of 40 inputs in batches of any size, those of the first half stay as often as the others."""
    draw, early = random.Random(0), 0
    for _ in range(200):
        output = PromptEnsemble(torch.ones(1, 1, 40), debias="none", capacity=10)
        left = torch.eye(40)
        while len(left):
            size = draw.randint(1, 9)
            output.observe(features(left[:size]), torch.zeros(len(left[:size]), dtype=torch.int64))
            left = left[size:]
        assert int(output.seen) == 40
        assert output.found.sum(1).tolist() == [1.0] * 10 and output.found.sum(0).max() == 1  # ten different rows
        early += int(output.found.sum(0)[:20].sum())
    assert 0.4 < early / 2000 < 0.6


def test_standing_out_has_a_rule_for_every_case():
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0])
    assert standing_out(scores, 0.5).tolist() == [False, False, False, True, True]
    assert standing_out(scores, 0.0).tolist() == [False, False, False, True, True]
    assert standing_out(scores, 99.0).tolist() == [False, False, False, False, True]  # none stands out: the best
    assert standing_out(torch.full((4,), 2.5), 2.0).tolist() == [True] * 4
    assert standing_out(torch.tensor([1.0, 1.0, 1.0, 7.0, 0.0]), 0.5).tolist() == [True, True, True, True, False]
    assert standing_out(torch.tensor([3.0]), 0.5).tolist() == [True]


def test_weights_are_made_before_the_cut():
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0])
    kept = prompt_weights(scores, "raw", 0.5)
    torch.testing.assert_close(kept, torch.tensor([0.0, 0.0, 0.0, 3 / 13, 10 / 13]))
    assert prompt_weights(-scores - 1, "raw").tolist() == pytest.approx([0.2] * 5)


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({}, ConfigError, "reference"),
        ({"debias": "pretrain"}, ConfigError, "reference"),
        ({"debias": "test", "scale": -1.0}, ConfigError, "scale"),
        ({"debias": "test", "capacity": 0}, ConfigError, "must be 1 or more"),
        ({"debias": "test", "threshold": math.nan}, ConfigError, "threshold"),
        ({"reference": torch.full((2, 3), torch.inf)}, DataError, "vectors"),
    ],
)
def test_ensembles_refuse(options, kind, message):
    with pytest.raises(kind, match=message):
        PromptEnsemble(torch.ones(2, 2, 3), **options)


def test_features_that_are_no_numbers_are_refused():
    output = PromptEnsemble(torch.ones(2, 2, 3), debias="test")
    with pytest.raises(DataError, match="features"):
        output.observe(features(torch.full((1, 3), torch.nan)), torch.tensor([0]))
    with pytest.raises(ConfigError, match="features"):
        output(features(torch.ones(1, 4)))


# -- class names in sentences, sentences as vectors --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("owl", "an"), ("Apple", "an"), ("cat", "a"), ("honest mistake", "an"), ("house", "a"), ("unit", "a"),
        ("unusual bird", "an"), ("usual suspect", "a"), ("usher", "an"), ("European lynx", "a"), ("ukulele", "a"),
        ("one-eyed cat", "a"), ("onion", "an"), ("X-ray", "an"), ("SUV", "an"), ("TV", "a"), ("11th hour", "an"),
        ("1100 m run", "a"), ("800 m run", "an"), ("  egg", "an"), ("urn", "an"), ("utopia", "a"), ("IKEA shelf", "an"),
    ],
)  # fmt: skip
def test_article(name, wanted):
    assert article(name) == wanted


def test_named():
    assert named("{class}, {a class}", "iced_tea") == "iced tea, an iced tea"
    with pytest.raises(ConfigError, match="layout"):
        named("nothing", "x")


def test_text_vectors_are_those_of_single_texts_in_order():
    source = tiny_text_source("bert_encoder")
    texts = ["good", "a very long and boring story about a film", "bad book", "good"] * 12
    found = text_vectors(source, texts)
    alone = torch.cat([text_vectors(source, [text]) for text in texts[:4]])
    torch.testing.assert_close(found[:4], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[44:], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(48))
    assert not found.requires_grad
    framed = text_vectors(source, ["good"], Input(Template("the {text} film", ["text"])))
    torch.testing.assert_close(framed, text_vectors(source, ["the good film"]))
    with pytest.raises(DataError, match="texts"):
        text_vectors(source, [])


def test_only_encoders_read_class_texts():
    assert text_encoder(tiny_text_source("bert_encoder")).kind == "encoder"
    with pytest.raises(CapabilityError, match="must be a text encoder"):
        text_encoder(tiny_text_source("gpt2"))
