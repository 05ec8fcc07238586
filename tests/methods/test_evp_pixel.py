"""EVP at the pixel level: the frame never covers the image, the normalised step, both heads."""

import pytest
import torch
from torch import nn

import reprogram as rp
from reprogram.core.errors import ConfigError
from reprogram.core.method import Group, Recipe
from reprogram.fit import FitOptions, fit
from reprogram.fit.optimizer import NormalisedGradient, make_optimizer
from reprogram.outputs import ClassScores, FirstClasses
from reprogram.testing import tiny_source, tiny_task
from reprogram.testing.image_text import tiny_dual_source


def test_the_frame_has_the_papers_size_and_never_covers_the_image():
    source, task = tiny_source(size=224), tiny_task(per_class=10)
    program = rp.build("evp_pixel", source, task)
    assert program.count().allocated == program.count().effective == 69_840
    with torch.no_grad():
        list(program.input)[1].values.fill_(100.0)
    x = task.test.fetch(torch.arange(2)).float() / 255
    bare, framed = (program.input(next(iter(program.input))(x), s) for s in ("none", "normalised"))
    inside = (slice(None), slice(None), slice(30, 194), slice(30, 194))
    assert torch.equal(framed[inside], bare[inside])
    assert bool((framed - bare)[:, :, :30].eq(100).all())


def test_the_head_is_class_texts_where_there_are_texts():
    task = tiny_task()
    assert isinstance(rp.build("evp_pixel", tiny_dual_source(), task, width=3).output, ClassScores)
    assert isinstance(rp.build("evp_pixel", tiny_source(), task, width=3).output, FirstClasses)
    with pytest.raises(ConfigError, match="leave a pixel"):
        rp.build("evp_pixel", tiny_source(), task, width=8)


def test_every_step_has_the_length_of_the_rate():
    torch.manual_seed(0)
    parts = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    for scale in (1e-12, 1.0, 1e12):  # a plain gradient step would vanish or explode
        before = [p.detach().clone() for p in parts]
        for p in parts:
            p.grad = torch.randn_like(p) * scale
        together = torch.cat([p.grad.flatten() for p in parts])
        NormalisedGradient([{"params": parts, "lr": 2.5}]).step()
        moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(parts, before, strict=True)])
        assert torch.allclose(moved, -2.5 * together / together.norm(), atol=1e-6)


def test_a_zero_gradient_moves_nothing_and_groups_are_normalised_apart():
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    p.grad, q.grad = torch.zeros(2), torch.tensor([0.0, 7.0])
    NormalisedGradient([{"params": [p], "lr": 1.0}, {"params": [q], "lr": 0.5}]).step()
    assert p.tolist() == [1.0, 1.0]
    assert q.tolist() == [1.0, 0.5]


def test_recipes_ask_for_it_and_rates_follow_the_schedule():
    task = tiny_task()
    program = rp.build("evp_pixel", tiny_source(), task, width=3)
    recipe = Recipe(optimizer="normalised", lr=4.0, epochs=1, batch_size=64, augment="none")
    assert isinstance(make_optimizer(program, recipe), NormalisedGradient)
    both = make_optimizer(program, Recipe(optimizer="normalised", groups=(Group(prefix="input.edits.1", lr=0.5),)))
    assert [g["lr"] for g in both.param_groups] == [0.5]
    before = list(program.input)[1].values.detach().clone()
    fit(program, task, options=FitOptions(recipe=recipe, progress=False))
    assert float((list(program.input)[1].values.detach() - before).norm()) == pytest.approx(4.0, rel=1e-5)
