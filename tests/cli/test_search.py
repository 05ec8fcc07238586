"""`reprogram search`, as a command of its own, on a real source."""

import csv
import json

import pytest
import typer

import reprogram as rp
from reprogram.cli import _run
from reprogram.cli.search import search

pytest.importorskip("optuna")

SMALL = ["--source", "bundled/efficientnet-lite0", "--task", "bundled/digits", "--limit-train", "40", "--limit-val",
         "20", "--limit-test", "20", "--set", "canvas=32", "--set", "recipe.epochs=1"]  # fmt: skip


@pytest.fixture
def command(capsys):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(search)

    def run(*args):
        capsys.readouterr()
        code = _run.run(app, [str(a) for a in args])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_search_and_the_same_again_as_json(command, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    out = tmp_path / "das beste.safetensors"
    args = ["--method", "autovp", *SMALL, "--space", "output=freq,iter", "--space", "per_class=1,5", "--set",
            "learn_scale=true", "--set", "scale=1.0", "--set", "recipe.lr=0.02", "--out", out]  # fmt: skip
    code, said, err = command(*args, "--trials", "2")
    assert code == 0, err
    assert "winner" in said
    assert "2/2 trial 1" in err
    assert (tmp_path / "das beste.html").exists()
    rows = list(csv.DictReader((tmp_path / "das beste.run/trials.csv").read_text().splitlines()))
    assert len(rows) == 2
    code, said, err = command(*args, "--trials", "3", "--json")
    assert code == 0, err
    found = json.loads(said)
    assert len(found["trials"]) == 3
    assert found["space"] == {"output": "freq,iter", "per_class": "1,5"}
    assert set(found["files"]) == {"program", "page", "trials", "search"}
    program = rp.load(out)
    assert program.origin is not None
    assert program.origin.config.canvas == 32
    assert program.origin.config.output == found["best"]["settings"]["output"] or not found["best"]["settings"]


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--method", "vp", "--space", "width"], "name=values"),
        (["--method", "vp", "--space", "width=2:1"], "range"),
        (["--method", "vp", "--space", "widht=1,2"], "Did you mean"),
        (["--method", "nonsense"], "nonsense"),
        (["--method", "vp", "--out", "x.bin"], "safetensors"),
        (["--method", "vp", "--pruner", "best"], "hyperband"),
        (["--method", "vp", "--trials", "0"], "--trials"),
        (["--method", "vp", "--set", "width=3", "--space", "width=3,4"], "pinned"),
    ],
)
def test_the_command_line_is_checked(command, args, word):
    code, out, err = command(*SMALL, *args)
    assert (code, out) == (2, "")
    assert word in err
