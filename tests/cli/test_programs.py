"""The way of a user: fit, look, evaluate, predict, report, on real weights and small pictures."""

import csv
import json
import re
import sys

import pytest

from tests.cli.conftest import SMALL, SOURCE, process

FIT = ["fit", "-s", SOURCE, "-m", "blm", *SMALL]


def names(folder):
    return sorted(str(p) for p in folder.rglob("*.png"))


def test_fit_writes_program_config_and_report_and_says_what_is_next(cli, pictures, tmp_path):
    out = tmp_path / "a b.safetensors"
    code, text, err = cli(*FIT, "-t", pictures, "-o", out)
    assert code == 0, err
    assert out.exists()
    assert (tmp_path / "a b.html").exists()
    for word in ("blm", "no edit", "linear probe", "majority class", "95 % interval", "reprogram predict '"):
        assert word in text
    again = tmp_path / "again.safetensors"
    code, _, err = cli("fit", "--config", tmp_path / "a b.run" / "config.yaml", "--out", again, "--no-report", "-q")
    assert (code, err) == (0, "")
    assert json.loads(cli("show", again, "--json")[1])["config"] == json.loads(cli("show", out, "--json")[1])["config"]


def test_fit_json_is_one_document(pictures, tmp_path):
    done = process(*FIT, "-t", pictures, "-o", "x.safetensors", "--no-report", "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["test"]["inputs"] == 8
    assert set(found["controls"]) == {"no edit, same output", "linear probe", "majority class"}
    assert "epoch 1/1" in done.stderr


def test_dry_run_writes_nothing(cli, pictures, tmp_path):
    args = [*FIT, "-t", pictures, "-o", tmp_path / "x.safetensors", "--dry-run"]
    code, text, _ = cli(*args)
    assert code == 0
    assert "would write" in text
    assert re.search(r"recipe\.batch_size\s+20\b", text) and "recipe.search" not in text
    code, text, _ = cli(*args, "--json")
    found = json.loads(text)
    assert found["estimated_seconds"] > 0
    assert found["estimated_memory_bytes"] > 1e7
    assert found["task"]["splits"] == {"train": 28, "val": 4, "test": 8}
    assert list(tmp_path.iterdir()) == []


def test_few_shots_vary_with_the_seed_but_splits_do_not(cli, pictures, tmp_path):
    found = [
        json.loads(cli(*FIT, "-t", pictures, "-o", tmp_path / "x.safetensors", "--dry-run", "--few-shot", 2, "--json",
                       "--seed", seed)[1])["task"]["splits"]
        for seed in (0, 1)
    ]  # fmt: skip
    assert found[0] == found[1] == {"train": 4, "val": 4, "test": 8}


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--set", "lrr=1"], 2, "Did you mean lr?"),
        (["--set", "seed=1"], 2, "must be a setting of blm"),
        (["-m", "blmm"], 2, "Did you mean blm?"),
        (["-o", "x.bin"], 2, ".safetensors"),
        (["-s", "bundled/nope"], 1, "Did you mean"),
        (["-t", "nowhere"], 1, "nowhere"),
        (["--device", "qpu"], 2, "device"),
        (["--preset", "fast"], 2, "preset"),
    ],
)
def test_fit_refuses_early(cli, tmp_path, monkeypatch, extra, code, words):
    monkeypatch.chdir(tmp_path)
    got, out, err = cli(*FIT, "-t", "bundled/digits", "-o", "x.safetensors", *extra)
    assert (got, out) == (code, "")
    assert words in err
    assert err.count("error: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_picture_can_be_left_out(cli, pictures, tmp_path):
    data = tmp_path / "data"
    for folder in pictures.iterdir():
        (data / folder.name).mkdir(parents=True)
        for file in folder.iterdir():
            (data / folder.name / file.name).write_bytes(file.read_bytes())
    (data / "dunkel ü" / "kaputt.png").write_bytes(b"nothing")
    args = [*FIT, "-t", data, "-o", tmp_path / "x.safetensors", "--dry-run"]
    assert cli(*args)[0] == 1
    code, _, err = cli(*args, "--skip-unreadable")
    assert code == 0
    assert "warning: " in err
    assert "kaputt.png" in err


def test_show_reads_only_the_file(cli, program):
    code, text, _ = cli("show", program)
    assert code == 0
    for word in ("(learnable; input; additive; statistical)", "dunkel ü, hell 你好", "fingerprint", "@misc{blm"):
        assert word in text
    found = json.loads(cli("show", program, "--json")[1])
    assert found["bytes"] == program.stat().st_size
    assert found["task"]["classes"] == ["dunkel ü", "hell 你好"]


def test_evaluate_sees_the_split_that_fit_saw(cli, program, pictures):
    code, text, _ = cli("evaluate", program, "-t", pictures, "--json")
    assert code == 0
    found, card = json.loads(text), json.loads(cli("show", program, "--json")[1])
    assert found["accuracy"] == card["metrics"]["test_accuracy"]
    assert found["inputs"] == 8
    assert json.loads(cli("evaluate", program, "-t", pictures, "--json", "--split", "all")[1])["inputs"] == 40
    assert "95 % interval" in cli("evaluate", program, "-t", pictures)[1]


def test_evaluate_refuses_other_classes_and_other_sources(cli, program, pictures):
    code, out, err = cli("evaluate", program, "-t", "bundled/digits")
    assert (code, out) == (1, "")
    assert "classes" in err
    code, out, err = cli("evaluate", program, "-t", pictures, "-s", "timm/resnet10t?pretrained=false")
    assert (code, out) == (1, "")
    assert "--force" in err


def test_predict_files_folders_and_stdin(cli, program, pictures, tmp_path):
    files = names(pictures)
    code, text, err = cli("predict", program, pictures, "-f", "csv", "--top", 5, "--batch-size", 7)
    assert (code, err) == (0, "")
    rows = list(csv.reader(text.splitlines()))
    assert rows[0] == ["file", "prediction", "confidence", "prediction_2", "confidence_2"]
    assert sorted(r[0] for r in rows[1:]) == files
    out = tmp_path / "answers.jsonl"
    code, text, _ = cli("predict", program, *files[:3], files[0], "-f", "jsonl", "-o", out)
    assert (code, text) == (0, "")
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [f["file"] for f in found] == [*files[:3], files[0]]
    assert {f["prediction"] for f in found} <= {"dunkel ü", "hell 你好"}
    done = process("predict", program, "-", "-f", "jsonl", text="\n".join(files[:2]) + "\n")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == files[:2]


def test_predict_reports_what_it_cannot_read_and_goes_on(cli, program, pictures, tmp_path):
    good, bad, empty = names(pictures)[0], tmp_path / "kaputt.png", tmp_path / "leer"
    bad.write_bytes(b"no picture")
    empty.mkdir()
    code, text, err = cli("predict", program, bad, good, tmp_path / "fehlt.png", empty)
    assert code == 1
    assert err.count("error: ") == 3
    assert text.count("\n") == 2
    assert good[-20:] in text
    out = tmp_path / "a.csv"
    out.write_text("old")
    code, text, err = cli("predict", program, good, bad, "--strict", "-f", "csv", "-o", out)
    assert (code, text) == (1, "")
    assert err.count("error: ") == 1
    assert out.read_text() == "old"


def test_predict_names_cannot_drive_the_terminal(cli, program, pictures, tmp_path):
    evil = tmp_path / "a\x1b[31mb.png"
    evil.write_bytes((pictures / "dunkel ü" / "bild [red]0.png").read_bytes())
    code, text, _ = cli("predict", program, evil)
    assert code == 0
    assert "\x1b" not in text


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes of that kind")
def test_a_reader_that_leaves_is_no_traceback(program, pictures):
    import subprocess

    command = f'"{sys.executable}" -m reprogram predict "{program}" "{pictures}" --batch-size 1 | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("file")
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


def test_report_is_written(cli, program, pictures, tmp_path):
    out = tmp_path / "r.html"
    code, text, _ = cli("report", program, "-t", pictures, "-o", out, "--controls", "none")
    assert (code, text.strip()) == (0, str(out).strip())
    assert "<html" in out.read_text(encoding="utf-8")


def test_a_missing_report_extra_is_a_hint(cli, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    out = tmp_path / "x.safetensors"
    code, text, err = cli(*FIT, "-t", pictures, "-o", out, "--controls", "none")
    assert code == 0
    assert "warning: No report" in err
    assert "reprogram[report]" in err
    assert "reprogram report" in text


@pytest.mark.slow
def test_the_demo(cli, tmp_path):
    code, text, err = cli("demo", "--quick", "--no-texts", "--out", tmp_path / "demo")
    assert code == 0, err
    for word in ("no_edit", "blm_plus", "linear_probe", "95 % interval", "loaded again", "confidence"):
        assert word in text
    assert len(list((tmp_path / "demo").glob("*.safetensors"))) == 6
    assert len(list((tmp_path / "demo").glob("*.html"))) == 7
    assert len(list((tmp_path / "demo" / "pictures").glob("*.png"))) == 8


def test_the_demo_on_texts(tmp_path, monkeypatch, capsys):
    from reprogram.cli import _demo_text
    from reprogram.testing import tiny_language_model

    model, tokenizer = tiny_language_model("gpt2")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(_demo_text, "SOURCE", f"hf/{tmp_path / 'model'}")
    _demo_text.text_demo(tmp_path, seed=0, quick_scale=True)
    assert "orders as JSON" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "texts").glob("*.safetensors")} == {
        "orders.safetensors", "orders-compiled.safetensors",
    }  # fmt: skip
    monkeypatch.setattr(_demo_text, "SOURCE", f"hf/{tmp_path / 'nowhere'}")
    _demo_text.text_demo(tmp_path, seed=0, quick_scale=True)
    assert "left out" in capsys.readouterr().err
