"""`reprogram diagnose`: the table, JSON, the page, a program file, mistakes."""

import json
import re

import pytest

from tests.cli.conftest import SOURCE, process
from tests.report.pages import read_page

SMALL = ["-n", 6, "--source-samples", 2, "--follow", 2]
TINY = ["--set", "canvas=32", "--set", "inner=16"]


@pytest.fixture
def asked(cli, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args, small=SMALL):
        return cli("diagnose", "-t", pictures, *small, *args)

    return run


def test_a_table_of_figures_with_what_they_mean_and_a_page(asked, tmp_path):
    code, out, err = asked("-s", SOURCE, "-m", "blm", *TINY)
    assert code == 0, err
    flat = " ".join(out.split())
    for word in ("source lambda_min", "program rank", "of 12", "reachable label energy", "6 x 2 targets", "blm"):
        assert word in flat
    assert "The slowest direction of training this program by gradient descent." in flat
    assert "does not forecast an accuracy" in flat
    assert max(map(len, out.splitlines())) <= 100
    page = read_page(tmp_path / "diagnosis.html")
    assert {"readings", "spectrum", "loss", "facts"} <= set(page.sections)
    assert "Über [bold]alles" in page.text
    assert "report: diagnosis.html" in err
    assert "6 inputs" in err


def test_brief_leaves_the_sentences_out(asked):
    code, out, _ = asked(
        "-s", SOURCE, "-m", "blm", *TINY, "--brief", "--no-report", "--source-samples", 0, small=["-n", 4]
    )
    assert code == 0
    assert "program rank" in out
    assert "source lambda_min" not in out
    assert "slowest direction" not in out


def test_json_is_one_document_without_a_page(asked, tmp_path):
    code, out, _ = asked("-s", SOURCE, "-m", "blm", *TINY, "--no-report", "--json", "--seed", 3)
    assert code == 0
    card = json.loads(out)
    assert card["report"] is None
    assert list(tmp_path.iterdir()) == []
    assert (card["samples"], card["targets"], card["source_samples"], card["seed"]) == (6, 2, 2, 3)
    assert card["settings"]["canvas"] == 32
    assert len(card["curves"]["actual"]) == 3
    assert {"program_lambda_min", "source_lambda_min", "gf_loss", "reachable"} <= set(card["scores"])
    again = json.loads(asked("-s", SOURCE, "-m", "blm", *TINY, "--no-report", "--json", "--seed", 3)[1])
    other = json.loads(asked("-s", SOURCE, "-m", "blm", *TINY, "--no-report", "--json", "--seed", 4)[1])
    assert again["scores"] == card["scores"]
    assert other["digest"] != card["digest"]


def test_a_page_where_it_is_wanted(asked, tmp_path):
    code, out, _ = asked("-s", SOURCE, "-m", "blm", *TINY, "--out", "sub folder/d.html", "--json", "--follow", 0)
    assert code == 0
    assert json.loads(out)["report"] == "sub folder/d.html"
    assert "actual training" not in (tmp_path / "sub folder" / "d.html").read_text().split('id="figures"')[1][:20_000]


def test_a_fitted_program_keeps_its_output_map(asked, program, pictures):
    code, out, err = asked("--program", program, "--json", "--no-report")
    assert code == 0, err
    card = json.loads(out)
    assert card["method"] == "blm"
    assert card["source"] == SOURCE
    assert card["settings"] == {}


@pytest.mark.parametrize(("args", "code", "words"), [
    ([], 2, "source"),
    (["-s", SOURCE, "--program", "x.safetensors"], 2, "not both"),
    (["--program", "missing.safetensors"], 1, "missing.safetensors"),
    (["-s", "bundled/nothing"], 1, "nothing"),
    (["-s", SOURCE, "-m", "nothing"], 2, "nothing"),
    (["-s", SOURCE, "--set", "nothing=1"], 2, "nothing"),
    (["-s", SOURCE, "-n", 1], 2, "samples"),
    (["-s", SOURCE, "--follow", -1], 2, "follow"),
    (["-s", SOURCE, "--preset", "nothing"], 2, "preset"),
    (["-s", SOURCE, "-m", "blm", *TINY, "-o", "file/x.html"], 2, "path"),
])  # fmt: skip
def test_mistakes_are_one_line(asked, tmp_path, args, code, words):
    (tmp_path / "file").write_text("")
    got, out, err = asked(*args)
    assert (got, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1


def test_mistakes_as_json(asked):
    code, out, _ = asked("-s", "bundled/nothing", "--json")
    assert code == 1
    assert json.loads(out)["error"]["kind"] == "SourceError"


def test_one_class_only_is_a_plain_error(cli, tmp_path, pictures):
    from PIL import Image

    (tmp_path / "only" / "one").mkdir(parents=True)
    for i in range(8):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / "only" / "one" / f"{i}.png")
    code, out, err = cli("diagnose", "-t", tmp_path / "only", "-s", SOURCE, "-m", "blm", *TINY, *SMALL, "--no-report")
    assert code != 0
    assert out == ""
    assert "Traceback" not in err
    assert re.search("class", err)


def test_in_a_process_of_its_own_with_a_narrow_terminal(pictures, tmp_path):
    args = ["diagnose", "-t", pictures, "-s", SOURCE, "-m", "blm", *TINY, "-n", 4, "--source-samples", 1, "--follow", 0]
    done = process(*args, "-q", "--no-report", folder=tmp_path, COLUMNS="80", TERM="dumb")
    assert done.returncode == 0, done.stderr
    assert "program rank" in done.stdout
    assert list(tmp_path.iterdir()) == []
