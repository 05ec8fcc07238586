"""Optimizers that ask for losses: against plain references, analytic gradients, and an engine that must stay honest."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import reprogram as rp
from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError, FitError
from reprogram.core.method import Recipe, Search
from reprogram.core.program import Input, Program
from reprogram.core.source import SourceOutput
from reprogram.fit import CmaEs, FitOptions, OneSided, SpsaGc, fit
from reprogram.fit.engine import _Run
from reprogram.fit.feed import Cached, feed_for
from reprogram.fit.result import START
from reprogram.fit.schedule import factor
from reprogram.fit.zeroth_order_step import Searcher, make_ask_tell
from reprogram.inputs import Additive, Place, SampleMask, full_mask
from reprogram.outputs import FirstClasses, FrequencyMap, Linear
from reprogram.report import evaluate_result
from reprogram.report.facts import choices
from reprogram.report.words import percent
from reprogram.sources import BudgetError, query_only
from reprogram.testing import tiny_source, tiny_task

QUIET = FitOptions(progress=False)
KINDS = {
    "spsa_gc": lambda start, seed=0: SpsaGc(start, lr=0.05, seed=seed),
    "one_sided": lambda start, seed=0: OneSided(start, lr=0.01, seed=seed),
    "cma_es": lambda start, seed=0: CmaEs(start, search=Search(draws=0, radius=0.3), seed=seed),
}


def quadratic(d, seed=0):
    """A convex loss with its gradient, float64."""
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=draw, dtype=torch.float64) / d**0.5
    bend, slope = root @ root.T + torch.eye(d, dtype=torch.float64), torch.randn(d, generator=draw, dtype=torch.float64)

    def loss(w):
        return 0.5 * w @ bend @ w + slope @ w

    return loss, lambda w: bend @ w + slope


def told(found, loss):
    return torch.stack([loss(w) for w in found.ask()])


# -- the estimators --------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(d=st.integers(1, 6), draws=st.integers(1, 4), radius=st.floats(1e-3, 0.5), seed=st.integers(0, 99))
def test_spsa_is_the_elementwise_formula(d, draws, radius, seed):
    loss, _ = quadratic(d, seed)
    w = torch.linspace(-1, 1, d, dtype=torch.float64)
    found = SpsaGc(w, search=Search(draws=draws, radius=radius), seed=seed)
    trials = found.ask()
    slow = torch.zeros(d, dtype=torch.float64)
    for i in range(draws):
        away = trials[i] - w  # c D
        torch.testing.assert_close(trials[draws + i], w - away)
        assert bool(((away / radius).abs() >= 0.5 - 1e-9).all() and ((away / radius).abs() <= 1 + 1e-9).all())
        for j in range(d):
            slow[j] += (loss(w + away) - loss(w - away)) / (2 * away[j]) / draws
    torch.testing.assert_close(found.estimate(told(found, loss)), slow, rtol=1e-6, atol=1e-8)


def test_one_sided_is_the_plain_sum_in_both_scalings():
    loss, _ = quadratic(4)
    w = torch.linspace(-1, 1, 4, dtype=torch.float64)
    for directions, published in (("sphere", 4.0), ("normal", 1.0)):
        for scale in (None, 2.5):
            search = Search(draws=3, radius=0.1, directions=directions, scale=scale)
            found = OneSided(w, search=search, seed=5)
            trials = found.ask()
            torch.testing.assert_close(trials[0], w, rtol=0, atol=0)
            ways = [(t - w) / 0.1 for t in trials[1:]]
            if directions == "sphere":
                assert all(abs(float(u.norm()) - 1) < 1e-12 for u in ways)
            b = published if scale is None else scale
            slow = b / 3 * sum((loss(w + 0.1 * u) - loss(w)) / 0.1 * u for u in ways)
            torch.testing.assert_close(found.estimate(told(found, loss)), slow, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["spsa", "sphere", "normal"])
def test_estimates_are_unbiased_on_a_quadratic(kind):
    """The mean over many draws is the analytic gradient, within five standard errors, at a large radius."""
    d, draws = 5, 20_000
    loss, gradient = quadratic(d, 3)
    w = torch.linspace(-1, 1, d, dtype=torch.float64)
    if kind == "spsa":
        found = SpsaGc(w, search=Search(draws=draws, radius=0.5), seed=1)
    else:
        found = OneSided(w, search=Search(draws=draws, radius=0.5, directions=kind), seed=1)
    bend = torch.autograd.functional.hessian(loss, w)
    trials = found.ask()
    values = 0.5 * ((trials @ bend) * trials).sum(1) + trials @ (gradient(w) - bend @ w)
    estimate, true = found.estimate(values), gradient(w)
    ways = trials[:draws] - w if kind == "spsa" else trials[1:] - w
    spread = float(true.norm()) * d**0.5 + float((bend @ ways.T).norm(dim=0).mean()) * d
    assert float((estimate - true).norm()) < 5 * spread / draws**0.5
    assert float((estimate - true).norm()) < 0.1 * float(true.norm())


def test_a_wrong_scaling_would_be_seen():
    """The unbiasedness test above has teeth: without its d, the sphere's estimate is five times too short."""
    loss, gradient = quadratic(5, 3)
    w = torch.linspace(-1, 1, 5, dtype=torch.float64)
    found = OneSided(w, search=Search(draws=4000, radius=1e-3, scale=1.0), seed=1)
    assert float(found.estimate(told(found, loss)).norm()) < 0.4 * float(gradient(w).norm())


