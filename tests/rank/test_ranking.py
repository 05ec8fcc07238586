"""Rankings of tiny sources end to end: order, failures, resumption, validation."""

import importlib
import json
from dataclasses import replace

import pytest
import torch

from reprogram.core.errors import ConfigError, DataError, SourceError
from reprogram.rank import ranking as module
from reprogram.rank import work
from reprogram.rank.cells import Cells
from reprogram.rank.options import RankOptions
from reprogram.rank.probe import Trial, probe
from reprogram.rank.ranking import rank
from reprogram.sources import wrap
from reprogram.tasks import Task
from reprogram.testing import tiny_source, tiny_task

SMALL = {"canvas": 16, "inner": 8, "epochs": 4, "batch_size": 8}
OPTIONS = RankOptions(n=30, source_n=6, probe_epochs=2, probe_samples=60, config=SMALL)


@pytest.fixture(scope="module")
def task():
    return tiny_task(per_class=40)


@pytest.fixture(scope="module")
def sources():
    return {name: tiny_source(seed=seed) for seed, name in enumerate("abc")}


@pytest.fixture(scope="module")
def validated(sources, task):
    return rank(sources, task, method="ilm_vp", options=replace(OPTIONS, validate=True, twins=True, seeds=(0, 1)))


@pytest.fixture
def counted(monkeypatch):
    """What is really done, by part."""
    done = []
    for part in ("_scores", "_diagnosis", "_probe", "_fit"):
        original = getattr(work.Worker, part)

        def spy(self, *args, part=part, original=original):
            done.append(part)
            return original(self, *args)

        monkeypatch.setattr(work.Worker, part, spy)
    return done


def test_every_source_and_its_twin_has_a_row(validated):
    assert sorted(validated.order) == ["a", "a (random)", "b", "b (random)", "c", "c (random)"]
    assert [row.position for row in validated.rows] == [1, 2, 3, 4, 5, 6]
    assert {row.twin_of for row in validated.rows} == {None, "a", "b", "c"}
    assert len({row.scores["leep"] for row in validated.rows}) == 6  # twins of one shape are different
    for row in validated.rows:
        assert not row.error
        assert len(row.validation) == 2
        assert row.actual == pytest.approx(sum(row.validation) / 2)
        for name in ("leep", "nce", "h_score", "logme", "knn", "gf_loss", "ce_rate", "probe_accuracy", "parameters"):
            assert row.scores[name] is not None
        assert row.scores["source_accuracy"] is None
        assert "source_accuracy" in row.missing
        assert all(seconds >= 0 for seconds in row.seconds.values())
        assert row.seconds["leep"] > 0
        assert row.seconds["gf_loss"] > 0


def test_no_source_at_chance_stands_above_one_that_is_not(validated):
    chance = [row.at_chance for row in validated.rows]
    assert chance == sorted(chance)
    assert not chance[0]


def test_agreement_and_regret(validated):
    both = validated.agreement
    assert set(both) == {"all sources", "without random twins"}
    found = {a.score: a for a in both["all sources"]}
    assert found["recommended"].sources == 6
    assert found["source_accuracy"].sources == 0
    assert found["source_accuracy"].reason
    best = max(row.actual for row in validated.rows)
    assert validated.regret == pytest.approx(best - validated.rows[0].actual)
    assert {a.score: a.sources for a in both["without random twins"]}["probe_accuracy"] == 3


def test_the_card_is_json_and_the_table_prints(validated):
    card = validated.card()
    again = json.loads(json.dumps(card, allow_nan=False))
    assert again["order"] == list(validated.order)
    assert again["rows"][0]["actual"] == validated.rows[0].actual
    rows = validated.table()
    assert [row["source"] for row in rows] == list(validated.order)
    assert all(set(row) == set(rows[0]) for row in rows)
    assert set(validated.costs()) <= set(card["scores"])


def test_accuracy_on_its_own_data_belongs_to_the_trained_source_only(task):
    source = tiny_source()
    source.spec = replace(source.spec, accuracy=0.9)
    found = rank({"a": source}, task, method="ilm_vp", options=replace(OPTIONS, twins=True))
    assert {row.source: row.scores["source_accuracy"] for row in found.rows} == {"a": 0.9, "a (random)": None}


def test_sources_keep_their_weights_and_the_test_split_is_not_read(sources, task, monkeypatch):
    before = {name: source.fingerprint() for name, source in sources.items()}
    fetch = type(task.test).fetch

    def guarded(self, indices):
        assert self.name != "test" or not len(indices)
        return fetch(self, indices)

    monkeypatch.setattr(type(task.test), "fetch", guarded)
    found = rank(sources, task, method="ilm_vp", options=OPTIONS)
    assert not found.agreement
    assert found.regret is None
    assert {name: source.fingerprint() for name, source in sources.items()} == before


