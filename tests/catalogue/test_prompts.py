"""Prompts put together and looked at: against plain sums, and against the whole table of cosines."""

import pytest
import torch
import torch.nn.functional as F

import reprogram as rp
from reprogram.catalogue import build, combine, compile_program, load, nearest_tokens, prompts
from reprogram.core.errors import CapabilityError, ConfigError, FingerprintError
from reprogram.inputs import Prefix, SoftPrompt
from reprogram.store import save
from reprogram.testing import tiny_source, tiny_task, tiny_text_source, tiny_text_task


@pytest.fixture(scope="module")
def source():
    return tiny_text_source("gpt2")


def program(source, seed=0, tokens=3, method="prompt_tuning", **settings):
    return build(method, source, tiny_text_task(per_class=2), tokens=tokens, seed=seed, **settings)


def values(made):
    return next(e for e in made.input if isinstance(e, (SoftPrompt, Prefix))).values.detach()


METHODS = {"prompt_tuning": {}, "spot": {}, "prefix_tuning": {"hidden": None}, "p_tuning_v2": {}}
"""With the numbers themselves."""

NETWORKS = {"prefix_tuning": {"hidden": 8}, "p_tuning": {"hidden": 8}, "multitask_prompt_tuning": {}}
"""With something that makes them."""


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_put_together_as_said(source, method):
    one, two = (program(source, s, method=method, start="random", **METHODS[method]) for s in (0, 1))
    a, b = values(one), values(two)
    torch.testing.assert_close(values(combine([one, two])), torch.cat([a, b]), atol=0, rtol=0)
    torch.testing.assert_close(values(combine([one, two], "average")), (a + b) / 2)
    torch.testing.assert_close(values(combine([one, two, two], "average", [1, 0, 3])), 0.25 * a + 0.75 * b)
    torch.testing.assert_close(values(combine([one, two], "interpolate", [0.25, 0.75])), 0.25 * a + 0.75 * b)
    torch.testing.assert_close(values(combine([one, two], "interpolate", [2, -1])), 2 * a - b)
    torch.testing.assert_close(values(combine([one, two], "interpolate")), (a + b) / 2)
    assert not torch.equal(a, b)
    assert torch.equal(values(one), a)  # what went in is as it was


def test_the_ends_of_an_interpolation_predict_as_the_programs_do(source):
    one, two = (program(source, s, template="{text} It was") for s in (0, 1))
    texts = ["great film", "the boring plot"]
    for weights, same in (([1, 0], one), ([0, 1], two)):
        made = combine([one, two], "interpolate", weights)
        torch.testing.assert_close(made.predict(texts).scores, same.predict(texts).scores)


@pytest.mark.parametrize(("method", "settings"), [*METHODS.items(), *NETWORKS.items()])
def test_a_combination_is_saved_and_loaded(source, method, settings, tmp_path):
    one, two = (program(source, s, tokens=2 + s, method=method, **settings) for s in (0, 1))
    made = combine([one, two])
    assert made.origin.config.tokens == values(made).shape[0] == 5
    assert made.origin.form == ("compact" if method in NETWORKS and settings == NETWORKS[method] else "trained")
    save(made, tmp_path / "x.safetensors")
    again = load(tmp_path / "x.safetensors", source)
    texts = ["great film", "the boring plot", "a"]
    assert torch.equal(again.predict(texts).scores, made.predict(texts).scores)
    assert made.predict(texts).classes == one.predict(texts).classes


def test_networks_are_combined_by_what_they_make(source):
    one, two = (program(source, s, method="p_tuning", hidden=8) for s in (0, 1))
    wanted = torch.cat([list(p.input)[1].tokens() for p in (one, two)])
    torch.testing.assert_close(values(combine([one, two])), wanted.detach())


def test_one_source_may_have_been_loaded_twice(source):
    one, two = program(source), program(tiny_text_source("gpt2"), 1)
    assert combine([one, two]).source is source
    with pytest.raises(FingerprintError, match="same weights"):
        combine([one, program(tiny_text_source("gpt2", seed=1))])