def test_gradient_correction_is_the_published_recursion():
    w, beta, search = torch.zeros(3, dtype=torch.float64), 0.9, Search(draws=2)
    loss, _ = quadratic(3)
    found = SpsaGc(w, lr=0.3, momentum=beta, search=search, seed=2)
    m, mine = torch.zeros(3, dtype=torch.float64), w.clone()
    for k in range(1, 6):
        trials = found.ask()
        c = 0.01 / k**0.1
        assert float((trials[0] - mine).abs().max()) <= c * (1 + 1e-9)
        g = found.estimate(told(found, loss))
        m = g if k == 1 else beta * m + g
        mine = mine - 0.3 / (k + 1.0) ** 0.4 * (g + beta * m)
        found.tell(told(found, loss))
        torch.testing.assert_close(found.values, mine, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_they_find_the_minimum(kind):
    loss, gradient = quadratic(6, 1)
    found = KINDS[kind](torch.ones(6, dtype=torch.float64))
    for _ in range(250):
        found.tell(told(found, loss))
    assert float(gradient(found.values).norm()) < 0.15 * float(gradient(torch.ones(6, dtype=torch.float64)).norm())
    torch.testing.assert_close(float(found.weights.sum()), 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_taken_up_again_they_go_on_with_the_same_bits(kind):
    loss, _ = quadratic(6, 1)
    whole, first = KINDS[kind](torch.ones(6), 7), KINDS[kind](torch.ones(6), 7)

    def step(found):
        assert torch.equal(found.ask(), found.ask())  # asked twice, it says the same
        found.tell(told(found, lambda w: loss(w.double())))

    for _ in range(4):
        step(whole)
        step(first)
    saved = {k: v.clone() for k, v in first.state_dict().items()}
    again = KINDS[kind](torch.zeros(6), 7)
    again.load_state_dict(saved)
    for _ in range(4):
        step(whole)
        step(again)
    assert torch.equal(whole.values, again.values)
    other = KINDS[kind](torch.ones(6), 8)
    assert not torch.equal(other.ask()[1], KINDS[kind](torch.ones(6), 7).ask()[1])
    with pytest.raises(ArtifactError):
        again.load_state_dict({"values": torch.zeros(5)})


def test_cma_leaves_numpys_state_alone_and_does_not_read_it():
    runs = []
    for seed in (0, 1):
        np.random.seed(seed)
        before = np.random.get_state()[1].copy()
        found = CmaEs(torch.zeros(300), search=Search(draws=0, radius=0.1, separable_above=50))
        for _ in range(8):  # beyond the fourth step pycma draws from numpy's own state
            found.tell(found.ask().square().sum(1))
        assert (np.random.get_state()[1] == before).all()
        runs.append(found.values)
    assert torch.equal(*runs)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_losses_are_refused(kind):
    found = KINDS[kind](torch.ones(4))
    before = found.values.clone()
    with pytest.raises(FitError, match="finite"):
        found.tell(torch.full((len(found.weights),), float("nan")))
    with pytest.raises(ConfigError, match="losses"):
        found.tell(torch.zeros(1))
    assert torch.equal(found.values, before)


def test_polynomial_rates_are_bars():
    """lr(t) = (lr0 - lr1) (1 - t / 0.9 T)^0.9 + lr1."""
    recipe = Recipe(schedule="polynomial", lr=5.0, end_lr=0.05, epochs=4)
    for step in range(40):
        left = max(0.0, 1 - step / (0.9 * 40))
        assert math.isclose(5.0 * factor(recipe, step, 10), 4.95 * left**0.9 + 0.05, rel_tol=1e-12)


@pytest.mark.parametrize(
    "bad",
    [{"weight_decay": 0.1}, {"clip_norm": 1.0}, {"queries": 0}, {"search": {"radius": 0.0}}, {"search": {"draws": -1}}],
)
def test_recipes_that_make_no_sense(bad):
    with pytest.raises(ConfigError):
        made = {k: Search(**v) if k == "search" else v for k, v in bad.items()}
        Recipe(optimizer="spsa_gc", **made)
    with pytest.raises(ConfigError, match="draws"):
        make_ask_tell(torch.zeros(3), Recipe(optimizer="one_sided", search=Search(draws=0)), 0)


# -- the engine ------------------------------------------------------------------------------------------------------


def frame(source, output=None, mask=None):
    return Program([Place(16, 16), Additive(full_mask(16) if mask is None else mask)], source,
                   output or FirstClasses(12, 3))  # fmt: skip


def recipe(optimizer="spsa_gc", **more):
    return Recipe(optimizer=optimizer, **{"lr": 0.02, "momentum": 0.5, "epochs": 2, "batch_size": 8, **more})


class Forbidding:
    """A source that raises when autograd would be used, and notes what it is asked."""

    def __init__(self, inner):
        self._inner, self.asked, self.refuse = inner, [], False

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __call__(self, x, input, reading=None):
        assert not torch.is_grad_enabled(), "a black-box method must not build a graph"
        assert not torch.is_autocast_enabled("cpu")
        self.asked.append(len(x))
        said = self._inner(x, input) if reading is None else self._inner(x, input, reading)
        assert not said.logits.requires_grad and said.logits.dtype is torch.float32
        return said


@pytest.mark.parametrize("optimizer", ["spsa_gc", "one_sided", "cma_es"])
def test_no_gradient_is_taken_and_queries_are_counted_to_the_input(optimizer):
    source, task = Forbidding(tiny_source()), tiny_task()
    program = frame(source)
    result = fit(program, task, options=replace(QUIET, recipe=recipe(optimizer, search=Search(draws=4))))
    trials = {"spsa_gc": 8, "one_sided": 5, "cma_es": 4}[optimizer]
    n, v = len(task.train), len(task.val)
    assert result.queries is not None
    assert result.queries.training == 2 * n * trials
    assert result.queries.validation == 4 * v  # the start, two epochs and the result
    tested = len(task.test) * (1 if torch.equal(result.test.scores, result.last_test.scores) and result.test is
                               result.last_test else 2)  # fmt: skip
    assert sum(source.asked) == result.queries.training + result.queries.validation + tested
    assert all(p.grad is None for p in program.parameters())
    assert result.card()["training_queries"] == result.queries.training
    assert result.history[-1]["queries"] == result.queries.training


def test_trials_of_a_step_are_stacked_and_the_place_is_made_once(monkeypatch):
    source, task = Forbidding(tiny_source()), tiny_task()
    program = frame(source)
    placed = []
    original = Place.forward
    monkeypatch.setattr(Place, "forward", lambda self, x: (placed.append(len(x)), original(self, x))[1])
    made = recipe(search=Search(draws=5, chunk=40))
    searcher = Searcher(program, made, QUIET, 0, feed_for(program))
    searcher.step(task.train, torch.arange(8), seed=0, observe=None, factor=1.0)
    assert source.asked == [40, 40] and placed == [8]
    big = Searcher(program, replace(made, search=Search(draws=5, chunk=5)), QUIET, 0, feed_for(program))
    source.asked.clear()
    big.step(task.train, torch.arange(8), seed=0, observe=None, factor=1.0)
    assert source.asked == [5, 3] * 10


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("site", ["input", "normalised"])
def test_a_step_equals_a_plain_loop(site, chunk):
    """Trial by trial, with the program itself and its parameters set by hand."""
    task = tiny_task()
    program = Program([Place(16, 16), Additive(full_mask(16), site=site)], tiny_source(), FirstClasses(12, 3))
    made = recipe(search=Search(draws=3, chunk=chunk, radius=0.05))
    searcher = Searcher(program, made, QUIET, 0, feed_for(program))
    rows, values = torch.arange(8), program.input.edits[1].values
    losses = []
    with torch.no_grad():
        for trial in searcher.optimizer.ask():
            values.copy_(trial.view_as(values))
            losses.append(F.cross_entropy(program(task.train.fetch(rows)).double(), task.train.labels[rows]))
    reference = make_ask_tell(torch.zeros(values.numel()), made, 0)
    reference.load_state_dict(searcher.optimizer.state_dict())
    reference._seed = searcher.optimizer._seed
    reference.tell(torch.stack(losses))
    found = searcher.step(task.train, rows, seed=0, observe=None, factor=1.0)
    torch.testing.assert_close(searcher.optimizer.values, reference.values, rtol=1e-3, atol=2e-5)
    torch.testing.assert_close(found.loss, float(torch.stack(losses).mean()))
    assert torch.equal(values.flatten(), searcher.optimizer.values)


def test_trials_do_not_move_batch_norm_but_the_present_values_do():
    task, source = tiny_task(), tiny_source()
    program = Program([Place(16, 16), SampleMask(16, patch=4, site="input")], source, FirstClasses(12, 3)).train()
    twin = Program([Place(16, 16), SampleMask(16, patch=4, site="input")], source, FirstClasses(12, 3)).train()
    twin.load_state_dict(program.state_dict())
    searcher = Searcher(program, recipe(search=Search(draws=3, radius=1.0)), QUIET, 0, feed_for(program))
    searcher.step(task.train, torch.arange(8), seed=0, observe=None, factor=1.0)
    with torch.no_grad():
        twin.input(task.train.fetch(torch.arange(8)).float() / 255)  # once, at the values before the step
    for (name, mine), theirs in zip(program.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, msg=name)


def test_a_label_map_needs_no_queries_of_its_own():
    """It observes what the trials saw: with "one_sided", exactly the outputs at the present values."""
    source, task = Forbidding(tiny_source()), tiny_task()
    program = frame(source, FrequencyMap(12, 3))
    made = recipe("one_sided", search=Search(draws=2), refresh="stream")
    searcher, seen = Searcher(program, made, QUIET, 0, feed_for(program)), []
    with torch.no_grad():
        plain = program.outputs(task.train.fetch(torch.arange(8))).logits
    source.asked.clear()
    searcher.step(task.train, torch.arange(8), seed=0, observe=lambda out, y: seen.append((out, y)), factor=1.0)
    assert sum(source.asked) == 3 * 8
    torch.testing.assert_close(seen[0][0].logits, plain)
    assert torch.equal(seen[0][1], task.train.labels[:8])
    pairs = Searcher(program, recipe(search=Search(radius=1e-3)), QUIET, 0, feed_for(program))
    with torch.no_grad():
        plain = program.outputs(task.train.fetch(torch.arange(8))).logits
    pairs.step(task.train, torch.arange(8), seed=0, observe=lambda out, y: seen.append((out, y)), factor=1.0)
    torch.testing.assert_close(seen[1][0].logits, plain, atol=1e-3, rtol=0)


def test_an_exact_map_is_paid_for():
    task = tiny_task()
    program = frame(tiny_source(), FrequencyMap(12, 3))
    made = recipe(refresh="exact", search=Search(draws=1))
    assert fit(program, task, options=replace(QUIET, recipe=made)).queries.training == 2 * len(task.train) * (1 + 2)


def test_what_learns_in_the_output_only_asks_the_source_once():
    task, source = tiny_task(), Forbidding(tiny_source())
    program = Program([Place(16, 16)], source, Linear(12, 3))
    assert isinstance(feed_for(program), Cached)
    made = recipe("cma_es", search=Search(draws=6, radius=0.3), epochs=6)
    result = fit(program, task, options=replace(QUIET, recipe=made))
    assert result.queries.training == len(task.train) and result.queries.validation == len(task.val)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@pytest.mark.parametrize("optimizer", ["spsa_gc", "one_sided", "cma_es"])
def test_learning_works(optimizer):
    task = tiny_task()
    lr = {"spsa_gc": 0.05, "one_sided": 0.01, "cma_es": 1.0}[optimizer]
    search = Search(draws=16, radius=0.02)
    program = Program([Place(16, 16), Additive(full_mask(16)[:16], channels=3)], tiny_source(), FirstClasses(12, 3))
    before = rp.evaluate(program, task.train).loss
    fit(program, task, options=replace(QUIET, recipe=recipe(optimizer, lr=lr, epochs=5, search=search)))
    assert rp.evaluate(program, task.train).loss < before


def test_a_search_that_leads_nowhere_keeps_its_start(tmp_path):
    task = tiny_task(per_class=40)
    program = rp.build("vp_spsa", tiny_source(), task, width=8, mapping="frequency", lr=1e4, refresh="once", epochs=2)
    start = {k: v.clone() for k, v in program.state_dict().items() if "output" not in k}
    out = tmp_path / "p.safetensors"
    result = fit(program, task, out=out, options=QUIET)
    assert result.best_epoch == START == -1
    assert all(row["val_accuracy"] < result.validation.accuracy and not row["best"] for row in result.history)
    assert all(torch.equal(v, start[k]) for k, v in program.state_dict().items() if k in start)
    assert result.card()["best_epoch"] == 0
    chosen = choices(result, has_validation=True)[0]
    assert (chosen.epoch, chosen.validation) == ("start", percent(result.validation.accuracy))
    again = evaluate_result(rp.load(out, tiny_source()), task, out)
    assert again.best_epoch == START and again.validation.accuracy == result.validation.accuracy


# -- budgets ---------------------------------------------------------------------------------------------------------


def test_a_spent_budget_ends_cleanly_with_the_best_state(tmp_path):
    task, source = tiny_task(), tiny_source()
    program = rp.build("vp_spsa", source, task, width=3, epochs=50, batch_size=8, queries=1000)
    result = fit(program, task, out=tmp_path / "p.safetensors", options=QUIET)
    assert 1000 - 80 < result.queries.training <= 1000
    assert len(result.history) < 50 and result.test is not None
    best = max(row["val_accuracy"] for row in result.history)
    assert result.validation.accuracy == best
    lines = (tmp_path / "p.run" / "events.jsonl").read_text().splitlines()
    notes = [e["text"] for e in map(json.loads, lines) if e["event"] == "note"]
    assert len(notes) == 1 and "queries are spent" in notes[0]
    stored = rp.load(tmp_path / "p.safetensors", source)
    x = task.test.fetch(torch.arange(4))
    assert torch.equal(stored.predict(x).scores, program.predict(x).scores)


def test_a_budget_below_one_step_still_gives_a_program():
    program = frame(tiny_source())
    start = program.input.edits[1].values.clone()
    result = fit(program, tiny_task(), options=replace(QUIET, recipe=recipe(queries=3)))
    assert result.queries.training == 0 and torch.equal(program.input.edits[1].values, start)
    assert len(result.history) == 1 and "loss" not in result.history[0]


def test_a_map_of_a_budget_below_the_split_counts_what_it_may():
    task = tiny_task(per_class=40)
    program = frame(tiny_source(), FrequencyMap(12, 3))
    made = recipe(refresh="once", queries=40)
    assert fit(program, task, options=replace(QUIET, recipe=made)).queries.training == 32


def test_the_sources_own_budget_ends_a_step_in_the_middle_and_keeps_the_best():
    task = tiny_task()
    cost = len(task.train) * 10 + len(task.val)
    source = query_only(tiny_source(), budget=cost + 3)  # breaks off in the first step of the second epoch
    program = rp.build("vp_spsa", source, task, width=3, epochs=5, batch_size=8)
    result = fit(program, task, options=QUIET)
    assert len(result.history) == 2 and result.best_epoch == 0
    assert result.test is None and result.validation is None
    assert "val_accuracy" in result.history[0] and "val_accuracy" not in result.history[1]
    assert source.queries <= cost + 3
    again = query_only(tiny_source())
    twin = rp.build("vp_spsa", again, task, width=3, epochs=1, batch_size=8)
    fit(twin, task, options=QUIET)
    assert torch.equal(program.input.edits[1].values, twin.input.edits[1].values)  # the state after the first epoch


def test_a_map_alone_says_that_its_budget_is_too_small():
    with pytest.raises(BudgetError):
        fit(Program([Place(16, 16)], query_only(tiny_source(seed=41), budget=5), FrequencyMap(12, 3)), tiny_task(),
            options=QUIET)  # fmt: skip


# -- resumption ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["vp_spsa", "bar", "blackvip"])
@pytest.mark.parametrize("optimizer", [None, "cma_es"])
def test_resumed_equals_uninterrupted_bit_for_bit(method, optimizer, tmp_path, monkeypatch):
    task = tiny_task()
    more = {"optimizer": optimizer, "search": {"draws": 4, "radius": 0.1}} if optimizer else {}
    more |= {"vp_spsa": {"width": 3}, "bar": {"inner": 8}, "blackvip": {"se": True, "components": 5}}[method]
    options = FitOptions(progress=False, checkpoint_seconds=0.0)

    def made():
        return rp.build(method, tiny_source(), task, epochs=3, batch_size=8, augment="crop", **more)

    whole = made()
    reference = fit(whole, task, seed=3, out=tmp_path / "a.safetensors", options=options)
    steps, original = [], _Run._step

    def breaking(run, index):
        if len(steps) == 7:
            raise KeyboardInterrupt
        steps.append(1)
        original(run, index)

    monkeypatch.setattr(_Run, "_step", breaking)
    with pytest.raises(KeyboardInterrupt):
        fit(made(), task, seed=3, out=tmp_path / "b.safetensors", options=options)
    monkeypatch.setattr(_Run, "_step", original)
    broken = made()
    resumed = fit(broken, task, seed=3, out=tmp_path / "b.safetensors", resume=True, options=options)
    mine, theirs = whole.state_dict(), broken.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert reference.queries == resumed.queries
    assert torch.equal(reference.last_test.scores, resumed.last_test.scores)


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"compile": True}])
def test_autocast_and_compilation_are_refused(options):
    made = replace(QUIET, recipe=recipe(), **options)
    with pytest.raises(ConfigError, match="fp32"):
        fit(frame(tiny_source()), tiny_task(), options=made)


