"""A loaded program gets its history back, and a damaged one does no harm."""

import json

import pytest
import torch

from reprogram.catalogue import load
from reprogram.fit import run_folder
from reprogram.report import evaluate_result, write_report
from tests.report.pages import read_page


@pytest.fixture
def copy(blm, tmp_path):
    """The program file and its run folder, to be damaged."""
    path = tmp_path / "copy.safetensors"
    path.write_bytes(blm.out.read_bytes())
    run_folder(path).mkdir()
    events = run_folder(path) / "events.jsonl"
    events.write_bytes((run_folder(blm.out) / "events.jsonl").read_bytes())
    return path, events


def test_it_is_what_fit_returned(blm, task, source):
    again = evaluate_result(load(blm.out, source), task, blm.out)
    assert torch.equal(again.test.scores, blm.test.scores)
    assert torch.equal(again.validation.scores, blm.validation.scores)
    assert (again.best_epoch, again.seed, again.recipe) == (blm.best_epoch, blm.seed, blm.recipe)
    assert again.seconds == pytest.approx(blm.seconds, abs=0.002)
    keys = ("epoch", "loss", "accuracy", "val_accuracy", "test_accuracy", "best")
    assert [[row[k] for k in keys] for row in again.history] == [[row[k] for k in keys] for row in blm.history]


def test_report_of_a_loaded_program(blm, task, source, tmp_path):
    again = evaluate_result(load(blm.out, source), task, blm.out)
    page = read_page(write_report(again, task, tmp_path / "r.html"))
    assert {"accuracy", "loss"} <= set(page.figures)


def test_without_a_file_or_a_folder(blm, task, source, tmp_path):
    nowhere = evaluate_result(load(blm.out, source), task)
    assert nowhere.history == () and nowhere.out is None and nowhere.seconds == 0
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(blm.out.read_bytes())
    found = evaluate_result(load(alone, source), task, alone)
    assert found.history == () and found.best_epoch == blm.best_epoch and found.seconds > 0


DAMAGE = [
    b"",
    b"\x00\xff\xfe\n\n{",
    b"[" * 100_000,
    b'{"event": "epoch", "epoch": -1}\n{"event": "epoch", "epoch": "a"}\n{"event": "epoch", "epoch": true}',
    b'{"event": "epoch", "epoch": 1e400, "loss": 3}\n[1, 2]\nnull\n3\n"x"',
    b'{"event": "end", "seconds": "<script>"}\n{"event": "start", "seed": [], "recipe": {"lr": -1, "evil": 1}}',
]


@pytest.mark.parametrize("content", DAMAGE)
def test_damage_is_as_if_nothing_were_there(content, copy, blm, task, source):
    path, events = copy
    events.write_bytes(content)
    found = evaluate_result(load(path, source), task, path)
    assert found.history == () and found.seed == 0
    assert found.recipe == load(path, source).origin.recipe


def test_what_is_whole_among_the_damage_is_kept(copy, blm, task, source, tmp_path):
    path, events = copy
    odd = {
        "event": "epoch",
        "epoch": 7,
        "loss": float("nan"),
        "accuracy": 12.0,
        "val_accuracy": "<b>",
        "seconds": 1e999,
    }
    events.write_bytes(events.read_bytes() + json.dumps(odd).encode() + b'\n{"event": "epoch", "epo')
    found = evaluate_result(load(path, source), task, path)
    assert [row["epoch"] for row in found.history] == [0, 1, 2, 7]
    assert found.history[-1] == {"epoch": 7, "best": False, "seconds": 0.0}
    page = read_page(write_report(found, task, tmp_path / "r.html"))
    assert page.figures["loss"]["data"][0]["x"] == [1, 2, 3]


def test_a_second_start_begins_anew(copy, task, source):
    path, events = copy
    events.write_bytes(
        events.read_bytes() + b'{"event": "start", "seed": 9}\n{"event": "epoch", "epoch": 0, "loss": 1}\n'
    )
    found = evaluate_result(load(path, source), task, path)
    assert found.seed == 0  # the card has the last word
    assert [row["epoch"] for row in found.history] == [0]
