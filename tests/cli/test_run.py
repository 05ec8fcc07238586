"""Errors, exit codes, JSON, quiet and debug, signals: what all commands share."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import typer

from reprogram.cli import _run, main
from reprogram.core.errors import ConfigError, DataError
from tests.cli.conftest import SMALL, SOURCE, process


def app_that(raises=None, does=None):
    app = typer.Typer()

    @app.command()
    def boom(json: _run.Json = False):
        if does:
            does()
        if raises:
            raise raises

    @app.command()
    def other():
        pass

    return app


@pytest.mark.parametrize(
    ("problem", "code", "words"),
    [
        (ConfigError("`lr` must be\n  above 0."), 2, "error: `lr` must be above 0.\n"),
        (DataError("[red]x[/red] \x1b[31m is broken."), 1, "error: [red]x[/red] �[31m is broken.\n"),
        (KeyError("k"), 1, "error: KeyError: 'k' (this is a bug, run with --debug)\n"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (MemoryError(), 1, "error: Out of memory."),
        (typer.BadParameter("no"), 2, "error: "),
        (typer.Exit(1), 1, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_one_line_and_have_a_code(capsys, problem, code, words):
    assert _run.run(app_that(problem), ["boom"]) == code
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(words)
    assert err.count("\n") == (1 if words else 0)


@pytest.mark.parametrize("where", [["--debug", "boom"], ["boom", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(capsys, where):
    assert _run.run(app_that(KeyError("k")), where) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "run with --debug" not in err


def test_json_gives_one_document_also_for_errors_and_whatever_is_printed(capsys):
    assert _run.run(app_that(DataError("broken"), lambda: print("noise")), ["boom", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"kind": "DataError", "message": "broken"}}
    assert "noise" in err


def test_json_has_no_infinities(capsys):
    _run.run(app_that(does=lambda: _run.emit({"a": (float("inf"), 1)})), ["boom", "--json"])
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1]}


def test_quiet_leaves_errors(capsys):
    def work():
        _run.note("a")
        _run.warn("b")

    assert _run.run(app_that(DataError("c"), work), ["boom", "-q"]) == 1
    assert capsys.readouterr().err == "error: c\n"


def test_flags_after_two_dashes_are_arguments():
    args = ["predict", "--quiet", "--", "--debug"]
    assert _run._take(args, "--quiet")
    assert not _run._take(args, "--debug")
    assert args == ["predict", "--", "--debug"]


def test_signal_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    main(["--version"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_colour_when_asked(tmp_path):
    for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        done = process("show", tmp_path / "none", FORCE_COLOR="1", **extra)
        assert ("\x1b[31m" in done.stderr) is coloured
        assert done.returncode == 1


def test_a_terminal_without_the_letters(pictures):
    done = process("tasks", pictures, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "dunkel \\xfc" in done.stdout
    done = process("tasks", pictures, "--json", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["classes"] == ["dunkel ü", "hell 你好"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_fit_leaves_a_checkpoint_to_go_on_from(tmp_path, number):
    args = ["fit", "-s", SOURCE, "-t", "bundled/digits", "-m", "blm", "-o", "a.safetensors", *SMALL,
            "--set", "epochs=25", "--limit-train", "60", "--controls", "none", "--no-report"]  # fmt: skip
    child = subprocess.Popen([sys.executable, "-m", "reprogram", *args], cwd=tmp_path, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    events, limit = tmp_path / "a.run" / "events.jsonl", time.monotonic() + 120
    while not (events.exists() and '"epoch"' in events.read_text()):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.05)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert not out
    assert "--config a.run/config.yaml --resume" in err
    assert "Traceback" not in err
    assert (tmp_path / "a.run" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "a.safetensors").exists()
    done = process("fit", "--config", "a.run/config.yaml", "--resume", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/25" not in done.stderr
    assert "epoch 25/25" in done.stderr
    assert (tmp_path / "a.safetensors").exists()