def test_autocast_around_the_fit_has_no_effect():
    task = tiny_task()
    runs = []
    for cast in (False, True):
        program = frame(Forbidding(tiny_source()))  # which checks for autocast and for float32
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            searcher = Searcher(program, recipe(), QUIET, 0, feed_for(program))
            searcher.step(task.train, torch.arange(8), seed=0, observe=None, factor=1.0)
        runs.append(program.input.edits[1].values.clone())
    assert torch.equal(*runs)


def test_gradients_of_a_black_box_are_refused_at_fit_and_at_build():
    task, box = tiny_task(), query_only(tiny_source())
    program = rp.build("vp_spsa", box, task, width=3)
    with pytest.raises(CapabilityError, match="gradients"):
        fit(program, task, options=replace(QUIET, recipe=Recipe(epochs=1)))
    with pytest.raises(CapabilityError, match="gradients"):
        frame(box)
    with pytest.raises(ConfigError, match="gradients"):
        rp.find_rate(rp.build("vp_spsa", tiny_source(), task, width=3), task)


def test_a_loss_that_is_not_finite_stops_with_a_typed_error():
    class Broken(Forbidding):
        def __call__(self, x, input, reading=None):
            said = super().__call__(x, input)
            return SourceOutput(scores=said.logits * (float("nan") if len(self.asked) > 3 else 1.0))

    with pytest.raises(FitError, match="finite"):
        fit(frame(Broken(tiny_source())), tiny_task(), options=replace(QUIET, recipe=recipe()))


def test_the_input_is_shared_with_the_program():
    """The engine's parts of I are the program's own edits, not copies."""
    program = frame(tiny_source())
    searcher = Searcher(program, recipe(), QUIET, 0, feed_for(program))
    assert isinstance(searcher._moved, Input) and searcher._moved.edits[0] is program.input.edits[1]
