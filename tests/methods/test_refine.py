"""REFINE: the published network's size, the derangement, the losses, and that labels are not looked at."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import reprogram as rp
from reprogram.core.errors import ConfigError, FitError
from reprogram.core.program import Input
from reprogram.core.source import SourceOutput
from reprogram.fit import FitOptions, fit
from reprogram.inputs import Redraw, UNet
from reprogram.outputs import Deranged, derangement, supervised_contrast
from reprogram.outputs.deranged import each_class_entropy
from reprogram.tasks import Split
from reprogram.testing import tiny_source, tiny_task

SMALL = {"channels": 4, "epochs": 2, "batch_size": 12, "lr": 0.01, "optimizer": "adam"}


def numbers(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("width", "published"), [(64, 17_267_523), (32, 4_320_675)])
def test_the_network_has_the_published_size(width, published):
    assert numbers(UNet(3, width)) == published
    assert numbers(Redraw(3, width)) - Redraw(3, width).effective() == 69 * width


@pytest.mark.parametrize("size", [16, 28, 32, 37])
def test_pictures_keep_their_shape_and_stay_pictures(size):
    torch.manual_seed(0)
    edit = Redraw(3, 4)
    with torch.no_grad():
        edit.network.last.weight.mul_(50)
    out = edit(torch.rand(2, 3, size, size + 3)).detach()
    assert out.shape == (2, 3, size, size + 3)
    assert float(out.min()) == 0.0
    assert float(out.max()) == 1.0
    with pytest.raises(ConfigError, match="2 pixels"):
        edit(torch.rand(1, 3, 1, 8))


def test_biases_before_batch_norm_reach_nothing():
    torch.manual_seed(0)
    edit, x = Redraw(3, 4).double(), torch.rand(3, 3, 32, 32, dtype=torch.float64)
    before = edit.network(x)
    with torch.no_grad():
        for module in edit.network.modules():
            if isinstance(module, torch.nn.Conv2d) and module is not edit.network.last:
                module.bias.add_(1.0)
    assert torch.allclose(edit.network(x), before, atol=1e-9)


def test_a_new_network_lets_gradients_through_the_clamp():
    torch.manual_seed(0)
    edit, x = Redraw(3, 8), torch.rand(4, 3, 32, 32)

    def open_share():
        drawn = edit(x)
        return float(((drawn > 0) & (drawn < 1)).float().mean())

    share = open_share()
    torch.nn.init.zeros_(edit.network.last.bias)  # as published
    assert share > 0.75
    assert open_share() < share - 0.15


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000))
def test_no_class_stays_in_its_place(n, seed):
    drawn = derangement(n, seed)
    assert drawn.sort().values.tolist() == list(range(n))
    assert not bool((drawn == torch.arange(n)).any())
    assert torch.equal(drawn, derangement(n, seed))


def test_derangements_are_drawn_evenly():
    seen = [tuple(derangement(3, seed).tolist()) for seed in range(400)]
    assert set(seen) == {(1, 2, 0), (2, 0, 1)}
    assert 150 < seen.count((1, 2, 0)) < 250
    with pytest.raises(ConfigError, match="2 or more"):
        derangement(1, 0)


def slow_contrast(features, labels, temperature):
    """Khosla et al.'s formula on two equal views, pair by pair."""
    views = torch.cat([F.normalize(features, dim=1)] * 2)
    own = torch.cat([labels, labels])
    total = 0.0
    for i in range(len(views)):
        others = [j for j in range(len(views)) if j != i]
        scores = torch.stack([views[i] @ views[j] / temperature for j in others])
        log_share = scores - scores.logsumexp(0)
        mine = torch.tensor([bool(own[j] == own[i]) for j in others])
        total += -float(log_share[mine].mean())
    return total / len(views)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_contrast_is_the_published_one_on_two_equal_views(temperature):
    torch.manual_seed(0)
    features, labels = torch.randn(7, 5, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1, 0, 3])
    found = supervised_contrast(features, labels, temperature)
    assert float(found) == pytest.approx(slow_contrast(features, labels, temperature), rel=1e-9)


