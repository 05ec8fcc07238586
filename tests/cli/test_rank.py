"""`reprogram rank`: text, JSON, files, several ways to name sources, mistakes."""

import csv
import json

import pytest
import typer

from reprogram.cli import _run
from reprogram.cli.evaluate import evaluate
from reprogram.cli.rank import _split, rank
from reprogram.core.errors import SourceError
from reprogram.rank import ranking
from reprogram.testing import tiny_source

SMALL = ["--set", "canvas=16", "--set", "inner=8", "--set", "epochs=2", "--set", "batch_size=8", "--n", "20",
         "--source-n", "4", "--probe-epochs", "2", "-m", "ilm_vp"]  # fmt: skip


@pytest.fixture
def cli(capsys, monkeypatch):
    """The command in an app of its own, with tiny sources under the names t/0, t/1, ..."""

    def load(ref):
        if not ref.startswith("t/"):
            raise SourceError(f"`source` must be known, got {ref!r}.")
        return tiny_source(seed=int(ref[2:]))

    monkeypatch.setattr(ranking, "load_source", load)
    app = typer.Typer()
    app.command()(rank)
    app.command()(evaluate)

    def run(*args):
        capsys.readouterr()
        code = _run.run(app, ["rank", *map(str, args)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_table_has_every_source_the_reason_and_the_costs(cli, pictures):
    code, out, err = cli("--sources", "t/0", "t/1", "t/2", "--task", pictures, *SMALL)
    assert code == 0
    assert all(name in out for name in ("t/0", "t/1", "t/2", "LogME", "seconds a source", "probe"))
    assert "rdered by the mean rank of" in out.replace("\n", " ")
    assert "probe" in err  # progress
    assert "Agreement" not in out


def test_json_and_files_of_a_validated_ranking(cli, pictures, tmp_path):
    out_folder = tmp_path / "ranking [1]"
    code, out, err = cli("-s", "t/0,t/1", "-s", "t/2", "-t", pictures, *SMALL, "--validate", "--twins", "--epochs", 2,
                         "--seeds", "0,1", "--out", out_folder, "--json")  # fmt: skip
    assert code == 0
    card = json.loads(out)
    assert sorted(card["order"]) == ["t/0", "t/0 (random)", "t/1", "t/1 (random)", "t/2", "t/2 (random)"]
    assert all(len(row["validation"]) == 2 for row in card["rows"])
    assert card["regret"] is not None
    assert {a["score"] for a in card["agreement"]["all sources"]} >= {"leep", "recommended", "gf_loss"}
    files = card.pop("files")
    assert json.loads((out_folder / "ranking.json").read_text()) == card
    with (out_folder / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [*card["order"], "seconds"]
    assert float(rows[0]["leep"]) == card["rows"][0]["scores"]["leep"]
    page = (out_folder / "ranking.html").read_text()
    assert files == [str(out_folder / f"ranking.{kind}") for kind in ("json", "csv", "html")]
    assert "What the scores were worth" in page
    assert "t/2 (random)" in page
    assert 'data-figure="probe_accuracy"' in page
    assert not any(text in page.split("<script")[0] for text in ("http:", "https:", "src="))
    # the same again does nothing anew, and says the same
    code, again, err = cli("-s", "t/0,t/1,t/2", "-t", pictures, *SMALL, "--validate", "--twins", "--epochs", 2,
                           "--seeds", "0,1", "--out", out_folder)  # fmt: skip
    assert code == 0
    assert err.count("was there") == 30
    assert "Agreement with the accuracy reached, without random twins" in again
    assert "recommended order" in again
    repeated = json.loads((out_folder / "ranking.json").read_text())
    assert repeated["order"] == card["order"]
    assert [r["scores"] for r in repeated["rows"]] == [r["scores"] for r in card["rows"]]


def test_a_source_that_fails_is_shown_and_the_command_goes_on(cli, pictures):
    code, out, err = cli("-s", "t/0,none/[red]x", "-t", pictures, *SMALL)
    assert code == 0
    assert "none/[red]x could not be ranked" in err
    assert "none/[red]x" in out
    code, out, err = cli("-s", "none/x", "-t", pictures, *SMALL)
    assert code == 1
    assert "None of the sources" in err


@pytest.mark.parametrize(("args", "words"), [
    (["-s", "t/0", "--seeds", "a"], "seeds"),
    (["-s", "t/0", "-m", "nothing"], "nothing"),
    (["-s", "t/0", "--set", "nothing=1"], "nothing"),
    (["-s", ","], "sources"),
    (["-s", "t/0", "--n", "1"], "n"),
])  # fmt: skip
def test_mistakes_on_the_command_line(cli, pictures, args, words):
    code, out, err = cli("-t", pictures, *args)
    assert code == 2
    assert not out
    assert words in err


def test_sources_in_any_form():
    assert _split(["a,b", "c", "b", " d ,"]) == ["a", "b", "c", "d"]


def test_an_unvalidated_page_has_no_charts(cli, pictures, tmp_path):
    assert cli("-s", "t/0,t/1", "-t", pictures, *SMALL, "-o", tmp_path, "-q")[0] == 0
    page = (tmp_path / "ranking.html").read_text()
    assert "<script" not in page
    assert "random weights" not in page
