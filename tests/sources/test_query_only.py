"""A black box gives scores and nothing else, counts, and stops at its budget."""

import threading

import pytest
import torch
import torch.nn.functional as F

import reprogram as rp
from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.program import Input, Program
from reprogram.core.source import Reading, Source, local_module
from reprogram.fit import FitOptions
from reprogram.inputs import Additive, Place, full_mask
from reprogram.outputs import FirstClasses, Linear
from reprogram.sources import BudgetError
from reprogram.testing import tiny_source, tiny_task

X = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_it_is_a_source_with_the_same_logits():
    inner = tiny_source()
    box = rp.query_only(inner)
    assert isinstance(box, Source)
    with torch.no_grad():
        assert torch.equal(box(X, Input()).logits, inner(X, Input()).logits)
        pixels = (X * 255).to(torch.uint8)
        assert torch.equal(box(pixels, Input()).logits, inner(pixels, Input()).logits)
    assert box.fingerprint() == inner.fingerprint() and box.spec.ref == inner.spec.ref


def test_gradients_are_really_unavailable():
    box = rp.query_only(tiny_source())
    edit = Additive(full_mask(16))
    said = box(X, Input(edit)).logits
    assert not said.requires_grad and not said.is_inference()
    x = X.clone().requires_grad_()
    with pytest.raises(RuntimeError):
        box(x, Input()).logits.sum().backward()
    assert x.grad is None and edit.values.grad is None
    assert local_module(box) is None and not hasattr(box, "module")
    assert not box.capabilities and set(box.sites) == {"input"}
    assert not any(isinstance(v, torch.nn.Module) for v in vars(box).values())


def test_what_is_more_than_scores_is_refused():
    box = rp.query_only(tiny_source())
    for sites, reading in ((["hidden.0"], Reading()), (["normalised"], Reading()), ([], Reading(features=True)),
                           ([], Reading(sites=("hidden.1",)))):  # fmt: skip
        with pytest.raises(CapabilityError):
            box.attach(sites, reading)
    with pytest.raises(CapabilityError):
        Program([Additive(full_mask(16), site="normalised")], box, FirstClasses(12, 3))
    with pytest.raises(CapabilityError):
        rp.build("vp", box, tiny_task())


def test_edits_at_the_input_act_on_this_side():
    inner, edit = tiny_source(), Additive(full_mask(16), init="normal")
    with torch.no_grad():
        mine = rp.query_only(inner)(X, Input(edit), Reading(sites=("input",)))
        assert torch.equal(mine.logits, inner(X, Input(edit)).logits)
        assert torch.equal(mine.at["input"], X + edit.pattern())


def test_what_each_kind_of_answer_gives_away():
    inner = tiny_source()
    with torch.no_grad():
        chances = inner(X, Input()).logits.softmax(1)
    torch.testing.assert_close(rp.query_only(inner, "probabilities")(X, Input()).logits.softmax(1), chances)
    label = rp.query_only(inner, "label")(X, Input()).logits
    assert torch.equal(label, F.one_hot(chances.argmax(1), 12).float())
    top = rp.query_only(inner, "top-k", k=3)(X, Input()).logits.softmax(1)
    for row, given in zip(chances, top, strict=True):
        best = row.topk(3)
        torch.testing.assert_close(given[best.indices], best.values)
        others = given[[i for i in range(12) if i not in best.indices.tolist()]]
        torch.testing.assert_close(others, ((1 - best.values.sum()) / 9).expand(9))
    whole = rp.query_only(inner, "top-k", k=100)(X, Input()).logits.softmax(1)
    torch.testing.assert_close(whole, chances)


def test_other_answers_are_other_sources():
    """Else outputs that are kept by fingerprint would leak from one to the other."""
    inner = tiny_source()
    prints = [rp.query_only(inner, g, k=k).fingerprint() for g, k in
              (("logits", 5), ("probabilities", 5), ("label", 5), ("top-k", 3), ("top-k", 4))]  # fmt: skip
    assert len(set(prints)) == 5
    assert rp.query_only(inner, "label").spec.ref.endswith("@label")


def test_queries_are_counted_and_the_budget_holds():
    box = rp.query_only(tiny_source(), budget=13)
    box(X, Input())
    box(X, Input())
    assert box.queries == 12
    with pytest.raises(BudgetError, match="13 inputs"):
        box(X, Input())
    assert box.queries == 12
    box(X[:1], Input())
    assert box.queries == 13


def test_counting_holds_over_threads():
    box = rp.query_only(tiny_source(), budget=60)
    refused = []

    def ask():
        for _ in range(10):
            try:
                box(X[:2], Input())
            except BudgetError:
                refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert box.queries == 60 and len(refused) == 10


def test_a_linear_head_still_learns_by_gradients():
    """It needs none of the source's."""
    box, task = rp.query_only(tiny_source(seed=3)), tiny_task()
    program = Program([Place(16, 16)], box, Linear(12, 3))
    result = rp.fit(program, task, options=FitOptions(progress=False, recipe=rp.Recipe(lr=0.1, epochs=5)))
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_a_program_fitted_on_the_box_runs_on_the_source_inside(tmp_path):
    inner, task = tiny_source(), tiny_task()
    program = rp.build("vp_spsa", rp.query_only(inner), task, width=3, epochs=1, batch_size=8)
    rp.fit(program, task, out=tmp_path / "p.safetensors", options=FitOptions(progress=False))
    x = task.test.fetch(torch.arange(4))
    assert torch.equal(rp.load(tmp_path / "p.safetensors", inner).predict(x).scores, program.predict(x).scores)
    with pytest.raises(rp.FingerprintError):
        rp.load(tmp_path / "p.safetensors", rp.query_only(inner, "label"))


@pytest.mark.parametrize("bad", [{"k": 0}, {"budget": 0}])
def test_settings_are_checked(bad):
    with pytest.raises(ConfigError):
        rp.query_only(tiny_source(), **bad)
