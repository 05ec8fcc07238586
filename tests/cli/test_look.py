"""The commands that only tell."""

import importlib
import json

import pytest

doctor = importlib.import_module("reprogram.cli.doctor")  # the room itself shows the function of that name


def test_methods(cli):
    code, text, _ = cli("methods")
    assert code == 0
    assert "ilm_vp" in text
    linear = {m["name"] for m in json.loads(cli("methods", "--alignment", "linear", "--json")[1])}
    assert "linear_probe" in linear
    assert "ilm_vp" not in linear
    code, text, _ = cli("methods", "smm")
    assert code == 0
    assert "recipe.epochs" in text
    assert "2406.03150" in text
    assert json.loads(cli("methods", "smm", "--json")[1])["presets"]["cpu"]["canvas"] > 0
    assert cli("methods", "--alignment", "diagonal")[0] == 2


def test_sources_and_sites(cli):
    assert "bundled/efficientnet-lite0" in cli("sources")[1]
    assert {"ref", "about"} == set(json.loads(cli("sources", "--json")[1])[0])
    code, text, err = cli("sites", "bundled/efficientnet-lite0")
    assert code == 0
    assert "hidden.0" in text
    assert "--all" in err
    few = json.loads(cli("sites", "bundled/efficientnet-lite0", "--json")[1])
    every = json.loads(cli("sites", "bundled/efficientnet-lite0", "--all", "--json")[1])
    assert {"site": "input", "location": "input"} in few
    assert len(every) > len(few)


def test_tasks(cli, pictures):
    assert "bundled/mnist5k" in cli("tasks")[1]
    code, text, _ = cli("tasks", pictures)
    assert code == 0
    assert "hell 你好" in text
    assert "train 28, val 4, test 8" in text
    found = json.loads(cli("tasks", "bundled/digits", "--json")[1])
    assert found["splits"] == {"train": 1258, "val": 180, "test": 359}
    assert cli("tasks", "nowhere")[0] == 1


def test_cite(cli, program):
    by_name, by_file = cli("cite", "blm"), cli("cite", program)
    assert by_name == by_file
    assert by_name[1].startswith("@misc{blm,")
    assert cli("cite", "nobody")[0] == 2


def test_lines_are_short(cli, pictures):
    for args in (["methods"], ["methods", "smm"], ["sources"], ["tasks"], ["tasks", pictures], ["doctor"]):
        assert max(map(len, cli(*args)[1].splitlines())) <= 100


def test_doctor(cli):
    code, text, _ = cli("doctor")
    assert code == 0
    assert "threads" in text
    found = json.loads(cli("doctor", "--json")[1])
    assert found["missing"]["report"] == []
    assert found["warnings"] == []


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), "matched pair"),
        (ImportError("no reason"), "cannot be imported: ImportError: no reason"),
    ],
)
def test_doctor_recognises_a_torchvision_of_another_torch(cli, monkeypatch, problem, words):
    whole = doctor.importlib.import_module

    def broken(name, *rest):
        if name == "torchvision":
            raise problem
        return whole(name, *rest)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    code, text, _ = cli("doctor")
    assert code == 0
    assert words in " ".join(text.split())


def test_doctor_sees_a_folder_that_cannot_be_written(cli, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert "cannot" in cli("doctor")[1] or "Permission denied" in cli("doctor")[1]
