"""Searches on a tiny source: ranked by validation, never shown test, resumed after a kill, failures passed over."""

import copy
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import reprogram as rp
from reprogram.catalogue import find
from reprogram.core.errors import BusyError, ConfigError, DataError, FitError, MissingExtraError
from reprogram.fit import evaluate, fit
from reprogram.fit.workspace import Workspace
from reprogram.search import SearchOptions, search
from reprogram.search import search as room_function
from reprogram.search import study as door
from reprogram.testing import tiny_source, tiny_task
from tests.methods.text_tasks import suiting

pytest.importorskip("optuna")
module = sys.modules["reprogram.search.search"]

FAST = {"recipe.epochs": 2, "recipe.batch_size": 16, "width": 3, "recipe.warmup_steps": 0, "recipe.optimizer": "adam"}
RATES = {"recipe.lr": "1e-3:1e-1:log"}


def options(**more):
    return SearchOptions(**{"space": RATES, "pinned": FAST, "trials": 4, "pruner": "none", "preset": "paper", **more})


def test_the_winner_has_the_best_validation_and_test_is_scored_once(monkeypatch):
    seen, scored = [], []

    def watched(program, task, **more):
        seen.append(len(task.test))
        return fit(program, task, **more)

    def scoring(program, split, **more):
        scored.append(split.name)
        return evaluate(program, split, **more)

    monkeypatch.setattr(module, "fit", watched)
    monkeypatch.setattr(module, "evaluate", scoring)
    task = tiny_task(per_class=24)
    found = rp.search("vp", tiny_source(), task, options(trials=5))
    assert rp.search is room_function
    assert seen == [0] * 5  # no trial is given a test split to look at
    assert sorted(scored) == ["test", "val"]
    complete = [t for t in found.trials if t.state == "complete"]
    assert len(complete) == 5
    assert found.best.accuracy == max(t.accuracy for t in complete)
    assert [t.order for t in complete] == sorted(t.order for t in complete)
    assert found.validation.accuracy == found.best.accuracy
    assert found.test is not None
    assert len(found.test) == len(task.test)
    again = rp.build("vp", tiny_source(), task, seed=0, **{**FAST, **found.best.settings})
    assert fit(again, task, options=rp.FitOptions(progress=False)).validation.accuracy == found.best.accuracy


def test_it_is_ranked_by_validation_even_where_test_says_otherwise():
    """Test labels are turned round: whatever is best on validation is worst there, and must win still."""
    task = tiny_task(per_class=24)
    turned = copy.copy(task.test)
    turned.labels = (task.test.labels + 1) % 3
    plain = search("vp", tiny_source(), task, options())
    fooled = search("vp", tiny_source(), replace(task, splits={**task.splits, "test": turned}), options())
    assert fooled.best.settings == plain.best.settings
    assert fooled.test is not None
    assert plain.test is not None
    assert torch.equal(fooled.test.scores, plain.test.scores)


def test_files_and_a_second_run_that_only_adds(tmp_path):
    out, source, task = tmp_path / "best.safetensors", tiny_source(), tiny_task()
    heard = []
    first = search("vp", source, task, options(out=out, trials=3))
    assert out.exists()
    assert rp.load(out, source).predict(task.test.fetch(torch.arange(4))).scores.isfinite().all()
    kept = list((tmp_path / "best.run").glob("trial-*.safetensors"))
    assert len(kept) == 1
    second = search("vp", source, task, options(out=out, trials=5, heard=lambda *a: heard.append(a)))
    assert [(t.number, done, of) for t, done, of in heard] == [(3, 4, 5), (4, 5, 5)]
    assert {t.number: t.settings for t in first.trials}.items() <= {t.number: t.settings for t in second.trials}.items()
    rates = [t.settings["recipe.lr"] for t in second.trials]
    assert len(set(rates)) == 5  # a run that goes on does not draw the first run's trials again
    other = search("vp", source, task, options(out=out, trials=1, space={"recipe.lr": "1e-2:1e-1:log"}))
    assert [t.number for t in other.trials] == [0]  # another search in the same storage


def test_the_winner_of_an_earlier_run_is_loaded_or_made_again(tmp_path):
    out, source, task = tmp_path / "best.safetensors", tiny_source(), tiny_task()
    first = search("vp", source, task, options(out=out))
    second = search("vp", source, task, options(out=out))
    for path in (tmp_path / "best.run").glob("trial-*.safetensors"):
        path.unlink()
    third = search("vp", source, task, options(out=out))
    for found in (second, third):
        assert found.best == first.best
        assert found.test is not None
        assert first.test is not None
        assert torch.equal(found.test.scores, first.test.scores)


