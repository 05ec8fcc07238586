"""The way of a user with texts: a small language model in a folder, a table of sentences, and every command on them."""

import csv
import json

import peft
import pytest
import torch
from safetensors.torch import save_file

from reprogram.catalogue import load
from reprogram.cli import main
from reprogram.testing import tiny_language_model, tiny_text_task
from tests.cli.conftest import process

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks the old way

WORDS = {"bad": "bad", "good": "good", "fun": "fun"}
TEMPLATE = "{text} It was"
SMALL = ["--set", "tokens=3", "--set", "epochs=1", "--set", "batch_size=16"]


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Models and tables."""
    home = tmp_path_factory.mktemp("texte [x]")
    for kind in ("gpt2", "llama"):
        model, tokenizer = tiny_language_model(kind)
        model.save_pretrained(home / kind)
        tokenizer.save_pretrained(home / kind)
    for name, task in (("small", tiny_text_task(per_class=8)), ("back", tiny_text_task(per_class=8, generates=True))):
        split = task.train
        rows = [split.fetch(torch.tensor([i])) for i in range(len(split))]
        with (home / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "completion" if name == "back" else "label"])
            for i, row in enumerate(rows):
                answer = row.targets[0] if row.targets else task.classes[int(split.labels[i])]
                writer.writerow([row.columns["text"][0], answer])
    return home


@pytest.fixture(scope="session")
def reference(home):
    return f"hf/{home / 'gpt2'}"


@pytest.fixture(scope="session")
def program(home, reference):
    out = home / "mein programm.safetensors"
    code = main(["fit", "-s", reference, "-t", str(home / "small.csv"), "-m", "prompt_tuning", "-o", str(out), *SMALL,
                 "--set", f"template={TEMPLATE}", "--set", 'words=["bad", "good", "fun"]', "-q", "--no-report",
                 "--controls", "none"])  # fmt: skip
    assert code == 0
    return out


@pytest.fixture(scope="session")
def writer(home, reference):
    out = home / "writer.safetensors"
    code = main(["fit", "-s", reference, "-t", str(home / "back.csv"), "-m", "prefix_tuning", "-o", str(out), *SMALL,
                 "-q", "--no-report", "--controls", "none", "--set", "hidden=null"])  # fmt: skip
    assert code == 0
    return out


def jsonl(text):
    return [json.loads(line) for line in text.splitlines()]


def close(one, two):
    """The same answers to the same texts, but for how batches round."""
    assert [(row["text"], row["prediction"]) for row in one] == [(row["text"], row["prediction"]) for row in two]
    for a, b in zip(one, two, strict=True):
        for x, y in zip(a["top"], b["top"], strict=True):
            assert abs(x["confidence"] - y["confidence"]) < 2e-5


def test_fit_says_what_is_next_and_repeats_from_its_own_config(cli, home, reference, tmp_path):
    out = tmp_path / "a.safetensors"
    code, text, err = cli("fit", "-s", reference, "-t", home / "small.csv", "-m", "prompt_tuning", "-o", out, *SMALL,
                          "--set", r"template=Mood: {text}\nIt was")  # fmt: skip
    assert code == 0, err
    for word in ("prompt_tuning", "no edit", "linear probe", "majority class", "TEXT..."):
        assert word in text
    assert "<html" in (tmp_path / "a.html").read_text(encoding="utf-8")
    again = tmp_path / "b.safetensors"
    code, _, err = cli("fit", "--config", tmp_path / "a.run" / "config.yaml", "--out", again, "--no-report", "-q",
                       "--controls", "none")  # fmt: skip
    assert (code, err) == (0, "")
    one, two = (json.loads(cli("show", p, "--json")[1]) for p in (out, again))
    assert one["config"] == two["config"]
    assert one["config"]["template"] == "Mood: {text}\nIt was"
    assert one["metrics"]["test_accuracy"] == two["metrics"]["test_accuracy"]


def test_dry_run_speaks_of_texts(cli, home, reference, tmp_path):
    args = ["fit", "-s", reference, "-m", "prompt_tuning", "-o", tmp_path / "x.safetensors", "--dry-run", *SMALL]
    code, text, _ = cli(*args, "-t", home / "small.csv", "--few-shot", 2)
    assert code == 0
    assert "3 classes, texts (text)" in text
    assert "train 6," in text
    assert "it writes, texts (text)" in cli(*args, "-t", home / "back.csv")[1]
    assert list(tmp_path.iterdir()) == []


def test_find_rate_suggests_and_writes_nothing(cli, home, reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["fit", "-s", reference, "-t", home / "small.csv", "-m", "prompt_tuning", *SMALL, "--find-rate"]
    code, text, _ = cli(*args)
    assert code == 0
    assert "--set lr=" in text
    assert text.count("*") >= 10
    found = json.loads(cli(*args, "--json")[1])
    assert len(found["rates"]) == len(found["losses"]) >= 10
    assert found["rates"][0] <= found["suggestion"] <= found["rates"][-1]
    assert f"--set lr={found['suggestion']:.2g}" in text
    assert found["recipe"] == 0.005
    assert list(tmp_path.iterdir()) == []
    code, out, err = cli("fit", "-s", reference, "-t", home / "small.csv", "-m", "no_edit", "--find-rate")
    assert (code, out) == (2, "")
    assert "something to learn" in err


def test_tasks_and_show_speak_of_texts(cli, home, program, writer):
    code, text, _ = cli("tasks", home / "small.csv")
    assert code == 0
    assert "classes" in text
    assert "fun" in text
    assert json.loads(cli("tasks", home / "small.csv", "--json")[1])["columns"] == ["text"]
    assert "answers  texts" in cli("tasks", home / "back.csv")[1]
    text = cli("show", program)[1]
    for word in ("texts (text)", "3: bad, fun, good", "(learnable; embedding; concatenative; rule-based)"):
        assert word in text
    assert "none: it writes" in cli("show", writer)[1]


def test_evaluate_sees_the_split_that_fit_saw(cli, home, program, writer):
    found = json.loads(cli("evaluate", program, "-t", home / "small.csv", "--json")[1])
    card = json.loads(cli("show", program, "--json")[1])
    assert found["accuracy"] == card["metrics"]["test_accuracy"]
    code, text, _ = cli("evaluate", writer, "-t", home / "back.csv")
    assert code == 0
    assert "perplexity" in text


def test_predict_texts_tables_lines_and_stdin(cli, home, program, tmp_path):
    texts = ["great happy film", "awful, boring", 'a "fine" Ünï 你好']
    code, text, err = cli("predict", program, *texts, "-f", "jsonl", "--top", 3)
    assert (code, err) == (0, "")
    wanted = jsonl(text)
    assert [row["text"] for row in wanted] == texts
    assert abs(sum(one["confidence"] for one in wanted[0]["top"]) - 1) < 1e-4
    assert wanted[0]["prediction"] in WORDS

    lines, table, rows = tmp_path / "t.txt", tmp_path / "t.csv", tmp_path / "t.jsonl"
    lines.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["TEXT", "id"], *([text, i] for i, text in enumerate(texts))])
    rows.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    for path in (lines, table, rows):
        close(jsonl(cli("predict", program, path, "-f", "jsonl", "--top", 3, "--batch-size", 2)[1]), wanted)

    done = process("predict", program, "-", "-f", "csv", text="\n".join(texts) + "\n")
    assert done.returncode == 0, done.stderr
    found = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["text"] for row in found] == texts
    assert [row["prediction"] for row in found] == [row["prediction"] for row in wanted]

    out = tmp_path / "answers.csv"
    code, text, _ = cli("predict", program, table, lines, "-f", "csv", "-o", out)
    assert (code, text) == (0, "")
    assert len(list(csv.reader(out.read_text(encoding="utf-8").splitlines()))) == 7
    assert "text" in cli("predict", program, texts[0])[1].splitlines()[0]


def test_texts_cannot_drive_the_terminal(cli, program):
    for text in (cli("predict", program, "a \x1b[31m film")[1], cli("generate", program, "a \x1b[31m film")[1]):
        assert "\x1b" not in text


def test_compile_predicts_the_same(cli, home, program, tmp_path):
    out = tmp_path / "fast.safetensors"
    code, text, _ = cli("compile", program, "-o", out, "--json")
    assert code == 0
    assert json.loads(text)["form"] == "compiled"
    one, two = (jsonl(cli("predict", p, home / "small.csv", "-f", "jsonl", "--top", 3)[1]) for p in (program, out))
    close(one, two)
    assert "compiled" in cli("show", out)[1]


def test_generate_writes(cli, program, writer, tmp_path):
    code, text, err = cli("generate", writer, "great film", "the boring plot", "--max-new-tokens", 4)
    assert (code, err) == (0, "")
    found = jsonl(cli("generate", writer, "great film", "-f", "jsonl", "--max-new-tokens", 4)[1])
    assert found[0]["text"] == "great film"
    assert found[0]["output"].strip() == text.splitlines()[0].strip()
    drawn = [cli("generate", writer, "a", "--temperature", 2, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert cli("generate", writer, "a", "-o", tmp_path / "o.txt")[:2] == (0, "")
    code, out, err = cli("predict", writer, "a")
    assert (code, out) == (2, "")
    assert "reprogram generate" in err


def test_report_is_written(cli, home, program, writer, tmp_path):
    for path, task in ((program, "small.csv"), (writer, "back.csv")):
        out = tmp_path / f"{path.stem}.html"
        code, text, err = cli("report", path, "-t", home / task, "-o", out, "--controls", "none")
        assert (code, text.strip()) == (0, str(out)), err
        assert "<html" in out.read_text(encoding="utf-8")


def test_nearest_tokens(cli, program):
    code, text, _ = cli("show", program, "--nearest", 2)
    assert code == 0
    assert "not a translation" in text
    found = json.loads(cli("show", program, "--nearest", 2, "--json")[1])["nearest"]
    assert [len(row) for row in found] == [2, 2, 2]
    assert all(-1 <= token["cosine"] <= 1 for row in found for token in row)
    assert "nearest" not in json.loads(cli("show", program, "--json")[1])


def test_export_and_import(cli, home, reference, program, tmp_path):
    code, text, _ = cli("export", program, "--out", tmp_path / "peft", "--json")
    assert code == 0
    assert json.loads(text)["template"] == TEMPLATE
    assert json.loads(text)["label_words"] == ["bad", "good", "fun"]
    model = peft.PeftModel.from_pretrained(tiny_language_model("gpt2")[0], tmp_path / "peft")
    learned = load(program).input.edits[1].values
    assert torch.equal(model.prompt_encoder["default"].embedding.weight, learned)

    back = tmp_path / "back.safetensors"
    code, text, err = cli("import", tmp_path / "peft", "-s", reference, "-o", back, "-t", home / "small.csv",
                          "--set", f"template={TEMPLATE}", "--set", 'words=["bad", "good", "fun"]')  # fmt: skip
    assert (code, err) == (0, "")
    assert "prompt_tuning" in text
    for form in ("jsonl", "csv"):
        one, two = (cli("predict", p, "great film", home / "small.csv", "-f", form)[1] for p in (program, back))
        assert one == two
    assert "imported from peft" in cli("show", back)[1]

    bare = tmp_path / "bare.safetensors"
    assert cli("import", tmp_path / "peft", "-s", reference, "-o", bare)[0] == 0
    assert cli("generate", bare, "great film", "--max-new-tokens", 3)[0] == 0
    assert "default" in cli("import", tmp_path / "peft", "-s", reference, "-o", back, "-t", home / "small.csv")[2]
    save_file({"x": learned.detach()}, tmp_path / "x.safetensors")
    code, text, _ = cli("import", tmp_path / "x.safetensors", "-s", reference, "-o", back, "--json")
    assert (code, json.loads(text)["numbers"]) == (0, 3 * 32)
    for command in (["predict", bare, "a"], ["evaluate", bare, "-t", home / "small.csv"]):
        code, out, err = cli(*command)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert "classes" in err


def test_combine(cli, program, tmp_path):
    out = tmp_path / "c.safetensors"
    code, text, _ = cli("combine", program, program, "-o", out, "--json")
    assert (code, json.loads(text)["numbers"]) == (0, 2 * 3 * 32)
    assert cli("predict", out, "great film")[0] == 0
    assert cli("combine", program, program, "-o", out, "--how", "interpolate", "-w", 0.25, "-w", 0.75)[0] == 0
    one, two = (cli("predict", p, "great film", "awful", "-f", "csv")[1] for p in (program, out))
    assert one == two


def test_bad_input_is_one_line_and_has_its_code(cli, home, program, writer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reference = f"hf/{home / 'gpt2'}"
    fit = ["fit", "-s", reference, "-t", home / "small.csv", "-m", "prompt_tuning", "-o", "x.safetensors", *SMALL]
    (tmp_path / "pairs.csv").write_text("premise,label\nx,a\ny,b\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "weights.bin").write_bytes(b"\x80\x04.")
    cases = [
        ([*fit, "--set", "template=It was"], 2, "column"),
        ([*fit, "--set", "template={txt} was"], 2, "txt"),
        ([*fit, "--set", 'words=["good", "good", "fun"]'], 2, "good"),
        ([*fit, "--set", 'words=["good"]'], 2, "words"),
        ([*fit, "--set", "tokens=0"], 2, "tokens"),
        ([*fit, "--set", "words=[1,"], 2, "YAML"),
        (["fit", "-s", reference, "-t", home / "small.csv", "-m", "vp", "-o", "x.safetensors"], 1, "image"),
        ([*fit, "-s", "hf/nowhere/at-all"], 1, "nowhere"),
        ([*fit, "-t", tmp_path / "none.csv"], 1, "none.csv"),
        (["predict", program, ""], 1, "empty"),
        (["predict", program, tmp_path / "none.csv"], 1, "none.csv"),
        (["predict", program, tmp_path / "none.txt"], 1, "none.txt"),
        (["predict", program, tmp_path / "pairs.csv"], 1, "text"),
        (["evaluate", program, "-t", home / "back.csv"], 1, "classes"),
        (["evaluate", program, "-t", home / "small.csv", "-s", f"hf/{home / 'llama'}"], 1, "--force"),
        (["show", writer, "--nearest", 3], 1, "no tokens"),
        (["compile", program, "-o", "x.bin"], 2, ".safetensors"),
        (["combine", program, "-o", "x.safetensors"], 2, "two or more"),
        (["combine", program, writer, "-o", "x.safetensors"], 2, "one kind"),
        (["combine", program, program, "-o", "x.safetensors", "-w", "1"], 2, "weights"),
        (["import", tmp_path / "weights.bin", "-s", reference, "-o", "x.safetensors"], 1, "pickle"),
        (["import", tmp_path, "-s", reference, "-o", "x.safetensors"], 1, "adapter_config.json"),
        (["import", tmp_path, "-s", reference, "-o", "x"], 2, ".safetensors"),
        (["import", program, "-s", reference, "-o", "x.safetensors", "--set", "templat=x"], 2, "template"),
        (["export", program, "--out", home], 1, "empty folder"),
        (["diagnose", "-s", reference, "-t", home / "small.csv", "-m", "prompt_tuning"], 1, "texts"),
    ]  # fmt: skip
    before = sorted(p.name for p in tmp_path.iterdir())
    for args, wanted, word in cases:
        code, out, err = cli(*args, "-q")
        assert (code, out) == (wanted, ""), (args, code, out, err)
        assert err.startswith("error: "), (args, err)
        assert err.count("\n") == 1, err
        assert word in err, (args, err)
        assert "bug" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before
