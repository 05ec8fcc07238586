"""Rows of one batch through different programs: each gets what it would get alone, or the mixture is refused."""

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.mixed import Mixed
from reprogram.core.texts import Texts
from reprogram.testing import tiny_source, tiny_task, tiny_text_source, tiny_text_task

TEXTS = ("the film was good", "bad", "it is a very long and boring story", "hot day", "a", "good good news")


def programs(source, task):
    """Prompts of several lengths, a prefix with its network, and no prompt at all, with templates of their own."""
    made = [
        rp.build("prompt_tuning", source, task, tokens=3, seed=1),
        rp.build("prompt_tuning", source, task, tokens=7, seed=2, template="text: {text} is"),
        rp.build("prefix_tuning", source, task, tokens=4, hidden=8, seed=3),
        rp.build("no_edit", source, task),
    ]
    with torch.no_grad():
        for p in made:
            for value in p.input.parameters():
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    return made


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_every_row_gets_its_own_program(kind):
    """PEFT silently answers all rows with the active adapter (spec, section 7, fact 1)."""
    source, task = tiny_text_source(kind), tiny_text_task()
    made = programs(source, task.spec)
    mixed = Mixed(made)
    rows = torch.tensor([0, 3, 1, 2, 2, 0])
    answers = mixed(Texts({"text": TEXTS}), rows)
    for text, number, ours in zip(TEXTS, rows.tolist(), answers, strict=True):
        alone = made[number].predict([text]).scores[0]
        assert torch.allclose(ours, alone, atol=2e-5, rtol=1e-4)
    others = [made[(n + 1) % 4].predict([t]).scores[0] for t, n in zip(TEXTS, rows.tolist(), strict=True)]
    assert max(float((a - b).abs().max()) for a, b in zip(answers, others, strict=True)) > 0.05


def test_a_program_that_changed_is_not_answered_from_memory():
    source, task = tiny_text_source("gpt2"), tiny_text_task()
    program = programs(source, task.spec)[0]
    mixed, x, rows = Mixed([program]), Texts({"text": TEXTS[:1]}), torch.tensor([0])
    before = mixed(x, rows)[0]
    with torch.no_grad():
        next(program.input.parameters()).mul_(2)
    after = mixed(x, rows)[0]
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(after, program.predict(list(TEXTS[:1])).scores[0], atol=1e-5)


def test_what_cannot_be_mixed_is_refused():
    source, task = tiny_text_source("gpt2"), tiny_text_task()
    good = rp.build("prompt_tuning", source, task, tokens=2)
    x = Texts({"text": TEXTS[:2]})
    inside = rp.build("prompt_tuning", source, task, template="{text} {soft:2} is")
    with pytest.raises(CapabilityError, match="before the text"):
        Mixed([good, inside])(x, torch.tensor([0, 1]))
    with pytest.raises(CapabilityError, match="several"):
        Mixed([good, rp.build("prompt_tuning", source, task, tokens=2, words=("very bad", "good", "fun"))])
    with pytest.raises(ConfigError, match="rows"):
        Mixed([good])(x, torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="rows"):
        Mixed([good])(x, torch.tensor([0]))
    with pytest.raises(ConfigError, match="one source"):
        Mixed([good, rp.build("prompt_tuning", tiny_text_source("gpt2"), task, tokens=2)])
    with pytest.raises(ConfigError, match="one source"):
        Mixed([])
    pictures = tiny_source()
    with pytest.raises(CapabilityError, match="mix"):
        Mixed([rp.Program([], pictures, rp.build("no_edit", pictures, tiny_task()).output)])
    masked = tiny_text_source("bert")
    with pytest.raises(CapabilityError, match="before the text"):
        Mixed([rp.build("prompt_tuning", masked, task, tokens=2, words=("bad", "good", "fun"))])(
            x, torch.tensor([0, 0])
        )


def test_weighed_keys_are_refused_and_not_silently_unweighed():
    """Structured prompting weighs a sequence's own keys against those of its groups; a shared batch cannot."""
    from reprogram.inputs import GroupedDemonstrations
    from reprogram.outputs import TokenScores

    source = tiny_text_source("gpt2")
    one, two = GroupedDemonstrations(source, ["bad: no\n"]), GroupedDemonstrations(source, ["bad: no\n", "hot: yes\n"])
    x, rows = Texts({"text": TEXTS[:1]}), torch.tensor([0])
    with pytest.raises(CapabilityError, match="weigh"):
        source.mixed(x, [rp.core.program.Input(two)], rows, TokenScores().reading)
    assert source.mixed(x, [rp.core.program.Input(one)], rows, rp.core.source.Reading()).scores is not None