def test_sources_are_searched_too():
    good, bad = tiny_source(seed=0), tiny_source(seed=1)
    bad.spec = replace(bad.spec, ref="module:Other")
    found = search("vp", [good, bad], tiny_task(), options(trials=6, pinned=FAST | {"recipe.lr": 0.02}, space={}))
    assert found.space["source"] == "module:TinyNet,module:Other"
    assert {t.source for t in found.trials} == {"module:TinyNet", "module:Other"}
    assert found.program.source.spec.ref == found.best.source
    with pytest.raises(ConfigError, match="each once"):
        search("vp", [good, good], tiny_task(), options())


def test_the_same_settings_are_not_fitted_twice_and_an_exhausted_space_ends(monkeypatch):
    runs = []
    monkeypatch.setattr(module, "fit", lambda *a, **k: (runs.append(1), fit(*a, **k))[1])
    space = {"prompt": "frame,fixed_patch"}
    found = search("vp", tiny_source(), tiny_task(), options(trials=40, space=space, pinned=FAST | {"lr": 0.02}))
    assert len(runs) == 2
    assert len(found.trials) < 40
    twins = [t for t in found.trials if t.same_as is not None]
    by_number = {t.number: t for t in found.trials}
    assert all(by_number[t.same_as].accuracy == t.accuracy for t in twins)
    assert found.best.same_as is None


def test_failures_are_recorded_and_passed_over():
    found = search("autovp", tiny_source(), tiny_task(), SearchOptions(
        trials=8, space={"per_class": "1,5", "output": "freq,iter"}, pruner="none", preset="paper",
        pinned={"recipe.epochs": 1, "canvas": 16, "scale": 1.0, "learn_scale": True, "recipe.lr": 0.02}))  # fmt: skip
    failed = [t for t in found.trials if t.state == "failed"]
    assert failed
    assert all(t.settings["per_class"] == 5 and "per_class * targets" in t.reason for t in failed)
    assert found.best.settings["per_class"] == 1
    with pytest.raises(FitError, match=r"None of \d trials.*per_class"):
        search("autovp", tiny_source(), tiny_task(), options(
            trials=3, space={}, pinned={"per_class": 5, "output": "freq", "canvas": 16}))  # fmt: skip


def test_pruning_ends_trials_that_fall_behind(monkeypatch):
    """Made-up fits whose accuracy is their rate: whoever is below the median of the trials so far is ended."""

    def fake(program, task, *, seed, options):
        rate = program.origin.recipe.lr
        for epoch in range(8):
            facts = {"val_accuracy": rate, "val_loss": 0.0, "best": epoch == 0}
            options.listener.event("epoch", epoch=epoch, epochs=8, **facts)
        result = fit(program, task, options=rp.FitOptions(progress=False, recipe=rp.Recipe(epochs=1, batch_size=64)))
        return replace(result, history=({},) * 8, validation=replace(result.validation, accuracy=rate))

    monkeypatch.setattr(module, "fit", fake)
    found = search("vp", tiny_source(), tiny_task(), options(trials=14, pruner="median"))
    pruned = [t for t in found.trials if t.state == "pruned"]
    assert pruned
    assert all(t.epochs == 1 and t.accuracy == t.settings["recipe.lr"] for t in pruned)
    for one in pruned:
        before = sorted(t.accuracy for t in found.trials if t.number < one.number and t.state == "complete")
        assert one.accuracy <= before[len(before) // 2]
    assert found.best.state == "complete"
    assert found.best.epochs == 8
    assert found.best.accuracy == max(t.accuracy for t in found.trials)


def test_time_ends_a_search_and_what_was_cut_off_comes_first_next_time(tmp_path):
    out, source, task = tmp_path / "best.safetensors", tiny_source(), tiny_task()
    endless = FAST | {"recipe.epochs": 5000}
    with pytest.raises(FitError, match="in the time there was"):
        search("vp", source, task, options(out=out, pinned=endless, seconds=0.5))
    cut = list(door_trials(tmp_path / "best.run/search.db"))
    assert [t.state for t in cut] == ["cut"]
    with pytest.raises(FitError, match="in the time there was"):
        search("vp", source, task, options(out=out, pinned=endless, seconds=0.5))
    both = list(door_trials(tmp_path / "best.run/search.db"))
    assert [t.state for t in both] == ["cut", "cut"]
    assert both[1].settings == both[0].settings


def door_trials(path):
    optuna = pytest.importorskip("optuna")
    storage = f"sqlite:///{path}"
    name = optuna.get_all_study_names(storage)[0]
    space = {
        "prompt": door.Choices(("frame", "fixed_patch", "random_patch")),
        "recipe.lr": door.Range(1e-3, 1e-1, True),
    }
    yield from door.Trials.all(_Opened(optuna.load_study(study_name=name, storage=storage), space))


class _Opened:
    def __init__(self, study, space):
        self._study, self._space = study, space


KILLED = """
import sys, time
import reprogram as rp
from reprogram.search import SearchOptions, search
from reprogram.testing import tiny_source, tiny_task
room = sys.modules["reprogram.search.search"]
whole, begun = room.fit, []

def fit(*args, **more):
    begun.append(1)
    if len(begun) == 2:
        print("second", flush=True)
        time.sleep(600)
    return whole(*args, **more)

room.fit = fit
search("vp", tiny_source(), tiny_task(), SearchOptions(
    trials=4, pruner="none", preset="paper", out=sys.argv[1], space={"recipe.lr": "1e-3:1e-1:log"},
    pinned={"recipe.epochs": 2, "recipe.batch_size": 16, "width": 3, "recipe.warmup_steps": 0,
            "recipe.optimizer": "adam"}))
"""


def test_a_killed_search_goes_on(tmp_path):
    """SIGKILL in the second trial; the next run takes its settings up first, and ends with as many as it should."""
    out = tmp_path / "best.safetensors"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, text=True,
                          env=env) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "second\n"
        process.send_signal(signal.SIGKILL)
    db = tmp_path / "best.run/search.db"
    begun = pytest.importorskip("optuna").load_study(study_name=None, storage=f"sqlite:///{db}").trials
    assert [t.state.name for t in begun] == ["COMPLETE", "RUNNING"]
    found = search("vp", tiny_source(), tiny_task(), options(out=out))
    trials = {t.number: t for t in found.trials}
    assert [trials[i].state for i in range(5)] == ["complete", "cut", "complete", "complete", "complete"]
    assert trials[2].settings == trials[1].settings
    assert trials[1].settings["recipe.lr"] == begun[1].params["recipe.lr"]


