"""Verdicts of studies, and how a study runs: cells kept on disk, files written, foreign options refused."""

import itertools
import json
from math import comb

import pytest

from reprogram.core.errors import ConfigError
from reprogram.experiments import Options, run
from reprogram.experiments.run import EXPERIMENTS, STUDIES
from reprogram.experiments.study import Study, compared, conduct, median_interval, within
from reprogram.experiments.study_note import study_card, study_note, write_study
from tests.report.pages import read_page


@pytest.mark.parametrize("n", [1, 4, 5, 7, 8, 10, 12])
def test_the_interval_is_the_narrowest_that_holds_the_median_often_enough(n):
    # an order statistic's coverage, counted over all signs of n values around a median of 0
    def coverage(k):
        below = (sum(signs) for signs in itertools.product((0, 1), repeat=n))
        return sum(k <= b <= n - k for b in below) / 2**n

    good = [k for k in range(1, n // 2 + 1) if coverage(k) >= 0.9]
    span = median_interval([float(v) for v in range(n, 0, -1)])
    assert span == ((max(good), n + 1 - max(good)) if good else None)
    assert sum(comb(n, b) for b in range(n + 1)) == 2**n


def test_a_median_is_above_a_limit_only_if_its_interval_is():
    assert compared("s", "w", [0.1, 0.2, 0.3, 0.4, 0.5]).verdict == "supported"
    assert compared("s", "w", [-0.1, 0.2, 0.3, 0.4, 0.5]).verdict == "cannot be told"
    assert compared("s", "w", [-0.1, -0.2, 0.0, -0.4, -0.5]).verdict == "not supported"
    assert compared("s", "w", [0.1, 0.2, 0.3, 0.4, 0.5], above=0.5).verdict == "not supported"
    few = compared("s", "w", [1.0, 1.0, 1.0, 1.0])
    assert few.verdict == "cannot be told"
    assert "fewer than 5" in few.sentence()
    assert "nothing was measured" in compared("s", "w", []).sentence()
    assert "30.0%" in compared("s", "w", [0.1, 0.2, 0.3, 0.4, 0.5]).sentence()


def test_what_holds_exactly_holds_everywhere():
    assert within("s", "w", [0.0, 1e-7], 1e-6).verdict == "supported"
    broken = within("s", "w", [0.0, 1e-7, 2e-6], 1e-6)
    assert broken.verdict == "not supported"
    assert broken.middle == 2e-6
    assert "more than 1e-06" in broken.sentence()
    assert within("s", "w", [], 1e-6).verdict == "cannot be told"


def made_up(done):
    """A study of two cells with two rows each."""

    def measure(cell):
        done.append(cell["k"])
        return [{"k": cell["k"], "i": i, "seed": 0, "value": cell["k"] + i / 10, "list": [1, 2]} for i in range(2)]

    return Study(
        name="made-up", title="T", question="Q?", cells=lambda o: [{"name": f"k {k}", "k": k} for k in range(2)],
        bench=lambda o: measure, judge=lambda rows: [within("Small", "all", [r["value"] for r in rows], 1.0)],
        charts=lambda rows: [], sheets=lambda rows: [], protocol=lambda o: ["so"], remarks=lambda rows: ["It is so."],
        caveats=("Made up.",),
    )  # fmt: skip


def test_cells_are_kept_and_lost_ones_made_again(tmp_path):
    done, said = [], []
    study, options = made_up(done), Options(out=tmp_path)
    first = conduct(study, options, said.append)
    assert [r["value"] for r in first.rows] == [0.0, 0.1, 1.0, 1.1]
    assert done == [0, 1]
    assert [line.split(":")[0] for line in said] == ["1/2 k 0", "2/2 k 1"]
    sorted((tmp_path / "cells").iterdir())[0].write_text("{")  # what a disk may do
    again = conduct(study, options, said.append)
    assert again.rows == first.rows
    assert len(done) == 3
    assert said[2] == "1 of 2 cells are there already."


def test_its_files_say_the_same(tmp_path):
    found = conduct(made_up([]), Options(out=tmp_path, command="reprogram made-up"), lambda _: None)
    files = write_study(found)
    card = json.loads(files["result"].read_text())
    assert card == study_card(found)
    assert card["claims"][0]["verdict"] == "not supported"
    note = files["note"].read_text()
    assert note == study_note(found)
    for part in ("**Not supported** (1 of 1)", "- It is so.", "- so", "- Made up.", "    reprogram made-up", "Q?"):
        assert part in note
    assert "quick" not in note
    assert files["table"].read_text().splitlines()[0] == "k,i,seed,value"
    assert not read_page(files["page"]).misnested


def test_what_a_study_has_no_use_for_is_refused(tmp_path):
    study = made_up([])
    wrong = ({"task": "x.csv"}, {"source_task": "x"}, {"methods": ("fc",)}, {"samples": 4}, {"epochs": 2},
             {"sources": ("bundled/smollm2-135m",)})  # fmt: skip
    for more in wrong:
        with pytest.raises(ConfigError, match="made-up"):
            conduct(study, Options(out=tmp_path, **more), lambda _: None)
    with pytest.raises(ConfigError, match="one at most"):
        run("prefix-limits", Options(out=tmp_path, sources=("a/b", "c/d"), quick=True))
    assert not list(tmp_path.iterdir())


def test_names_are_the_commands():
    assert not EXPERIMENTS.keys() & STUDIES.keys()
    assert set(STUDIES) == {"prefix-limits", "attention-role", "efficiency", "backdoor"}
    assert all(name == study.name for name, study in STUDIES.items())


@pytest.mark.parametrize("name", ["prefix-limits", "attention-role"])  # the others have files of their own
def test_a_quick_slice_runs_end_to_end(tmp_path, name):
    options = Options(out=tmp_path, quick=True, command=f"reprogram experiment {name} --quick")
    found, files = run(name, options)
    assert set(files) == {"table", "result", "note", "page"}
    assert json.loads(files["result"].read_text()) == found
    note = files["note"].read_text()
    assert "quick slice" in note
    assert "Nothing follows" in " ".join(found["caveats"])
    for claim in found["claims"]:
        assert claim["sentence"] in note
        assert claim["verdict"] == "supported" or len(claim["values"]) < 5
    page = read_page(files["page"])
    assert not page.misnested
    assert page.figures
    assert page.places == set(page.figures)
    said = []
    again, _ = run(name, options, said.append)
    assert again["rows"] == found["rows"]
    assert len(said) == 1