def test_a_learned_head_is_copied_from_the_first(source):
    one, two = (program(source, s, method="p_tuning_v2") for s in (0, 1))
    made = combine([one, two])
    for mine, theirs in zip(made.output.parameters(), one.output.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine is not theirs


def test_concatenated_prompts_compile(source):
    made = combine([program(source, 0), program(source, 1)])
    texts = ["great film", "the boring plot"]
    torch.testing.assert_close(compile_program(made).predict(texts).scores, made.predict(texts).scores,
                               atol=1e-5, rtol=0)  # fmt: skip


def test_what_cannot_be_combined(source):
    soft, longer = program(source), program(source, tokens=4)
    prefix = program(source, method="prefix_tuning", hidden=None)
    slots = program(source, template="{text}{soft:3} It was")
    by_hand = rp.Program(list(soft.input), source, soft.output)
    vision = [build("blm", tiny_source(), tiny_task(), inner=8) for _ in range(2)]
    many = [build("mixture_of_soft_prompts", source, tiny_text_task(per_class=2)) for _ in range(2)]
    cases = [
        (([soft],), ConfigError, "two or more"),
        (([soft, longer], "average"), ConfigError, r"one length.*\[3, 4\]"),
        (([soft, prefix],), ConfigError, "one kind"),
        (([soft, slots],), ConfigError, "one kind at one place"),
        (([slots, slots],), ConfigError, "before or after the text"),
        (([soft, by_hand],), ConfigError, "by hand"),
        (([soft, compile_program(soft)],), CapabilityError, "then compile"),
        ((vision,), CapabilityError, "soft prompt"),
        ((many,), CapabilityError, "one soft prompt"),
        (([soft, soft], "concatenate", [1, 1]), ConfigError, "weights"),
        (([soft, soft], "average", [1]), ConfigError, "weights"),
        (([soft, soft], "average", [0, 0]), ConfigError, "weights"),
        (([soft, soft], "average", [2, -1]), ConfigError, "weights"),
        (([soft, soft], "average", [1, float("inf")]), ConfigError, "weights"),
        (([soft, soft], "interpolate", [0.5, 0.6]), ConfigError, "sum to 1"),
        (([soft, soft], "interpolate", [float("nan"), 1]), ConfigError, "sum to 1"),
        (([soft, soft, soft], "interpolate", [0.5, 0.5]), ConfigError, "two"),
    ]
    for given, error, words in cases:
        with pytest.raises(error, match=words):
            combine(*given)
    assert values(combine([slots, slots], "average")).shape == (3, 32)
    with pytest.raises(ConfigError, match="concatenate, average or interpolate"):
        prompts._check_alike([list(soft.input)[1]] * 2, "sum")


# -- nearest tokens ----------------------------------------------------------------------------------------------------


def test_real_tokens_are_nearest_to_themselves(source):
    made = build("prompt_tuning", source, None, tokens=2)
    ids = source.encode(" great film")
    with torch.no_grad():
        values_ = next(iter(made.input)).values
        values_.copy_(torch.stack([3 * source.embeddings[i] for i in ids]))
    found = nearest_tokens(made, 4)
    assert [row[0].id for row in found] == ids
    assert [row[0].text.strip() for row in found] == ["great", "film"]
    for row in found:
        assert len(row) == 4
        assert abs(row[0].cosine - 1) < 1e-5
        assert sorted((t.cosine for t in row), reverse=True) == [t.cosine for t in row]


@pytest.mark.parametrize("part", [1, 7, 64, 10_000])
def test_parts_of_the_table_give_what_the_whole_gives(part, monkeypatch):
    monkeypatch.setattr(prompts, "_ROWS", part)
    generator = torch.Generator().manual_seed(0)
    rows, table = torch.randn(6, 16, generator=generator), torch.randn(150, 16, generator=generator)
    table[3] = 0  # a padding token's
    wanted = F.cosine_similarity(rows[:, None], table[None], dim=2).topk(5, dim=1)
    cosines, ids = prompts.nearest(rows, table, 5)
    assert torch.equal(ids, wanted.indices)
    torch.testing.assert_close(cosines, wanted.values)
    assert prompts.nearest(rows, table, 400)[1].shape == (6, 150)


def test_programs_without_learned_tokens_have_no_nearest(source):
    for method in ("prefix_tuning", "no_edit"):
        with pytest.raises(CapabilityError, match="no tokens"):
            nearest_tokens(build(method, source, tiny_text_task(per_class=2)))
    with pytest.raises(CapabilityError, match="language model"):
        nearest_tokens(build("blm", tiny_source(), tiny_task(), inner=8))
    with pytest.raises(ConfigError, match="k"):
        nearest_tokens(program(source), 0)


def test_without_a_tokenizer_tokens_are_numbers():
    model = tiny_text_source("gpt2").module
    bare = rp.wrap(model)
    found = nearest_tokens(build("prompt_tuning", bare, None, tokens=2), 1)
    assert [row[0].text for row in found] == [f"#{row[0].id}" for row in found]
