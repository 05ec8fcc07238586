"""`reprogram describe`: a file that grows class by class, and goes on where it was."""

import json

import pytest

from reprogram import sources
from reprogram.inputs import cause_sets, read_descriptions
from reprogram.testing import scripted_source

ANY = ("", lambda found, i: f"Answer number {i} to {found.string[1:-1].removesuffix('.')}")


@pytest.fixture
def writer(monkeypatch):
    """Stands for every source; tests put rules in it."""
    made = scripted_source([ANY])
    loaded = []

    def load(ref):
        loaded.append(ref)
        return made

    monkeypatch.setattr(sources, "load_source", load)
    made.loaded = loaded
    return made


def test_it_writes_what_methods_read(cli, writer, tmp_path):
    out = tmp_path / "d.json"
    code, text, notes = cli("describe", "--classes", "daisy, rose", "-o", out, "--number", 3, "--kind", "both")
    assert code == 0, notes
    found = read_descriptions(out, ("rose", "daisy"))
    assert {one: [len(texts) for texts in several] for one, several in found.items()} == {
        "descriptive": [3, 3], "distinctive": [3, 3],
    }  # fmt: skip
    assert "a rose" in found["descriptive"][0][0]
    assert writer.loaded == ["bundled/smollm2-135m"]
    assert "4/4 rose, distinctive: 3 sentences" in notes
    assert "written" in text


def test_what_is_there_is_not_asked_again(cli, writer, tmp_path):
    out = tmp_path / "d.json"
    assert cli("describe", "--classes", "daisy", "-o", out, "--number", 2, "-q")[0] == 0
    before = json.loads(out.read_text())
    writer.calls.clear()
    code, text, _ = cli("describe", "--classes", "daisy,rose", "-o", out, "--number", 2, "--json")
    assert code == 0
    facts = json.loads(text)
    assert (facts["kept"], facts["written"], facts["short"]) == (1, 1, [])
    assert not any("daisy" in call for call in writer.calls)
    assert json.loads(out.read_text())["daisy"] == before["daisy"]
    writer.loaded.clear()
    assert cli("describe", "--classes", "daisy,rose", "-o", out)[0] == 0
    assert writer.loaded == []  # no model for nothing


def test_what_came_before_a_failure_is_in_the_file(cli, writer, tmp_path, monkeypatch):
    out = tmp_path / "d.json"

    def stop(found, i):
        raise KeyboardInterrupt

    writer.speaker.rules[:0] = scripted_source([("rose", stop)]).speaker.rules
    assert cli("describe", "--classes", "daisy,rose,tulip", "-o", out, "--number", 2)[0] == 130
    assert list(json.loads(out.read_text())) == ["daisy"]
    del writer.speaker.rules[0]
    assert cli("describe", "--classes", "daisy,rose,tulip", "-o", out, "--number", 2)[0] == 0
    assert set(json.loads(out.read_text())) == {"daisy", "rose", "tulip"}


def test_too_few_sentences_are_told_and_kept_and_none_is_an_error(cli, writer, tmp_path):
    out = tmp_path / "d.json"
    writer.speaker.rules[:0] = scripted_source(
        [("daisy", "Always the same sentence here"), ("rose", "Short")]
    ).speaker.rules
    code, _, notes = cli("describe", "--classes", "daisy", "-o", out, "--number", 5, "--rounds", 2)
    assert code == 0
    assert "Fewer sentences than asked for: daisy (descriptive): 1" in notes
    assert json.loads(out.read_text()) == {"daisy": {"descriptive": ["Always the same sentence here."]}}
    code, text, notes = cli("describe", "--classes", "daisy,rose", "-o", out, "--number", 5, "--rounds", 2, "--json")
    assert code == 1
    assert "nothing of use about ['rose']" in json.loads(text)["error"]["message"]
    assert list(json.loads(out.read_text())) == ["daisy"]


def test_causes_are_several_sets_with_questions_of_their_own(cli, writer, tmp_path):
    out = tmp_path / "d.json"
    assert cli("describe", "--classes", "a,b", "-o", out, "--kind", "causes", "--sets", 2, "--number", 2)[0] == 0
    found = read_descriptions(out, ("a", "b"), cause_sets(2))
    assert all(len(texts) == 2 for several in found.values() for texts in several)
    assert found["cause_1"] != found["cause_2"]


def test_own_questions_and_plain_prompts(cli, writer, tmp_path):
    out = tmp_path / "d.json"
    args = ("describe", "--classes", "ant", "-o", out, "--question", "What is {a class} for?", "--no-chat")
    assert cli(*args)[0] == 0
    assert set(writer.calls) == {"What is an ant for?"}


def test_classes_come_from_a_task(cli, writer, tmp_path):
    out = tmp_path / "d.json"
    assert cli("describe", "--task", "bundled/digits", "-o", out, "--number", 1)[0] == 0
    assert list(json.loads(out.read_text())) == [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    "args, code, message",
    [
        ((), 2, "must be one of the two"),
        (("--classes", "a", "--task", "bundled/digits"), 2, "must be one of the two"),
        (("--classes", "a,a"), 2, "each once"),
        (("--classes", ","), 2, "one or more"),
        (("--classes", "a,+"), 2, "letters or digits"),
        (("--classes", "a", "--question", "What?"), 2, "layout"),
        (("--classes", "a", "--question", "{class}?", "--kind", "both"), 2, "one kind"),
        (("--classes", "a", "-o", "/nowhere/at/all.json"), 2, "folder"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(cli, writer, args, code, message):
    got, _, notes = cli("describe", *args)
    assert got == code
    assert message in notes
    assert writer.loaded == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "JSON"),
        ('{"a": ["flat"]}', "sets of texts by class"),
        ('{"b": {"descriptive": ["x"]}}', "must be about the 1 classes"),
    ],
)
def test_a_file_of_something_else_is_left_alone(cli, writer, tmp_path, text, message):
    out = tmp_path / "d.json"
    out.write_text(text)
    code, _, notes = cli("describe", "--classes", "a", "-o", out)
    assert code == 1
    assert message in notes
    assert out.read_text() == text


def test_a_source_that_does_not_write_is_refused(cli, monkeypatch, tmp_path):
    from reprogram.testing import tiny_source

    monkeypatch.setattr(sources, "load_source", lambda _: tiny_source())
    code, _, notes = cli("describe", "--classes", "a", "-o", tmp_path / "d.json")
    assert code == 1
    assert "must be a language model that writes" in notes
