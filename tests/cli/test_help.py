"""Every command answers `--help` at once, without torch, and the command line is checked before anything is loaded."""

import os
import subprocess
import sys

import pytest

from reprogram.cli import app
from tests.cli.conftest import process

NAMES = [command.name for command in app.registered_commands]


def test_all_commands_are_there():
    use, change = "fit evaluate predict generate show report demo", "compile combine import export"
    before, look = "describe diagnose rank search experiment", "methods sources sites tasks cite doctor"
    assert f"{use} {change} {before} {look}".split() == NAMES


@pytest.mark.parametrize("args", [[], ["--help"], ["--version"], *([name, "--help"] for name in NAMES)])
def test_help_imports_no_torch_and_is_quick(args):
    code = (
        "import sys; from reprogram.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'yaml', 'PIL', 'timm', 'plotly'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    after = os.times()
    took = after.children_user + after.children_system - before.children_user - before.children_system
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not done.stderr
    assert took < 1.5  # processor seconds, because others may use the machine; it takes 0.4


def test_every_command_has_an_example():
    for command in app.registered_commands:
        assert "Example: `reprogram" in command.callback.__doc__, command.callback.__name__


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["fit", "--sed", "1"], "--seed"),
        (["fitt"], "fit"),
        (["predict"], "PROGRAM"),
        (["fit", "--seed", "-1"], "--seed"),
        (["fit", "--controls", "some"], "standard"),
        (["diagnose"], "--task"),
        (["diagnose", "-t", "x", "-n", "1"], "--samples"),
        (["rank", "-t", "x"], "--sources"),
        (["experiment"], "NAME"),
        (["import", "x"], "--source"),
        (["export", "x.safetensors"], "--out"),
        (["combine", "x.safetensors"], "--out"),
        (["combine", "x", "y", "-o", "z", "--how", "sum"], "average"),
        (["show", "x", "--nearest", "-1"], "--nearest"),
        (["--nope"], "--nope"),
    ],
)
def test_wrong_usage_is_2_and_one_line(cli, args, word):
    code, out, err = cli(*args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert word in err
    assert "--help" in err


def test_completion_is_offered():
    done = process("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_REPROGRAM_COMPLETE" in done.stdout or done.returncode == 0