def test_one_search_at_a_time(tmp_path):
    out = tmp_path / "best.safetensors"
    with Workspace(out), pytest.raises(BusyError):
        search("vp", tiny_source(), tiny_task(), options(out=out))


def test_a_storage_of_ones_own(tmp_path):
    found = search("vp", tiny_source(), tiny_task(), options(trials=1, storage=tmp_path / "kept.db"))
    assert found.folder == tmp_path / "kept.run"
    assert (tmp_path / "kept.db").exists()
    (tmp_path / "text.db").write_text("this is no database, whatever its name says it is" * 40)
    with pytest.raises(ConfigError, match="storage"):
        search("vp", tiny_source(), tiny_task(), options(trials=1, storage=tmp_path / "text.db"))


def test_what_cannot_be_searched_is_refused(monkeypatch):
    source, task = tiny_source(), tiny_task()
    none = replace(task, splits={**task.splits, "val": task.val.subset(torch.empty(0, dtype=torch.int64))})
    with pytest.raises(DataError, match="val"):
        search("vp", source, none, options())
    with pytest.raises(ConfigError, match="search"):
        search("vp", source, task, SearchOptions(pinned=FAST | {"prompt": "frame", "lr": 0.1}))
    with pytest.raises(ConfigError, match="Did you mean"):
        search("vp", source, task, options(pinned={"widht": 3}))
    for wrong in ({"trials": 0}, {"seconds": 0.0}):
        with pytest.raises(ConfigError):
            SearchOptions(**wrong)
    monkeypatch.setattr(door.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(MissingExtraError, match=r"reprogram\[search\]"):
        search("vp", source, task, options())


@pytest.mark.parametrize("name", ["ilm_vp", "blm_plus", "smm", "no_edit", "linear_probe", "prompt_tuning"])
def test_it_works_for_methods_of_every_kind(name):
    method = find(name)
    source, task, settings = suiting(method)
    small = {"recipe.epochs": 1, "recipe.batch_size": 8, **settings}
    source, task = source or tiny_source(), task or tiny_task()
    names = {"patch": 4} if name == "smm" else {}
    pinned = {k: v for k, v in {**small, **names}.items()}
    stated = {"seed": "0,1"} if name == "no_edit" else {}
    try:
        found = search(
            name, source, task, SearchOptions(trials=2, pinned=pinned, space=stated, pruner="none", preset="paper")
        )
    except ConfigError as problem:
        assert name == "no_edit", problem
        return
    assert found.best.state == "complete"
    json.dumps(found.card(), allow_nan=False)
