"""Starts: at the table's scale, never zeros, fresh numbers; texts and classes where they are asked for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError
from reprogram.core.task import Sample, TaskSpec
from reprogram.inputs import instruction, prefix_start, prompt_start, starts
from reprogram.testing import tiny_text_source

TASK = TaskSpec(name="t", classes=("bad", "good", "funny film"), sample=Sample(shape=()), modality="text")
WRITING = TaskSpec(name="w", classes=(), sample=Sample(shape=()), modality="text")


@pytest.fixture(scope="module")
def source():
    return tiny_text_source("gpt2")


def table(rows: int = 40, width: int = 5) -> torch.Tensor:
    made = torch.randn(rows, width, generator=torch.Generator().manual_seed(1)) * torch.arange(1, width + 1) + 3
    made[7] = 0  # as a padding token's row is
    return made


def rows_of(found: torch.Tensor, whole: torch.Tensor) -> list[int]:
    return [int((whole == row).all(1).nonzero()[0]) for row in found]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 100), st.integers(0, 100))
def test_vocabulary_draws_distinct_rows_while_there_are_any_and_no_zeros(n, seed):
    torch.manual_seed(seed)
    whole = table()
    found = rows_of(starts.vocabulary_start(whole, n), whole)
    assert 7 not in found
    counts = [found.count(row) for row in range(len(whole)) if row != 7]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == n


def test_random_has_the_moments_of_every_dimension():
    whole = table(400)
    torch.manual_seed(0)
    found = starts.random_start(whole, 20_000)
    torch.testing.assert_close(found.mean(0), whole.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(found.std(0), whole.std(0, correction=0), rtol=0.05, atol=0)


def test_moments_are_those_of_the_whole_table_in_any_precision():
    whole = torch.randn(2 * starts._ROWS + 5, 3, generator=torch.Generator().manual_seed(2)) + 100
    mean, std = starts.moments(whole)
    torch.testing.assert_close(mean, whole.double().mean(0).float())
    torch.testing.assert_close(std, whole.double().std(0, correction=0).float())
    half = starts.moments(whole.bfloat16())
    torch.testing.assert_close(half[0], whole.bfloat16().double().mean(0).float())


def test_text_is_cut_or_repeated():
    whole = table()
    assert rows_of(starts.text_start(whole, [4, 9, 2], 7), whole) == [4, 9, 2, 4, 9, 2, 4]
    assert rows_of(starts.text_start(whole, [4, 9, 2], 2), whole) == [4, 9]
    with pytest.raises(ConfigError, match="at least one token"):
        starts.text_start(whole, [], 2)


def test_labels_are_mean_embeddings_first_then_vocabulary():
    whole = table()
    found = starts.label_start(whole, [[3], [5, 6]], 4)
    assert torch.equal(found[:2], torch.stack([whole[3], (whole[5] + whole[6]) / 2]))
    assert 7 not in rows_of(found[2:], whole)
    assert torch.equal(starts.label_start(whole, [[3], [5, 6]], 1), whole[3:4])
    with pytest.raises(ConfigError, match="names of at least one token"):
        starts.label_start(whole, [[3], []], 4)


def test_starts_are_copies_in_float32_of_seeded_draws(source):
    for name in ("random", "vocabulary", "text", "labels"):
        torch.manual_seed(3)
        one = prompt_start(source, TASK, 6, name)
        torch.manual_seed(3)
        two = prompt_start(source, TASK, 6, name)
        assert one.shape == (6, 32)
        assert one.dtype == torch.float32
        assert torch.equal(one, two)
        assert bool(one.any(1).all())
        before = source.embeddings.detach().clone()
        one.fill_(9.0)
        assert torch.equal(source.embeddings, before)


def test_text_and_labels_start_at_what_they_say(source):
    ids = source.encode("a good film")
    assert torch.equal(prompt_start(source, TASK, 3, "text", "a good film"), source.embeddings.detach()[ids][:3])
    assert torch.equal(prompt_start(source, TASK, 4, "text"), source.embeddings[source.encode(instruction(TASK))[:4]])
    assert "bad, good, funny film" in instruction(TASK)
    mean = source.embeddings.detach()[source.encode("funny film")].mean(0)
    torch.testing.assert_close(prompt_start(source, TASK, 3, "labels")[2], mean)


@pytest.mark.parametrize("task", [None, WRITING])
def test_labels_without_classes_are_the_vocabulary(source, task):
    torch.manual_seed(0)
    found = prompt_start(source, task, 5, "labels")
    torch.manual_seed(0)
    assert torch.equal(found, prompt_start(source, task, 5, "vocabulary"))


def test_prefix_of_a_text_is_its_keys_and_values(source):
    text = "the film was good"
    whole = source.keys_values(text)
    assert torch.equal(prefix_start(source, TASK, 2, "text", text), whole[:2])
    longer = prefix_start(source, TASK, 3 * len(whole), "text", text)
    assert longer.shape == (3 * len(whole), 2, 2, 4, 8)
    torch.testing.assert_close(longer[: len(whole)], whole)
    assert torch.equal(prefix_start(source, TASK, 2, "labels"), source.keys_values("bad, good, funny film")[:2])


def test_a_random_prefix_has_the_scale_of_real_ones(source):
    torch.manual_seed(0)
    found = prefix_start(source, TASK, 400, "random")
    real = prefix_start(source, TASK, 100, "vocabulary")
    for layer in range(2):
        for part in range(2):
            ratio = float(found[:, layer, part].std() / real[:, layer, part].std())
            assert 0.7 < ratio < 1.4, (layer, part, ratio)


@pytest.mark.parametrize("start", [prompt_start, prefix_start])
def test_what_cannot_be_a_start(source, start):
    with pytest.raises(ConfigError, match="`tokens` must be 1 or more, got 0"):
        start(source, TASK, 0, "text")
    with pytest.raises(ConfigError, match="at least one token to start from"):
        start(source, TASK, 3, "text", "")


def test_a_table_of_zeros_has_no_vocabulary():
    with pytest.raises(ConfigError, match="not zero"):
        starts.vocabulary_start(torch.zeros(3, 2), 2)