def test_the_entropy_is_that_of_probabilities_but_keeps_its_gradient():
    torch.manual_seed(0)
    scores, truth = torch.randn(6, 5, dtype=torch.float64) * 3, torch.tensor([0, 1, 2, 3, 4, 0])
    plain = F.binary_cross_entropy(scores.softmax(1), F.one_hot(truth, 5).double())
    assert float(each_class_entropy(scores, truth)) == pytest.approx(float(plain), rel=1e-9)
    sure = torch.tensor([[400.0, 0.0, 0.0]], requires_grad=True)  # and wrong: float32 probabilities are 1, 0, 0
    wrong = torch.tensor([1])
    each_class_entropy(sure, wrong).backward()
    assert sure.grad[0, 0] > 0.5
    assert sure.grad[0, 1] < -0.2
    other = sure.detach().requires_grad_()
    F.binary_cross_entropy(other.softmax(1), F.one_hot(wrong, 3).float()).backward()
    assert float(other.grad.abs().max()) < 0.5  # what the plain form loses


def test_scores_are_permuted_and_fold():
    output = Deranged(4, 4, seed=3)
    scores = torch.randn(5, 4)
    assert torch.equal(output(SourceOutput(scores)), scores[:, output.order])
    assert torch.allclose(scores @ output.fold() + output.offset(), output(SourceOutput(scores)))
    assert not bool((output.order == torch.arange(4)).any())
    with pytest.raises(ConfigError, match="must be the source's 4 classes"):
        Deranged(4, 3)
    with pytest.raises(FitError, match="plain scores"):
        output.loss(SourceOutput(scores), scores, torch.zeros(5, dtype=torch.int64))


def test_the_loss_is_put_together_from_what_the_source_says_of_plain_pictures():
    task, source = tiny_task(), tiny_source(classes=3)
    program = rp.build("refine", source, task, channels=4)
    x = task.train.fetch(torch.arange(6))
    program.train()
    said = program.outputs(x)
    with torch.no_grad():
        plain = source(next(iter(program.input))(x.float() / 255), Input()).logits.argmax(1)
    scores = program.output(said)
    found = program.output.loss(said, scores, torch.full((6,), 2)).detach()
    scores, redrawn = scores.detach(), said.at["input"].detach()
    assert bool((redrawn >= 0).all())
    expected = F.binary_cross_entropy(scores.softmax(1), F.one_hot(plain, 3).float())
    expected = expected + 0.1 * supervised_contrast(redrawn.flatten(1), plain)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_training_never_looks_at_labels():
    task = tiny_task()
    other = Split("train", task.train.fetch(torch.arange(len(task.train))), (task.train.labels + 1) % 3, classes=3)
    states = []
    for split in (task.train, other):
        given = replace(task, splits={**task.splits, "train": split, "val": task.val.subset(torch.arange(0))})
        program = rp.build("refine", tiny_source(classes=3), given, seed=0, **SMALL)
        fit(program, given, options=FitOptions(progress=False))
        states.append(program.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_the_permutation_has_a_seed_of_its_own_and_survives_a_file(tmp_path):
    task = tiny_task(classes=6)
    source = tiny_source(classes=6)
    one, same = (rp.build("refine", source, task, channels=4, permutation=1, seed=s) for s in (0, 1))
    assert torch.equal(one.output.order, same.output.order)
    rp.save(one, tmp_path / "p.safetensors")
    again = rp.load(tmp_path / "p.safetensors", source)
    assert torch.equal(again.output.order, one.output.order)
    orders = {tuple(Deranged(6, 6, seed=s).order.tolist()) for s in range(8)}
    assert len(orders) > 4


def test_the_clean_pass_is_made_once(monkeypatch):
    from reprogram.core.program import Program

    asked = []
    plain = Program.plain
    monkeypatch.setattr(Program, "plain", lambda self, x: asked.append(len(x)) or plain(self, x))
    task = tiny_task()
    program = rp.build("refine", tiny_source(classes=3, seed=5), task, **(SMALL | {"epochs": 3}))
    fit(program, task, options=FitOptions(progress=False))
    assert sum(asked) <= len(task.train) + len(task.val) + len(task.test)
