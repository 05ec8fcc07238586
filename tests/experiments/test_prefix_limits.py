"""A prefix taken apart against plain loops, the sorting task, and the verdicts that rows give."""

import math

import pytest
import torch

from reprogram.core.errors import SourceError
from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.experiments import Options
from reprogram.experiments.prefix_limits import BROAD, NARROW, ROUNDING, bench, judge, remarks, sorted_rows
from reprogram.experiments.prefix_limits import QUICK as SMALL
from reprogram.experiments.prefix_parts import attended, prompt_mass, take_apart, weights
from reprogram.experiments.sorting import (
    FULL,
    NOTHING,
    ORDERS,
    SEP,
    How,
    Plan,
    accuracy,
    answered,
    as_source,
    scores_of,
    sequences,
    tiny_transformer,
    train,
    with_prefix,
)
from reprogram.inputs import Prefix, SoftPrompt
from reprogram.testing import tiny_source, tiny_text_source

TINY = Plan(width=16, length=3, steps=3, batch=4, test=16)


@pytest.fixture(params=["gpt2", "llama"])
def source(request):
    return tiny_text_source(request.param, layers=3)


def ids_of(source, text="the cat was very good"):
    return torch.tensor([source.encode(text)])


def test_weights_are_those_of_a_plain_softmax(source):
    prefix = source.keys_values("great film")
    seen = attended(source, ids_of(source), Input(Prefix(prefix)))[1]
    on_prefix, on_content = weights(seen)
    heads, tokens = seen.query.shape[1:3]
    for h in range(heads):
        own = h * seen.key.shape[1] // heads
        for i in range(tokens):
            raw = [math.exp(float(seen.query[0, h, i] @ k) * seen.scaling) for k in prefix[:, 1, 0, own]]
            raw += [math.exp(float(seen.query[0, h, i] @ k) * seen.scaling) for k in seen.key[0, own, : i + 1]]
            expected = torch.tensor([w / sum(raw) for w in raw], dtype=torch.float64)
            found = torch.cat([on_prefix[0, h, i], on_content[0, h, i, : i + 1]])
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
            assert not on_content[0, h, i, i + 1 :].any()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_prefix_obeys_the_identity_whatever_it_holds(source, n, layer):
    generator = torch.Generator().manual_seed(n)
    prefix = torch.randn(n, 1, 2, source.heads, source.head_width, generator=generator)
    taken = take_apart(source, ids_of(source), prefix, layer)
    assert taken.identity < ROUNDING["identity"]
    assert taken.relative < ROUNDING["relative"]
    assert taken.rank < ROUNDING["rank"]
    assert 0 < taken.mass < 1
    assert taken.pull > 1e-3  # it does something
    assert (taken.later is None) == (layer == 2)
    assert taken.later is None or taken.later > 1e-3  # and what it does moves attention later on


def test_the_measures_see_what_is_no_prefix():
    """A prefix that were not the same for all positions would break the rank; one in another layer the identity."""
    source = tiny_text_source("llama", layers=2)
    ids = ids_of(source)
    base = attended(source, ids, Input())[1]
    moved = attended(source, ids, Input(Prefix(source.keys_values("fun")[:, :1], site="kv.0", shift=False)))[1]
    assert (weights(base)[1] - weights(moved)[1]).abs().max() > 100 * ROUNDING["relative"]
    assert (base.output - moved.output).abs().max() > 100 * ROUNDING["identity"]
    three = take_apart(source, ids, source.keys_values("great good film")[:3, 1:], 1)
    assert three.rank < ROUNDING["rank"]
    prefix = Prefix(source.keys_values("great good film")[:3, 1:], site="kv.1", shift=False)
    out, old = (attended(source, ids, i)[1].output for i in (Input(prefix), Input()))
    singular = torch.linalg.svdvals((out - old).transpose(1, 2).double())
    assert (singular[..., 1] / singular[..., 0]).max() > 100 * ROUNDING["rank"]  # three tokens are not one direction


def test_prompt_mass_is_one_less_what_content_gets(source):
    prompt = Input(SoftPrompt(source.embeddings[5:9].detach()))
    mass, first = prompt_mass(source, ids_of(source), prompt)
    seen = attended(source, ids_of(source), prompt)
    for layer, (m, f) in enumerate(zip(mass, first, strict=True)):
        on_content = weights(seen[layer])[1][:, :, 1:]
        assert m == pytest.approx(1 - float(on_content.sum(-1).mean()))
        assert f == pytest.approx(float(on_content[..., 0].mean()))
    assert prompt_mass(source, ids_of(source), Input())[0] == [0.0] * 3


def test_sequences_hold_the_same_numbers_in_the_order_asked_for():
    for order, row in ORDERS.items():
        for ids in sequences(50, 5, [order], torch.Generator().manual_seed(0)).tolist():
            x, sep, y = ids[:5], ids[5], ids[6:]
            assert sep == SEP
            assert len(set(x)) == 5
            assert y == sorted(x, key=row.index)
    both = sequences(400, 5, ["ascending", "descending"], torch.Generator().manual_seed(0))
    up = (both[:, 6:].diff(dim=1) > 0).all(1)
    down = (both[:, 6:].diff(dim=1) < 0).all(1)
    assert bool((up | down).all())
    assert 150 < int(up.sum()) < 250