def test_a_ranking_repeats(sources, task):
    first, second = (rank(sources, task, method="ilm_vp", options=OPTIONS) for _ in range(2))
    assert [row.scores for row in first.rows] == [row.scores for row in second.rows]
    assert first.order == second.order
    assert first.sample == second.sample
    assert rank(sources, task, method="ilm_vp", options=replace(OPTIONS, seed=1)).sample != first.sample


def test_the_order_of_the_sources_given_does_not_matter(sources, task):
    turned = dict(reversed(sources.items()))
    options = replace(OPTIONS, twins=True)
    first, second = (rank(s, task, method="ilm_vp", options=options) for s in (sources, turned))
    assert {row.source: row.scores for row in first.rows} == {row.source: row.scores for row in second.rows}


# -- resumption --------------------------------------------------------------------------------------------------------


def test_what_is_there_is_taken_and_what_is_missing_is_done_again(sources, task, tmp_path, counted):
    options = replace(OPTIONS, out=tmp_path, validate=True)
    first = rank(sources, task, method="ilm_vp", options=options)
    assert len(counted) == 12
    counted.clear()
    cells = sorted((tmp_path / "cells").glob("*.json"))
    assert len(cells) == 12
    for path in cells[::2]:
        path.unlink()
    second = rank(sources, task, method="ilm_vp", options=options)
    assert len(counted) == 6
    assert [(row.source, row.scores, row.validation) for row in first.rows] == [
        (row.source, row.scores, row.validation) for row in second.rows
    ]
    counted.clear()
    rank(sources, task, method="ilm_vp", options=options)
    assert not counted


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_middle_loses_nothing_that_was_done(sources, task, tmp_path, counted, monkeypatch, stop):
    options = replace(OPTIONS, out=tmp_path)
    original, calls = work.probe, []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise stop
        return original(*args, **kwargs)

    monkeypatch.setattr(work, "probe", dies)
    with pytest.raises(stop):
        rank(sources, task, method="ilm_vp", options=options)
    assert len(list((tmp_path / "cells").glob("*.json"))) == 5  # all of the first, two parts of the second
    counted.clear()
    found = rank(sources, task, method="ilm_vp", options=options)
    assert len(counted) == 4
    assert [row.scores for row in found.rows] == [
        row.scores for row in rank(sources, task, method="ilm_vp", options=OPTIONS).rows
    ]


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"n": 24}, {"config": {**SMALL, "lr": 0.5}}, {"probe_epochs": 1}, {"source_n": 3},
])  # fmt: skip
def test_other_settings_do_not_take_it(task, tmp_path, counted, change):
    options = replace(OPTIONS, out=tmp_path)
    rank([tiny_source()], task, method="ilm_vp", options=options)
    counted.clear()
    rank([tiny_source()], task, method="ilm_vp", options=replace(options, **change))
    assert counted


def test_other_weights_or_data_do_not_take_it(task, tmp_path, counted):
    options = replace(OPTIONS, out=tmp_path)
    rank([tiny_source()], task, method="ilm_vp", options=options)
    counted.clear()
    rank([tiny_source(seed=1)], task, method="ilm_vp", options=options)
    assert len(counted) == 3
    counted.clear()
    rank([tiny_source()], tiny_task(per_class=40, seed=1), method="ilm_vp", options=options)
    assert len(counted) == 3


def test_damaged_and_foreign_parts_are_done_again(task, tmp_path, counted):
    options = replace(OPTIONS, out=tmp_path)
    first = rank([tiny_source()], task, method="ilm_vp", options=options)
    paths = sorted((tmp_path / "cells").glob("*.json"))
    paths[0].write_bytes(b"\xff{")
    foreign = json.loads(paths[1].read_text())
    foreign["key"]["weights"] = "others"
    paths[1].write_text(json.dumps(foreign))
    paths[2].write_text(json.dumps({**json.loads(paths[2].read_text()), "format": 0}))
    counted.clear()
    assert rank([tiny_source()], task, method="ilm_vp", options=options).rows[0].scores == first.rows[0].scores
    assert len(counted) == 3


def test_cells_without_a_folder_keep_nothing(tmp_path):
    cells = Cells(None)
    cells.put({"part": "probe"}, {"x": 1})
    assert cells.get({"part": "probe"}) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="folder"):
        Cells(tmp_path / "file")


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_source_that_cannot_be_loaded_has_a_row_and_stops_nobody(sources, task):
    lines = []
    given = {"gone": "bundled/nothing", **sources}
    found = rank(given, task, method="ilm_vp", options=replace(OPTIONS, twins=True, progress=lines.append))
    assert len(found.order) == 6
    last = found.rows[-1]
    assert (last.source, last.position) == ("gone", None)
    assert "must be a known reference" in last.error
    assert any("gone could not be ranked" in warning for warning in found.warnings)
    assert len(lines) == 18


