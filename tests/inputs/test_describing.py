"""A writer is asked until there are enough sentences of use, and no longer."""

import pytest

from reprogram.core.errors import ConfigError
from reprogram.core.writing import ASSISTANT, USER, Writing
from reprogram.inputs.describing import Describing, ask, describe
from reprogram.testing import PromptFake, scripted_source
from reprogram.testing.scripted import cut

LONG = "This sentence is long enough, number"


def numbered(_, i):
    return f"{LONG} {i}. And more."


def test_enough_comes_in_one_round_and_every_question_has_its_share():
    writer = scripted_source([("one", lambda _, i: f"{LONG} one {i}"), ("two", lambda _, i: f"{LONG} two {i}")])
    found = describe(writer, ["one?", "two?"], Describing(count=4))
    assert found == [f"{LONG} {name} {i}." for i in range(2) for name in ("one", "two")]
    assert writer.calls == [f"{USER}one?{ASSISTANT}", f"{USER}two?{ASSISTANT}"]


def test_only_sentences_of_use_are_kept():
    texts = ["Too short", "* " * 30, LONG + "  A", LONG.lower() + " a", "Here is a list of many things:\n1", "12 " * 9]
    writer = scripted_source([("", lambda _, i: texts[i % len(texts)])])
    assert describe(writer, ["?"], Describing(count=8, rounds=2)) == [f"{LONG} A."]


def test_rounds_go_on_with_other_draws_and_end():
    asked = []

    class Repeats:
        def write(self, prompt, writing, sample):
            asked.append(writing) if sample == 0 else None
            return cut(LONG, writing)

        def score(self, prompt, choice):
            return None

        def digest(self):
            return ""

    writer = PromptFake(Repeats(), "Repeats")
    assert describe(writer, ["?"], Describing(count=3, rounds=4, seed=5)) == [f"{LONG}."]
    assert len(asked) == 4
    assert len({writing.seed for writing in asked}) == 4
    assert all(writing.samples >= 2 and writing.stop == (".",) for writing in asked)
    assert asked[0].samples > asked[1].samples  # what came is not asked for again


def test_a_text_that_was_cut_off_keeps_its_end():
    writer = scripted_source([("", "a b c d e f")])
    assert ask(writer, ["?"], Writing(tokens=5)) == [["a b c"]]
    assert ask(writer, ["?"], Writing(tokens=50), chat=False) == [["a b c d e f."]]
    assert writer.calls[-1] == "?"


def test_many_questions_go_out_some_at_a_time():
    writer = scripted_source([("", lambda found, i: f"{found.string} {i}")])
    found = ask(writer, [f"q{n}" for n in range(40)], Writing(tokens=50, samples=2, temperature=1.0), chat=False)
    assert [len(one) for one in found] == [2] * 40
    assert found[39] == ["q39 0.", "q39 1."]


@pytest.mark.parametrize("bad", [{"count": 0}, {"rounds": 0}, {"tokens": 0}, {"temperature": 0.0}, {"top_p": 1.5}])
def test_settings_are_checked(bad):
    with pytest.raises(ConfigError):
        Describing(**bad)


def test_questions_are_needed():
    with pytest.raises(ConfigError, match="questions"):
        describe(scripted_source([("", numbered)]), [], Describing())
