"""Fitting on texts: batches of like length, generation, the rate finder, losses that stand still, resumption."""

import math

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import ConfigError
from reprogram.core.source import Reading
from reprogram.fit import FitOptions, find_rate
from reprogram.fit.batches import alike, shuffled
from reprogram.fit.feed import OutputCache, feed_for
from reprogram.testing import tiny_task, tiny_text_source, tiny_text_task

QUIET = FitOptions(progress=False)


def prompt(source, task, **settings):
    settings = {"tokens": 4, "lr": 0.02, "epochs": 2, "batch_size": 8, "warmup_steps": 0, **settings}
    return rp.build("prompt_tuning", source, task, **settings)


def test_an_epoch_has_every_row_once_and_little_padding():
    task = tiny_text_task(per_class=60)
    lengths = task.train.lengths()
    order = shuffled(task.train, 8, seed=3)
    assert sorted(order.tolist()) == list(range(len(task.train)))
    assert torch.equal(order, shuffled(task.train, 8, seed=3))
    assert not torch.equal(order, shuffled(task.train, 8, seed=4))

    def padding(rows):
        return sum(float(lengths[b].max() * len(b) - lengths[b].sum()) for b in rows.split(8))

    plain = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(3))
    assert padding(order) < 0.5 * padding(plain)
    scored = alike(task.train, 8)
    assert sorted(torch.cat(scored).tolist()) == list(range(len(task.train)))
    assert padding(torch.cat(scored)) <= padding(order)


def test_pictures_keep_the_order_they_had():
    task = tiny_task()
    assert torch.equal(shuffled(task.train, 4, 0),
                       torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0)))  # fmt: skip
    assert torch.equal(torch.cat(alike(task.train, 5)), torch.arange(len(task.train)))


def test_scores_do_not_depend_on_how_rows_are_batched():
    source, task = tiny_text_source("llama"), tiny_text_task()
    program = prompt(source, task)
    one, many = (rp.evaluate(program, task.test, batch_size=size) for size in (1, 7))
    assert torch.allclose(one.scores, many.scores, atol=1e-4)
    by_hand = program.predict([dict(task.test.fetch(torch.tensor([i])).row(0)) for i in range(len(task.test))])
    assert torch.allclose(by_hand.scores, one.scores, atol=1e-4)


def test_the_cache_keeps_what_the_output_reads_and_no_vocabulary():
    source, task = tiny_text_source("gpt2"), tiny_text_task()
    probe = rp.build("linear_probe", source, task)
    cache = OutputCache()
    said = feed_for(probe, cache=cache).outputs(task.train, torch.tensor([3, 1]))
    assert said.scores is None
    alone = source(task.train.fetch(torch.tensor([3, 1])), probe.input, Reading(features=True))
    assert torch.allclose(said.features, alone.features, atol=1e-4)


def test_a_program_learns_to_write():
    source, task = tiny_text_source("gpt2"), tiny_text_task(generates=True)
    program = prompt(source, task, epochs=6, lr=0.05)
    before = rp.evaluate(program, task.test)
    result = rp.fit(program, task, options=QUIET)
    assert result.test.loss < before.loss
    assert result.test.confusion is None
    assert result.test.perplexity == pytest.approx(math.exp(result.test.loss))
    assert set(result.test.brief()) == {"accuracy", "loss", "perplexity"}
    tokens = [source.encode(t) for t in task.test.fetch(torch.arange(len(task.test))).targets]
    seen = sum(len(t) + ("eos" in source.special) for t in tokens)
    assert round(result.test.accuracy * seen, 4) == round(result.test.accuracy * seen)


def test_the_loss_of_writing_is_the_plain_loss():
    """Against one row at a time, all tokens scored, by hand."""
    source, task = tiny_text_source("llama"), tiny_text_task(generates=True)
    program = prompt(source, task)
    batch = task.test.fetch(torch.arange(4))
    total, count = 0.0, 0
    for i in range(4):
        texts = program.input(batch[[i]], "input").prompts
        ids = [*source.tokeniser.before, *source.encode(texts[0])]
        goal = [*source.encode(batch.targets[i]), source.special["eos"]]
        whole = torch.tensor([ids + goal])
        logits = source.module(inputs_embeds=torch.cat([program.input.edits[1].tokens()[None],
                                                        source.embedded(whole)], 1)).logits[0]  # fmt: skip
        chances = logits.log_softmax(-1)[4 + len(ids) - 1 : -1]
        total -= chances.gather(1, torch.tensor(goal)[:, None]).sum().item()
        count += len(goal)
    found = rp.evaluate(program, task.test.subset(torch.arange(4)))
    assert found.loss == pytest.approx(total / count, rel=1e-4)


