"""`reprogram experiment`, as a command of its own."""

import json

import pytest
import typer

from reprogram.cli import _run
from reprogram.cli.experiment import experiment


@pytest.fixture
def command(capsys):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(experiment)

    def run(*args):
        capsys.readouterr()
        code = _run.run(app, [str(a) for a in args])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_quick_slice_and_the_same_again_as_json(command, tmp_path):
    args = ("architectures", "--out", tmp_path / "a b", "--quick", "--method", "vp", "--samples", "4", "--epochs", "1")
    code, out, err = command(*args)
    assert code == 0, err
    assert "cannot be told" in out
    assert "note.md" in out
    assert "left" in err
    code, out, _ = command(*args, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["experiment"] == "architectures"
    assert found["options"]["samples"] == 4
    assert "--out 'a b'" in found["options"]["command"] or "a b" in found["options"]["command"]
    assert set(found["files"]) == {"table", "result", "note", "page"}
    assert len(found["rows"]) == 3


def test_a_study_takes_its_own_options_only(command, tmp_path):
    code, out, err = command("attention-role", "--out", tmp_path, "--quick", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["experiment"] == "attention-role"
    assert found["options"]["seeds"] == 5
    assert found["options"]["command"] == f"reprogram experiment attention-role --out {tmp_path} --seeds 5 --quick"
    assert command("attention-role", "--out", tmp_path, "--sources", "bundled/smollm2-135m")[0] == 2
    code, _, err = command("prefix-limits", "--out", tmp_path, "--method", "vp")
    assert code == 2
    assert "methods" in err


def test_the_command_line_is_checked(command, tmp_path):
    out = ("--out", tmp_path)
    assert command("colour", *out)[0] == 2
    assert command("depth", *out, "--method", "smm")[0] == 2
    assert command("width", *out, "--sources", "a,b")[0] == 2
    assert command("depth", *out, "--seeds", "0")[0] == 2
    code, _, err = command("depth", *out, "--task", tmp_path / "nothing", "--quick")
    assert code == 1
    assert "nothing" in err
