"""Pictures looked at once where only texts are learned: the same fit, a fraction of the work."""

import pytest
import torch

import reprogram as rp
from reprogram.fit import FitOptions
from reprogram.fit.feed import Live, LookedOnce, OutputCache, feed_for
from reprogram.testing import tiny_task
from reprogram.testing.image_text import tiny_dual_source

pytest.importorskip("transformers")

QUIET = FitOptions(progress=False)
SMALL = {"tokens": 2, "recipe.epochs": 3, "recipe.batch_size": 8, "recipe.warmup_steps": 0}


def counted(source, monkeypatch):
    seen = []
    before = source.look
    monkeypatch.setattr(source, "look", lambda x, *rest: (seen.append(len(x)), before(x, *rest))[1])
    return seen


def test_a_step_gives_what_the_live_source_gives():
    source, task = tiny_dual_source(), tiny_task()
    program = rp.build("coop", source, task, **SMALL)
    index = torch.tensor([3, 0, 5])
    once = feed_for(program, cache=OutputCache())
    assert isinstance(once, LookedOnce)
    mine, live = once.outputs(task.train, index), Live(program).outputs(task.train, index)
    torch.testing.assert_close(mine.logits, live.logits, atol=1e-5, rtol=1e-5)
    (a,), (b,) = (torch.autograd.grad(out.logits.sum(), list(program.parameters())) for out in (mine, live))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_each_picture_is_looked_at_once_in_a_fit(monkeypatch):
    source, task = tiny_dual_source(), tiny_task(seed=7)
    seen = counted(source, monkeypatch)
    rp.fit(rp.build("coop", source, task, **SMALL, **{"recipe.augment": "none"}), task, options=QUIET)
    assert sum(seen) == sum(len(split) for split in (task.train, task.val, task.test))


def test_kept_views_are_augmented_and_drawn(monkeypatch):
    source, task = tiny_dual_source(), tiny_task(seed=8)
    seen = counted(source, monkeypatch)
    program = rp.build("coop", source, task, **SMALL, **{"recipe.augment": "crop", "recipe.views": 3})
    rp.fit(program, task, options=QUIET)
    assert sum(seen) == 3 * len(task.train) + len(task.val) + len(task.test)
    feed, index = feed_for(program, cache=OutputCache(), views=3), torch.arange(len(task.train))
    torch.manual_seed(0)
    drawn = feed.outputs(task.train, index, "crop").features
    plain = feed.outputs(task.train, index).features
    same = (drawn - plain).abs().amax(1) < 1e-6
    assert 0.1 < float(same.float().mean()) < 0.7  # a third of them, at random


def test_an_edit_in_the_picture_is_live():
    source, task = tiny_dual_source(), tiny_task()
    assert isinstance(feed_for(rp.build("vp_clip", source, task, width=2)), Live)


def test_a_cut_off_fit_goes_on_to_the_same_bits(tmp_path):
    source, task = tiny_dual_source(), tiny_task()
    whole = rp.fit(rp.build("coop", source, task, **SMALL), task, out=tmp_path / "a.safetensors", options=QUIET)
    first = rp.build("coop", source, task, **SMALL)
    stop = FitOptions(progress=False, checkpoint_seconds=0)
    calls = []

    def interrupt(*args, before=first.output.forward):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return before(*args)

    first.output.forward = interrupt
    with pytest.raises(KeyboardInterrupt):
        rp.fit(first, task, out=tmp_path / "b.safetensors", options=stop)
    again = rp.build("coop", source, task, **SMALL)
    done = rp.fit(again, task, out=tmp_path / "b.safetensors", resume=True, options=stop)
    assert torch.equal(done.test.scores, whole.test.scores)


def test_what_the_source_says_of_plain_pictures_is_asked_once(monkeypatch):
    """TVP compares with the unedited picture: its vectors are computed once for the split, whatever the epochs."""
    source, task = tiny_dual_source(), tiny_task(seed=9)
    program = rp.build("tvp", source, task, width=2, **{"recipe.epochs": 3, "recipe.batch_size": 8})
    asked = []
    before = program.plain
    monkeypatch.setattr(program, "plain", lambda x: (asked.append(len(x)), before(x))[1])
    rp.fit(program, task, options=QUIET)
    assert sum(asked) == len(task.train)