def test_resuming_a_fit_on_texts_gives_the_same_bits(tmp_path):
    task = tiny_text_task()
    kept = []
    for stop in (None, 1):
        program = rp.build("prefix_tuning", tiny_text_source("gpt2"), task, tokens=3, hidden=8, epochs=3, batch_size=8,
                           lr=0.01)  # fmt: skip
        out = tmp_path / f"{stop}.safetensors"
        if stop is not None:
            short = rp.build("prefix_tuning", tiny_text_source("gpt2"), task, tokens=3, hidden=8, epochs=3,
                             batch_size=8, lr=0.01)  # fmt: skip
            _stop_after(short, task, out, stop)
        result = rp.fit(program, task, out=out, resume=stop is not None, options=QUIET)
        kept.append((result.program.state_dict(), result.test.scores))
    (state, scores), (again, others) = kept
    assert all(torch.equal(state[k], again[k]) for k in state)
    assert torch.equal(scores, others)
    assert any("inner" in name for name in state)  # the reparameterisation is there to be trained on


def _stop_after(program, task, out, epochs):
    from reprogram.fit import engine

    class Enough(Exception):
        pass

    calls = []

    class Listener:
        def event(self, kind, **facts):
            if kind == "epoch":
                calls.append(facts)
                if len(calls) > epochs:
                    raise Enough

        def close(self):
            pass

    original = engine._Run._open

    def opened(self, *args):
        original(self, *args)
        self.listeners.append(Listener())

    engine._Run._open = opened
    try:
        with pytest.raises(Enough):
            rp.fit(program, task, out=out, options=FitOptions(progress=False, checkpoint_seconds=0))
    finally:
        engine._Run._open = original


def test_the_finder_proposes_a_rate_that_learns_and_changes_nothing():
    source, task = tiny_text_source("gpt2"), tiny_text_task(per_class=40)
    program = prompt(source, task)
    before = {k: v.clone() for k, v in program.state_dict().items()}
    curve = find_rate(program, task, low=1e-4, high=5.0, steps=40)
    assert all(torch.equal(v, before[k]) for k, v in program.state_dict().items())
    assert all(p.grad is None for p in program.parameters())
    assert len(curve.rates) == len(curve.losses) <= 40
    assert curve.rates[0] == pytest.approx(1e-4)
    assert curve.rates[0] <= curve.suggestion < 5.0
    again = find_rate(program, task, low=1e-4, high=5.0, steps=40)
    assert again == curve
    losses = {}
    for rate in (1e-5, curve.suggestion):
        fitted = rp.fit(prompt(source, task, lr=rate, epochs=3), task, options=QUIET)
        losses[rate] = fitted.history[-1]["loss"]
    assert losses[curve.suggestion] < losses[1e-5]


def test_the_finder_refuses_what_it_cannot_do():
    source, task = tiny_text_source("gpt2"), tiny_text_task()
    with pytest.raises(ConfigError, match="steps"):
        find_rate(prompt(source, task), task, steps=3)
    with pytest.raises(ConfigError, match="learn"):
        find_rate(rp.build("no_edit", source, task), task)


def test_a_loss_that_does_not_move_is_said(caplog):
    source, task = tiny_text_source("gpt2"), tiny_text_task()
    with caplog.at_level("WARNING", "reprogram"):
        rp.fit(prompt(source, task, lr=1e-9), task, options=QUIET)
    assert any("has not moved" in r.message for r in caplog.records)
    caplog.clear()
    with caplog.at_level("WARNING", "reprogram"):
        rp.fit(prompt(source, task, lr=0.05), task, options=QUIET)
    assert not any("has not moved" in r.message for r in caplog.records)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler looks at prefixes
def test_compiled_fits_on_texts():
    source, task = tiny_text_source("gpt2"), tiny_text_task()
    result = rp.fit(prompt(source, task, epochs=1), task, options=FitOptions(progress=False, compile=True))
    assert result.test.scores.isfinite().all()
