"""Whole experiments as quick slices: what they write, that they go on after an interruption, what they refuse."""

import csv
import json

import pytest
import torch

from reprogram.core.errors import ConfigError, SourceError
from reprogram.experiments import EXPERIMENTS, Options, run
from reprogram.experiments.cells import Ledger
from reprogram.experiments.measure import Bench, Cell, settings
from reprogram.experiments.run import cells
from reprogram.sources.cifar_resnet import ResNet
from tests.report.pages import read_page


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One quick run of each experiment, made when it is first asked for; they share their trained sources."""
    root, made = tmp_path_factory.mktemp("experiments"), {}

    def of(name):
        if name not in made:
            options = Options(out=root / name, methods=("vp", "fc") if name in ("depth", "layers") else ("fc",),
                              quick=True, command=f"reprogram experiment {name} --quick")  # fmt: skip
            made[name] = (options, *run(name, options))
        return made[name]

    return of


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_quick_slice_runs_end_to_end(quick, name):
    options, found, files = quick(name)
    assert set(files) == {"table", "result", "note", "page"}
    assert json.loads(files["result"].read_text()) == found
    designs = EXPERIMENTS[name].designs(options, 0)
    assert len(found["rows"]) == len(designs) * len(options.methods)
    for row in found["rows"]:
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["source_accuracy"] <= 1
        assert "kernel_error" not in row, row["kernel_error"]
        assert row["program_rank"] is not None
    with files["table"].open() as file:
        assert len(list(csv.DictReader(file))) == len(found["rows"])
    note = files["note"].read_text()
    assert f"reprogram experiment {name} --quick" in note
    assert found["date"] in note
    assert "quick slice" in note
    page = read_page(files["page"])
    assert not page.misnested
    assert page.figures
    assert page.places == set(page.figures)
    for claim in found["claims"]:
        assert claim["sentence"] in note
        assert claim["verdict"] in ("supported", "not supported", "cannot be told")
    assert "nothing follows" in " ".join(found["caveats"])


def test_hard_layers_have_no_kernel_and_soft_ones_do(quick):
    _, found, _ = quick("layers")
    rows = {(r["variant"], r["method"]): r for r in found["rows"]}
    for method in ("vp", "fc"):
        hard, soft = rows["sign", method], rows["float", method]
        assert hard["gradient"] == 0 == hard["program_rank"]
        assert hard["program_lambda_min"] is None
        assert hard["moved"] is False
        assert soft["moved"] is True
        assert hard["zeroth_trace"] > 0
        assert soft["gradient"] > 0
        assert soft["gradient"] == pytest.approx(soft["ce_rate"], rel=1e-3)
        assert abs(soft["zeroth_trace"] - soft["trace"]) < 5 * soft["zeroth_trace_error"]
        assert rows["argmax-through", method]["gradient"] > 0
    assert rows["sign", "vp"]["accuracy"] == rows["sign", "vp"]["before"]
    assert any("exactly zero" in remark for remark in found["remarks"])


def test_a_second_run_takes_what_is_there_and_a_third_makes_what_was_lost(quick, monkeypatch):
    options, found, _ = quick("width")
    folder = options.out / "cells"
    paths = sorted(folder.iterdir())
    assert len(paths) == len(found["rows"])
    before = {p: p.stat().st_mtime_ns for p in paths}
    said = []
    again, _ = run("width", options, said.append)
    assert again["rows"] == found["rows"]
    assert again["claims"] == found["claims"]
    assert said == [f"{len(paths)} of {len(paths)} cells are there already."]
    assert {p: p.stat().st_mtime_ns for p in paths} == before
    paths[0].unlink()
    paths[1].write_text('{"half": ')  # what a disk may do
    done = []
    measure = Bench.measure
    monkeypatch.setattr(
        Bench, "measure", lambda self, cell, extra=None: done.append(cell) or measure(self, cell, extra)
    )
    third, _ = run("width", options)
    assert len(done) == 2
    keep = [{k: v for k, v in r.items() if "seconds" not in k} for r in third["rows"]]
    assert keep == [{k: v for k, v in r.items() if "seconds" not in k} for r in found["rows"]]


def test_an_interrupted_run_keeps_every_finished_cell(tmp_path, monkeypatch):
    options = Options(out=tmp_path, quick=True, methods=("vp",))
    measure, done = Bench.measure, []

    def interrupted(self, cell, extra=None):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(cell)
        return {**measure(self, cell, extra), "mark": len(done)}

    monkeypatch.setattr(Bench, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("width", options)
    assert len(list((tmp_path / "cells").iterdir())) == 2
    assert not (tmp_path / "note.md").exists()
    monkeypatch.setattr(Bench, "measure", measure)
    said = []
    found, _ = run("width", options, said.append)
    assert [r.get("mark") for r in found["rows"]] == [1, 2, None, None]
    assert said[0] == "2 of 4 cells are there already."
    assert said[-1].endswith("0 s left")


def test_other_settings_are_other_cells(tmp_path):
    cell = cells(EXPERIMENTS["depth"], Options(out=tmp_path, quick=True))[0]
    keys = [
        Bench(Options(out=tmp_path, quick=True, **more)).key(cell)
        for more in ({}, {"epochs": 3}, {"samples": 5}, {"source_task": "bundled/digits"})
    ]
    paths = {Ledger(tmp_path).path(key) for key in keys}
    assert len(paths) == 4
    assert Ledger(tmp_path).path(keys[0]) == Ledger(tmp_path).path(dict(reversed(keys[0].items())))


def test_ready_made_sources(tmp_path):
    from safetensors.torch import save_file

    for seed in range(2):
        torch.manual_seed(seed)
        state = {k: v for k, v in ResNet(1).state_dict().items() if not k.endswith("num_batches_tracked")}
        save_file(state, tmp_path / f"net{seed}.safetensors")
    refs = tuple(f"cifar-resnet/{tmp_path}/net{seed}.safetensors" for seed in range(2))
    options = Options(out=tmp_path / "out", sources=refs, methods=("vp",), quick=True, samples=4)
    found, files = run("depth", options)
    assert [r["source"] for r in found["rows"]] == list(refs)
    assert [r["depth"] for r in found["rows"]] == [3, 3]  # blocks
    assert all(r["source_accuracy"] is None for r in found["rows"])
    assert "Ready-made" in files["note"].read_text()
    assert not (tmp_path / "out" / "sources").exists()


def test_failures_are_noted_and_the_rest_still_measured(tmp_path, monkeypatch):
    from reprogram.core.errors import CapabilityError
    from reprogram.experiments import measure

    def fails(*_args, **_more):
        raise CapabilityError("no gradients here")

    monkeypatch.setattr(measure, "diagnose", fails)
    found, files = run("architectures", Options(out=tmp_path, methods=("vp",), quick=True))
    assert all(r["kernel_error"] == "no gradients here" and r["accuracy"] is not None for r in found["rows"])
    assert "the kernel failed" in files["note"].read_text()
    assert {c["verdict"] for c in found["claims"]} == {"cannot be told"}


def test_bad_input_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="experiment"):
        run("colour", Options(out=tmp_path))
    with pytest.raises(ConfigError, match="sources"):
        run("width", Options(out=tmp_path, sources=("bundled/efficientnet-lite0",)))
    with pytest.raises(SourceError):
        run("depth", Options(out=tmp_path, sources=("nowhere/at-all",), quick=True))
    for wrong in ({"seeds": 0}, {"samples": 0}, {"epochs": 0}, {"methods": ("smm",)}, {"methods": ()}):
        with pytest.raises(ConfigError):
            Options(out=tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_every_method_has_settings_that_build(tmp_path):
    from reprogram.catalogue import build
    from reprogram.experiments.options import METHODS
    from reprogram.testing import tiny_source

    bench = Bench(Options(out=tmp_path, quick=True))
    source = tiny_source(size=28)
    for method in METHODS:
        program = build(method, source, bench.task, **settings(method, 28, 3))
        assert program.origin.recipe.epochs == 3
    assert isinstance(Cell(source="a/b", method="vp", seed=0).name, str)