def test_a_part_that_fails_is_noted_and_leaves_the_rest(sources, task, tmp_path, monkeypatch, caplog):
    original = work.probe

    def fails(method, source, *args, **kwargs):
        if source is sources["b"]:
            raise RuntimeError("no memory")
        return original(method, source, *args, **kwargs)

    monkeypatch.setattr(work, "probe", fails)
    found = rank(sources, task, method="ilm_vp", options=replace(OPTIONS, out=tmp_path))
    row = next(row for row in found.rows if row.source == "b")
    assert row.position is not None
    assert "probe_accuracy" not in row.scores
    assert row.missing["probe"] == "RuntimeError: no memory"
    assert "probe failed" in caplog.text
    assert len(list((tmp_path / "cells").glob("*.json"))) == 8  # failures are not kept
    monkeypatch.setattr(work, "probe", original)
    again = rank(sources, task, method="ilm_vp", options=replace(OPTIONS, out=tmp_path))
    assert next(row for row in again.rows if row.source == "b").scores["probe_accuracy"] is not None


def test_none_left_is_an_error(task):
    with pytest.raises(SourceError, match=r"None of the sources.*no/such"):
        rank(["no/such", "bundled/nothing"], task, method="ilm_vp", options=OPTIONS)


def test_a_source_without_features_has_no_feature_scores(task):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 4),
                              torch.nn.Flatten())  # fmt: skip
    source = wrap(net, input_shape=(3, 16, 16))
    row = rank([source], task, method="ilm_vp", options=OPTIONS).rows[0]
    assert row.scores["leep"] is not None
    for name in ("h_score", "logme", "knn"):
        assert row.scores[name] is None
        assert "no features" in row.missing[name]


def test_equal_names_are_numbered_and_a_source_without_twin_is_fine(sources, task, monkeypatch):
    def refuses(self, seed=0, **_):
        raise SourceError("cannot be randomised")

    monkeypatch.setattr(type(sources["a"]), "randomised", refuses)
    found = rank([sources["a"], sources["b"]], task, method="ilm_vp", options=replace(OPTIONS, twins=True))
    assert sorted(found.order) == ["module:TinyNet", "module:TinyNet (2)"]
    assert any("no random twin" in line for line in found.rows[0].notes)


def test_a_twin_above_its_source_is_a_warning(sources, task, monkeypatch):
    monkeypatch.setattr(module, "recommend", lambda seen: (sorted((s.name for s in seen), reverse=True), "reversed"))
    found = rank({"a": sources["a"]}, task, method="ilm_vp", options=replace(OPTIONS, twins=True))
    assert found.order == ("a (random)", "a")
    assert any("a (random) stands above a" in warning for warning in found.warnings)


@pytest.mark.parametrize(("change", "words"), [
    ({"n": 1}, "`n`"), ({"probe_epochs": 0}, "probe_epochs"), ({"seeds": ()}, "seeds"), ({"seeds": (1, 1)}, "seeds"),
    ({"validate_epochs": 0}, "validate_epochs"), ({"seed": -1}, "seed"),
])  # fmt: skip
def test_options_out_of_range(change, words):
    with pytest.raises(ConfigError, match=words):
        RankOptions(**change)


def test_mistakes_show_before_anything_is_loaded(task, monkeypatch):
    monkeypatch.setattr(module, "load_source", lambda ref: pytest.fail("loaded"))
    for given, method, options, words in [
        ([], "vp", OPTIONS, "one or more"),
        ("bundled/efficientnet-lite0", "vp", OPTIONS, "a list"),
        (["a"], "vpp", OPTIONS, "vpp"),
        (["a"], "vp", replace(OPTIONS, config={"nothing": 1}), "nothing"),
        (["a"], "ilm_vp", replace(OPTIONS, device="gpu9"), "device"),
    ]:
        with pytest.raises(ConfigError, match=words):
            rank(given, task, method=method, options=options)


# -- the probe ---------------------------------------------------------------------------------------------------------


def test_the_probe_is_short_and_leaves_the_test_alone(task, monkeypatch):
    seen = {}
    probing = importlib.import_module("reprogram.rank.probe")

    def spy(program, small, **kwargs):
        seen["task"], seen["recipe"] = small, kwargs["options"].recipe
        return fitted(program, small, **kwargs)

    fitted = probing.fit
    monkeypatch.setattr(probing, "fit", spy)
    found = probe("ilm_vp", tiny_source(), task, Trial(config=SMALL, epochs=2), samples=30)
    assert (len(seen["task"].train), len(seen["task"].test)) == (30, 0)
    assert len(seen["task"].val) <= 30
    assert seen["recipe"].epochs == 2
    assert 0 <= found.low <= found.accuracy <= found.high <= 1
    assert found.majority == pytest.approx(1 / 3, abs=0.1)
    assert found.at_chance == (found.low <= found.majority)
    assert found.loss > 0
    assert found.seconds > 0


def test_a_probe_without_gradients_or_validation_pictures(task):
    found = probe("no_edit", tiny_source(), task, Trial(config={"canvas": 16}))
    assert found.loss is None
    bare = Task(task.spec, {**task.splits, "val": task.val.subset(torch.empty(0, dtype=torch.int64))})
    with pytest.raises(DataError, match="must have pictures for a probe"):
        probe("no_edit", tiny_source(), bare, Trial(config={"canvas": 16}))
