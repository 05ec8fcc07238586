"""Verbalizers: against plain loops, with the words a tokenizer really makes, and mistakes named."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.task import Sample, TaskSpec
from reprogram.core.taxonomy import Alignment
from reprogram.outputs import (
    ContinuationVerbalizer,
    Identity,
    Linear,
    MixtureOfAnswers,
    RuleVerbalizer,
    SoftVerbalizer,
    TokenScores,
    Verbalizer,
    answers,
    soft_verbalizer,
    tokenised_words,
    verbalizer,
    words_of,
)
from reprogram.testing import tiny_text_source

often = settings(deadline=None, max_examples=40)
V = 11
TASK = TaskSpec(name="t", classes=("bad", "good"), sample=Sample(shape=()), modality="text")


def task(*classes: str) -> TaskSpec:
    return TaskSpec(name="t", classes=classes, sample=Sample(shape=()), modality="text")


@pytest.fixture(scope="module")
def sources():
    made = {}
    return lambda kind: made.setdefault(kind, tiny_text_source(kind))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


WAYS = {
    "mean": lambda values: sum(values) / len(values),
    "max": max,
    "sum": lambda values: math.log(sum(math.exp(v) for v in values)),
}
groups = st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=4, unique=True), min_size=1, max_size=4)


@often
@given(groups, st.sampled_from(list(WAYS)), st.integers(0, 5))
def test_classes_have_the_scores_of_their_tokens(token_ids, combine, seed):
    z = drawn(3, V, seed=seed)
    y = Verbalizer(token_ids, V, combine)(SourceOutput(z))
    for b in range(3):
        for t, ids in enumerate(token_ids):
            assert float(y[b, t]) == pytest.approx(WAYS[combine]([float(z[b, i]) for i in ids]), rel=1e-4, abs=1e-5)


def test_the_sum_is_of_probabilities():
    z = drawn(4, V)
    y = Verbalizer([[0, 3], [5]], V, "sum")(SourceOutput(z))
    p = z.softmax(1)
    wanted = torch.stack([p[:, 0] + p[:, 3], p[:, 5]], 1)
    torch.testing.assert_close(y.softmax(1), wanted / wanted.sum(1, keepdim=True))


lengths = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=4)


@often
@given(lengths, st.sampled_from(list(WAYS)), st.booleans())
def test_continuations_are_scored_by_class_and_length(sizes, combine, normalise):
    number = iter(range(1000))
    words = [[tuple(next(number) for _ in range(size)) for size in row] for row in sizes]
    output = ContinuationVerbalizer(words, combine, normalise=normalise)
    flat = [word for row in words for word in row]
    assert output.reading == Reading(continuations=tuple(flat))
    said = -drawn(2, len(flat)).abs()
    y = output(SourceOutput(continuations=said))
    for b in range(2):
        for t, row in enumerate(words):
            values = [float(said[b, flat.index(w)]) / (len(w) if normalise else 1) for w in row]
            assert float(y[b, t]) == pytest.approx(WAYS[combine](values), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Verbalizer([[1, 2], []], V), r"`token_ids\[1\]` must be one or more tokens from 0 to 10"),
        (lambda: Verbalizer([[1, V]], V), r"from 0 to 10, each once, got \[1, 11\]"),
        (lambda: Verbalizer([[1, 1]], V), r"each once, got \[1, 1\]"),
        (lambda: Verbalizer([], V), "for one class at least"),
        (lambda: ContinuationVerbalizer([[(1, 2)], []]), "words of one or more tokens for each class"),
        (lambda: ContinuationVerbalizer([[()]]), "words of one or more tokens for each class"),
        (lambda: RuleVerbalizer([(1, 2), (3,)], V), "as many words for every class"),
        (lambda: RuleVerbalizer([(1, 2), (1, 2)], V), "must differ between classes"),
        (lambda: RuleVerbalizer([(1, V)], V), "tokens from 0 to 10"),
        (lambda: SoftVerbalizer(torch.full((2, 3), math.inf)), "finite vectors"),
        (lambda: MixtureOfAnswers(Identity(), 0), "1 or more"),
    ],
)
def test_settings_that_are_none(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_what_the_source_must_say():
    with pytest.raises(CapabilityError, match="must score 1 continuations, got None"):
        ContinuationVerbalizer([[(1, 2)]])(SourceOutput())
    with pytest.raises(CapabilityError, match="scores at tokens"):
        TokenScores()(SourceOutput())
    with pytest.raises(CapabilityError, match=r"The template must have 2 times \{mask\}"):
        RuleVerbalizer([(1, 2)], V)(SourceOutput(token_scores=drawn(3, 1, V)))
    with pytest.raises(CapabilityError, match="features"):
        SoftVerbalizer(torch.eye(2))(SourceOutput(drawn(3, V)))
    with pytest.raises(ConfigError, match="`sources` must be 12"):
        Verbalizer([[1]], V)(SourceOutput(drawn(3, V + 1)))


# Rules, mixtures, soft label words


@often
@given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 9))
def test_rules_sum_log_probabilities_over_the_words_of_each_place(places, classes, seed):
    draw = torch.Generator().manual_seed(seed)
    rules = list(dict.fromkeys(tuple(torch.randint(5, (places,), generator=draw).tolist()) for _ in range(classes)))
    z = drawn(2, places, V, seed=seed)
    y = RuleVerbalizer(rules, V)(SourceOutput(token_scores=z))
    for b in range(2):
        for t, rule in enumerate(rules):
            total = 0.0
            for m, word in enumerate(rule):
                known = {r[m] for r in rules}
                total += math.log(math.exp(float(z[b, m, word])) / sum(math.exp(float(z[b, m, w])) for w in known))
            assert float(y[b, t]) == pytest.approx(total, rel=1e-4, abs=1e-5)


def test_a_place_with_one_word_does_not_count():
    z = drawn(2, 2, V)
    whole = RuleVerbalizer([(4, 1), (4, 2)], V)(SourceOutput(token_scores=z))
    alone = RuleVerbalizer([(1,), (2,)], V)(SourceOutput(token_scores=z[:, 1:]))
    torch.testing.assert_close(whole, alone)


@often
@given(st.integers(1, 4), st.integers(1, 3))
def test_a_mixture_is_the_weighted_mean_of_probabilities(variants, batch):
    mixture = MixtureOfAnswers(Identity(), variants)
    with torch.no_grad():
        mixture.weights.copy_(drawn(variants, seed=7))
    z = drawn(batch * variants, 3)
    p, w = z.softmax(1), mixture.weights.detach().softmax(0)
    wanted = torch.stack([sum(w[k] * p[b * variants + k] for k in range(variants)) for b in range(batch)])
    torch.testing.assert_close(mixture(SourceOutput(z)).exp(), wanted)


def test_a_mixture_has_its_inner_output_s_ways_and_whole_inputs_only():
    words = MixtureOfAnswers(ContinuationVerbalizer([[(1, 2)], [(3,)]]), 2)
    assert words.reading.continuations == ((1, 2), (3,))
    assert words.alignment is Alignment.RULE_BASED
    with pytest.raises(DataError, match="must come 2 to an input, got 3"):
        MixtureOfAnswers(Identity(), 2)(SourceOutput(drawn(3, 4)))
    with pytest.raises(ConfigError, match="a score a class"):
        MixtureOfAnswers(TokenScores(), 2)(SourceOutput(token_scores=drawn(2, 3, V)))


def test_a_soft_verbalizer_is_linear_in_the_features():
    soft, h = SoftVerbalizer(drawn(3, 5)), drawn(4, 5, seed=1)
    with torch.no_grad():
        soft.bias.copy_(drawn(3, seed=2))
    torch.testing.assert_close(soft(SourceOutput(features=h)), h @ soft.fold() + soft.offset())
    assert SoftVerbalizer(drawn(3, 5), bias=False).bias is None
    assert soft.reading.features
    with torch.autocast("cpu", torch.bfloat16):
        assert soft(SourceOutput(features=h.bfloat16())).dtype == torch.float32


GRADIENTS = {
    "mean": (lambda: Verbalizer([[0, 3], [5]], V), SourceOutput, (2, V)),
    "sum": (lambda: Verbalizer([[0, 3], [5]], V, "sum"), SourceOutput, (2, V)),
    "continuations": (
        lambda: ContinuationVerbalizer([[(1, 2), (4,)], [(3,)]]),
        lambda z: SourceOutput(continuations=z),
        (2, 3),
    ),
    "rules": (lambda: RuleVerbalizer([(1, 2), (3, 2), (1, 4)], V), lambda z: SourceOutput(token_scores=z), (2, 2, V)),
    "soft": (lambda: SoftVerbalizer(drawn(3, 5)), lambda z: SourceOutput(features=z), (2, 5)),
    "mixture": (lambda: MixtureOfAnswers(Identity(), 2), SourceOutput, (4, 3)),
    "tokens": (TokenScores, lambda z: SourceOutput(token_scores=z), (3, V)),
}


@pytest.mark.parametrize(("make", "wrap", "shape"), GRADIENTS.values(), ids=GRADIENTS)
def test_gradients(make, wrap, shape):
    output = make().double()
    names = [n for n, _ in output.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in output.parameters()]

    def run(z, *learned):
        return torch.func.functional_call(output, dict(zip(names, learned, strict=True)), (wrap(z),))

    assert torch.autograd.gradcheck(run, (drawn(*shape).double().requires_grad_(), *values))


@pytest.mark.parametrize(("make", "wrap", "shape"), GRADIENTS.values(), ids=GRADIENTS)
def test_half_precision_is_read_in_float32_and_nothing_fixed_is_saved(make, wrap, shape):
    output = make()
    assert output(wrap(drawn(*shape).bfloat16())).dtype == torch.float32
    assert set(output.state_dict()) == {n for n, _ in output.named_parameters()}


@pytest.mark.compile
@pytest.mark.parametrize(("make", "wrap", "shape"), GRADIENTS.values(), ids=GRADIENTS)
def test_compiled_is_eager(make, wrap, shape):
    output, z = make(), drawn(*shape)
    torch._dynamo.reset()
    compiled = torch.compile(lambda z: output(wrap(z)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z), output(wrap(z)))


# Label words


def test_words_by_class_or_in_order_or_names():
    assert words_of(TASK) == [("bad",), ("good",)]
    assert words_of(TASK, {"good": ("great", "fine"), "bad": "awful"}) == [("awful",), ("great", "fine")]
    assert words_of(TASK, ("awful", ("great", "fine"))) == [("awful",), ("great", "fine")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"good": "great"}, r"`words\['bad'\]` must be a word or several, got \[\]"),
        ({"good": "great", "bad": "  "}, r"`words\['bad'\]` must be a word or several"),
        ({"goood": "great", "bad": "awful"}, r"\['bad', 'good'\], got 'goood'. Did you mean 'good'\?"),
        (("one",), "one entry for each of 2 classes, got 1"),
    ],
)
def test_words_that_do_not_fit_the_classes(words, said):
    with pytest.raises(ConfigError, match=said):
        words_of(TASK, words)


@pytest.mark.parametrize(("kind", "space"), [("gpt2", " "), ("roberta", " "), ("bert", ""), ("t5", "")])
def test_words_have_their_space_where_the_tokenizer_wants_one(sources, kind, space):
    source = sources(kind)
    found = tokenised_words(source, TASK, after="Label:")
    assert found == [(tuple(source.encode(f"{space}{name}")),) for name in TASK.classes]
    bare = tokenised_words(source, TASK, after="Label: ")
    assert bare == [(tuple(source.encode(name)),) for name in TASK.classes]


def test_words_continue_a_prompt_as_the_tokenizer_would_write_them(sources):
    """The prompt's tokens and the word's are those of both together: the reason for the rule about spaces."""
    for kind in ("gpt2", "llama"):
        source = sources(kind)
        for (ids,), name in zip(tokenised_words(source, TASK, after="answer:"), TASK.classes, strict=True):
            assert source.encode("answer:") + list(ids) == source.encode(f"answer: {name}")


def test_one_token_each_is_one_pass_and_several_are_continuations(sources):
    causal = sources("gpt2")
    single = verbalizer(causal, TASK)
    assert isinstance(single, Verbalizer)
    assert single.reading == Reading()
    several = verbalizer(causal, task("bad", "quizzical"))
    assert isinstance(several, ContinuationVerbalizer)
    assert [len(word) > 1 for word in several.reading.continuations] == [False, True]


def test_a_masked_model_has_one_place_for_words_of_several_tokens(sources):
    masked = sources("bert")
    output = verbalizer(masked, task("bad", "quizzical"))
    ids = masked.encode("quizzical")
    assert len(ids) > 1
    z = drawn(2, masked.spec.outputs)
    wanted = z[:, list(dict.fromkeys(ids))].mean(1)
    torch.testing.assert_close(output(SourceOutput(z))[:, 1], wanted)


@pytest.mark.parametrize(
    ("kind", "classes", "words", "error", "said"),
    [
        ("bert", ("bad", "good"), ("BAD", "bad"), ConfigError, "must differ between classes in the source's tokens"),
        ("gpt2", ("bad", "good"), (("bad", "fine"), ("good", "bad ")), ConfigError, "cannot tell these apart"),
        ("bert", ("bad", "good"), ("日本", "good"), ConfigError, "has an unknown token in it"),
        ("bert", ("so bad", "bad so"), None, ConfigError, r"in the source's tokens, got \['so bad', 'bad so'\]"),
        ("bert_encoder", ("bad", "good"), None, CapabilityError, "must score a vocabulary for label words"),
        ("bert_classifier", ("bad", "good"), None, CapabilityError, "linear output instead"),
    ],
)
def test_words_that_a_source_cannot_serve(sources, kind, classes, words, error, said):
    with pytest.raises(error, match=said):
        verbalizer(sources(kind), task(*classes), words)


def test_a_word_that_tokenises_to_nothing(sources):
    with pytest.raises(ConfigError, match="It makes no token of it"):
        verbalizer(sources("bert"), TASK, ("\u200b", "good"))


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_soft_label_words_start_at_the_label_words_scores(sources, kind):
    """With the head's rows for class vectors the scores are the head's, less its bias."""
    from reprogram.core.program import Program
    from reprogram.core.texts import Texts
    from reprogram.inputs import Template, default_layout

    source = sources(kind)
    layout = Template(
        default_layout(kind if kind != "gpt2" else "causal", ["text"]) if kind != "bert" else "{text} is{mask}"
    )
    x = Texts({"text": ("the film was long", "so bad")})
    soft = Program([layout], source, soft_verbalizer(source, TASK, after=layout.lead))(x)
    hard = Program([layout], source, verbalizer(source, TASK, after=layout.lead))(x)
    bias = getattr(getattr(source.module, "cls", None), "predictions", None)
    if bias is not None:
        ids = [words[0][0] for words in tokenised_words(source, TASK, after=layout.lead)]
        hard = hard - bias.decoder.bias.detach()[ids]
    torch.testing.assert_close(soft, hard, atol=1e-4, rtol=1e-4)


def test_soft_label_words_of_several_are_means(sources):
    source = sources("gpt2")
    soft = soft_verbalizer(source, TASK, (("bad", "awful"), "quizzical"), after="so", bias=False)
    table = source.head_table.detach()
    rows = [table[source.encode(" bad")].mean(0), table[source.encode(" awful")].mean(0)]
    torch.testing.assert_close(soft.weight[0], (rows[0] + rows[1]) / 2)
    torch.testing.assert_close(soft.weight[1], table[source.encode(" quizzical")].mean(0))


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("gpt2", Verbalizer),
        ("bert", Verbalizer),
        ("t5", Verbalizer),
        ("bert_encoder", Linear),
        ("bert_classifier", Linear),
    ],
)
def test_answers_by_kind_of_source(sources, kind, made):
    assert type(answers(sources(kind), TASK)) is made
    assert type(answers(sources(kind), None)) is TokenScores
    writing = TaskSpec(name="w", classes=(), sample=Sample(shape=()), modality="text")
    assert type(answers(sources(kind), writing)) is TokenScores