def test_an_answer_is_right_where_the_largest_score_is():
    ids = sequences(6, 3, ["descending"], torch.Generator().manual_seed(0))

    def oracle(given):
        made = torch.zeros(*given.shape, SEP + 1)
        return made.scatter(2, ids[:, 1:, None], 9.0)

    loss, right = answered(oracle, ids, 3)
    assert bool(right.all())
    assert float(loss) == pytest.approx(math.log(1 + SEP * math.exp(-9)), rel=1e-4)
    _, wrong = answered(lambda given: oracle(given).flip(-1), ids, 3)
    assert float(wrong.float().mean()) < 0.5


def test_a_program_changes_the_prefix_only_and_reads_the_model_as_it_is():
    model = tiny_transformer(1, TINY, 0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    source = as_source(model)
    ids = sequences(4, 3, ["ascending"], torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        source(ids, Input(), Reading(tokens=True)).token_scores, scores_of(model)(ids), atol=1e-5, rtol=1e-5
    )
    program = with_prefix(source, 2, TINY, 0)
    start = [p.clone() for p in program.parameters()]
    assert [tuple(p.shape) for p in start] == [(2, 1, 2, 4, 4)]
    train(program, program.parameters(), ["descending"], TINY, How(rate=0.1, seed=0))
    assert not torch.equal(next(program.parameters()), start[0])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    found = accuracy(program, "descending", TINY)
    assert 0 <= found["accuracy"] <= found["numbers"] <= 1


def test_training_teaches():
    plan = Plan(width=32, length=2, steps=120, batch=32, test=64)
    model = tiny_transformer(1, plan, 0)
    before = accuracy(scores_of(model), "descending", plan)
    train(scores_of(model), model.parameters(), ["descending"], plan, How(rate=1e-2, seed=0))
    after = accuracy(scores_of(model), "descending", plan)
    assert after["loss"] < before["loss"] / 3
    assert after["accuracy"] > 0.8
    assert before["accuracy"] < 0.2


def test_rows_of_a_seed_are_the_same_again():
    first = sorted_rows(1, 0, SMALL)
    assert first == sorted_rows(1, 0, SMALL)
    ways = {(r["trained"], r["order"], r["way"]) for r in first}
    assert len(ways) == len(first) == 14
    assert (NARROW, "descending", FULL) in ways
    assert (BROAD, "evens first", "prefix of 3") in ways
    assert all(0 <= r["accuracy"] <= 1 for r in first)


def sorting(seed, trained, order, way, share):
    return {"part": "sorting", "layers": 1, "seed": seed, "trained": trained, "order": order, "way": way,
            "accuracy": share, "numbers": share, "loss": 0.1}  # fmt: skip


def case(narrow, *, identity=1e-7):
    shares = {(BROAD, "ascending", NOTHING): 0.5, (BROAD, "ascending", "prefix of 8"): 0.9,
              (BROAD, "descending", NOTHING): 0.5, (BROAD, "descending", "prefix of 8"): 0.9,
              (BROAD, "evens first", "prefix of 8"): 0.1, (BROAD, "evens first", "prefix of 32"): 0.1,
              (BROAD, "evens first", FULL): 1.0, (NARROW, "descending", "prefix of 8"): narrow,
              (NARROW, "descending", "prefix of 32"): narrow, (NARROW, "descending", FULL): 1.0}  # fmt: skip
    rows = [sorting(seed, *key, share) for seed in range(5) for key, share in shares.items()]
    same = {"part": "layers", "tokens": 1, "identity": identity, "relative": 0.0, "rank": 0.0, "pull": 0.1}
    rows.append(same | {"layer": 0, "mass": 0.1, "later": None})
    rows.append(same | {"layer": 1, "mass": 0.3, "later": 0.2})
    return rows


def test_verdicts_follow_the_rows():
    fails = [c.verdict for c in judge(case(0.0))]
    assert fails == ["supported"] * 12
    teaches = [c.verdict for c in judge(case(0.9, identity=1e-3))]
    assert teaches[0] == "not supported"
    assert teaches[1:] == ["supported"] * 4 + ["not supported"] * 3 + ["supported"] * 4
    assert "20.0% of that layer's attention" in remarks(case(0.0))[0]


def test_a_source_that_is_no_language_model_is_refused(tmp_path, monkeypatch):
    from reprogram.experiments import prefix_limits

    monkeypatch.setattr(prefix_limits, "load_source", lambda ref: tiny_source())
    measure = bench(Options(out=tmp_path, sources=("a/picture-model",), quick=True))
    with pytest.raises(SourceError, match="language model"):
        measure({"name": "x", "part": "layers", "tokens": 1})
