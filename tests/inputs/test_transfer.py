"""Prompts of other tasks: similarity by mean tokens, transfer by copy, cut, repetition and weighted mean."""

import math

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import ConfigError
from reprogram.core.program import Program
from reprogram.inputs import SoftPrompt, Template, most_similar, prompt_of, similarity, transfer
from reprogram.outputs import TokenScores
from reprogram.testing import tiny_text_source


@pytest.fixture(scope="module")
def source():
    return tiny_text_source("gpt2")


def program(source, values: torch.Tensor) -> Program:
    return Program([SoftPrompt(values)], source, TokenScores())


def prompt(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))


def test_similarity_is_the_cosine_of_means():
    one, other = prompt(3, 0), prompt(5, 1)
    a, b = one.mean(0), other.mean(0)
    assert similarity(one, other) == pytest.approx(float(a @ b / (a.norm() * b.norm())), rel=1e-5)
    assert similarity(one, one) == pytest.approx(1.0)
    assert similarity(one, -one) == pytest.approx(-1.0)


def test_the_most_similar_comes_first(source):
    mine = prompt(4, 0)
    others = [prompt(4, 5), mine + 0.1 * prompt(4, 6), -mine]
    found = most_similar(program(source, mine), [program(source, values) for values in others])
    assert [number for number, _ in found] == [1, 0, 2]
    assert found[0][1] > 0.9
    assert found[2][1] == pytest.approx(-1.0)


def test_transfer_copies_cuts_and_repeats(source):
    target = program(source, prompt(5, 0))
    theirs = prompt(5, 1)
    transfer(target, program(source, theirs))
    assert torch.equal(prompt_of(target).values, theirs)
    transfer(target, program(source, prompt(7, 2)))
    torch.testing.assert_close(prompt_of(target).values.detach(), prompt(7, 2)[:5])
    transfer(target, program(source, prompt(2, 3)))
    torch.testing.assert_close(prompt_of(target).values.detach(), prompt(2, 3)[[0, 1, 0, 1, 0]])
    assert prompt_of(target).values.requires_grad


def test_transfer_of_a_mixture_is_the_weighted_mean(source):
    target = program(source, prompt(4, 0))
    transfer(target, program(source, prompt(4, 1)), program(source, prompt(4, 2)), weights=[3.0, 1.0])
    torch.testing.assert_close(prompt_of(target).values.detach(), 0.75 * prompt(4, 1) + 0.25 * prompt(4, 2))
    transfer(target, program(source, prompt(4, 1)), program(source, prompt(4, 2)))
    torch.testing.assert_close(prompt_of(target).values.detach(), (prompt(4, 1) + prompt(4, 2)) / 2)


@pytest.mark.parametrize("weights", [[0.0], [-1.0], [1.0, 1.0], [math.inf], [math.nan]])
def test_weights_that_are_none(source, weights):
    target = program(source, prompt(4, 0))
    with pytest.raises(ConfigError, match="a weight of 0 or more each"):
        transfer(target, program(source, prompt(4, 1)), weights=weights)
    assert torch.equal(prompt_of(target).values.detach(), prompt(4, 0))


def test_programs_without_a_prompt_or_of_another_width(source):
    target = program(source, prompt(4, 0))
    with pytest.raises(ConfigError, match="at least one program"):
        transfer(target)
    with pytest.raises(ConfigError, match=r"one SoftPrompt among its edits, got \['Template'\]"):
        transfer(target, Program([Template("{text}")], source, TokenScores()))
    wide = program(source, torch.ones(4, 16))
    with pytest.raises(ConfigError, match="must be of width 32, got 16"):
        transfer(target, wide)
    with pytest.raises(ConfigError, match="must be of width 32, got 16"):
        most_similar(target, [wide])


def test_a_built_spot_program_takes_a_prompt_of_prompt_tuning(source):
    first = rp.build("prompt_tuning", source, None, tokens=6, seed=1)
    second = rp.build("spot", source, None, tokens=6, seed=2)
    ids = torch.randint(5, 90, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 7)
    assert not torch.equal(first(ids, mask), second(ids, mask))
    transfer(second, first)
    assert torch.equal(first(ids, mask), second(ids, mask))
