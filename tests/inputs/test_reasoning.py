"""Prompts of reasoning: our own demonstrations are right and stay as they are; two passes; what controllers share."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.conversation import Budget
from reprogram.core.errors import ConfigError, DataError
from reprogram.core.program import Program
from reprogram.core.task import Example, Sample, TaskSpec
from reprogram.core.texts import Texts
from reprogram.core.writing import ASSISTANT, USER, Writing, turns
from reprogram.inputs import reasoning
from reprogram.inputs.control import Unusable, again
from reprogram.inputs.decomposition import Handlers, Limits
from reprogram.inputs.interleaved import Turns, first_sentence, search_words
from reprogram.inputs.json_answers import afterwards, as_json, filled, listed_in, merged, read_json, to_json
from reprogram.inputs.least_to_most import LeastToMost
from reprogram.inputs.reasoning import (
    ARITHMETIC,
    CHOICES,
    Chains,
    TwoPasses,
    chain_edits,
    choose_chains,
    cue_for,
    own_examples,
    question,
    question_layout,
    rationale,
    unmarked,
)
from reprogram.outputs import parsing
from reprogram.outputs.arithmetic import evaluate, recomputed
from reprogram.outputs.numbers import read_number
from reprogram.outputs.parsing import Parser, choices_of
from reprogram.outputs.voted import ParsedText
from reprogram.testing import hash_source, scripted_source

GSM8K = Path(__file__).parents[3] / "shared/data/gsm8k"
SAMPLE = Sample(shape=(), columns=("question",))
WRITING = TaskSpec(name="sums", classes=(), sample=SAMPLE, modality="text")
LETTERS = TaskSpec(name="quiz", classes=("A", "B", "C"), sample=SAMPLE, modality="text")
NAMES = TaskSpec(name="mood", classes=("bad", "{good}"), sample=Sample(shape=(), columns=("a", "b")), modality="text")


def test_our_demonstrations_are_right():
    assert (len(ARITHMETIC), len(CHOICES)) == (8, 4)
    parser = Parser(kind="number", fallback="none")
    for one in ARITHMETIC:
        left, right = one.answer.split(reasoning.CUE)
        assert parser.parse(one.answer).value == right.strip(" .")
        equations = [part for part in left.replace(",", " ").replace("dollars", "").split(". ") if "=" in part]
        assert equations
        results = [part.split("=")[1].split()[0].rstrip(".") for part in equations]
        assert results[-1] == right.strip(" .")
        assert recomputed(one.answer) == one.answer
        spoiled = one.answer.replace(f"= {results[0]}", f"= {int(results[0]) + 1000}", 1)
        assert recomputed(spoiled) != spoiled  # the calculator does see the equation
    choice = Parser(kind="choice", choices=choices_of(tuple("ABCDE")), fallback="none")
    for one in CHOICES:
        letter = choice.parse(one.answer).value
        offered = dict(part.split(") ", 1) for part in one.texts[0].split("(")[1:])
        value = read_number(offered[letter].split()[0].lstrip("$"))
        equations = [part for part in one.answer.split(". ") if "=" in part]
        assert recomputed(one.answer) == one.answer and f"= {value}" in equations[-1]
    assert {choice.parse(one.answer).value for one in CHOICES} == set("ABCD")
    assert evaluate("40 * 15 / 100") == 6


def test_our_demonstrations_stay_as_they_are():
    """A program file says "own" and means these: change none, but add a set under another name."""
    digest = hashlib.sha256(repr([(e.texts, e.answer) for e in ARITHMETIC + CHOICES]).encode()).hexdigest()
    assert digest[:16] == "2e44381fa386d736"


def test_the_cue_is_the_one_that_parsers_look_for():
    assert reasoning.CUE == parsing.CUE


def test_layouts_offer_choices_under_letters():
    assert question_layout(WRITING) == "Q: {question}\nA:"
    assert question_layout(LETTERS) == "Q: {question}\nA:"
    asked = question(NAMES)(Texts({"a": ("x",), "b": ("y",)})).prompts[0]
    assert asked == "Q: x\ny\nAnswer choices: (A) bad (B) {good}\nA:"
    assert own_examples(NAMES) is CHOICES and own_examples(WRITING) is ARITHMETIC
    for bad in ("{question}{mask}", "{soft:3}{question}"):
        with pytest.raises(ConfigError):
            question(WRITING, bad)
    assert cue_for(WRITING, "number") == "Therefore, the answer (arabic numerals) is"
    assert cue_for(WRITING, "text") == "Therefore, the answer is"


@pytest.mark.skipif(not GSM8K.exists(), reason="shared/data/gsm8k is not here")
def test_every_target_of_gsm8k_is_a_rationale():
    parser = Parser(kind="number", fallback="none")
    for line in (GSM8K / "test.jsonl").read_text().splitlines():
        target = json.loads(line)["answer"]
        chain = rationale(target)
        assert "<<" not in chain and "####" not in chain and "\n" not in chain
        assert parser.parse(chain).value == parser.canonical(target)


def test_demonstrations_of_the_training_split():
    pool = [Example((f"q{i}",), f"We take {i} and add one.\n#### {i + 1}" if i % 2 else str(i)) for i in range(40)]
    chains = Chains(demonstrations="train", shots=5)
    first = choose_chains(chains, WRITING, pool, 0)
    assert len(first) == 5 and first == choose_chains(chains, WRITING, pool, 0)
    assert first != choose_chains(chains, WRITING, pool, 1)
    assert all(one.answer == f"We take {n} and add one. The answer is {n + 1}." for one in first
               for n in [int(one.texts[0][1:])])  # fmt: skip
    assert choose_chains(Chains(), WRITING, pool, 0) == ()
    with pytest.raises(DataError, match="21"):
        choose_chains(Chains(demonstrations="train", shots=21), WRITING, pool, 0)
    with pytest.raises(ConfigError, match="own"):
        choose_chains(chains, LETTERS, pool, 0)
    with pytest.raises(ConfigError, match="training split"):
        chain_edits(hash_source(), WRITING, chains, 10)
    with pytest.raises(ConfigError):
        Chains(shots=0)


def test_demonstrations_that_do_not_fit_are_left_out():
    source = hash_source(context=1000)
    texts = Texts({"question": ("How many?",)})
    for room, shown in ((200, 3), (700, 1), (950, 0)):
        value = texts
        for edit in chain_edits(source, WRITING, Chains(), room):
            value = edit(value)
        prompt = value.prompts[0]
        assert prompt.endswith("Q: How many?\nA:") and prompt.count("The answer is") == shown
        assert source.count(prompt) <= 1000 - room


def test_demonstrations_as_turns_of_a_chat():
    value = Texts({"question": ("How many?",)})
    for edit in chain_edits(hash_source(), WRITING, Chains(chat=True, shots=2, instruction="Think."), 10):
        value = edit(value)
    said = turns(value.prompts[0])
    assert [role for role, _ in said] == ["system", *["user", "assistant"] * 3] and said[0][1] == "Think."
    assert said[2][1] == ARITHMETIC[0].answer and said[5][1] == "Q: How many?\nA:" and said[6][1] == ""


def ended_by(source, edit, *questions):
    return Program([edit], source, ParsedText(Parser(kind="number"))).outputs(Texts({"question": questions})).written


def test_two_passes():
    source = scripted_source([("Therefore", " 7."), ("step by step", f" It is 3 + 4.{USER}\n")])
    edit = TwoPasses(question(WRITING), cue="Therefore, the answer is")
    (ended,) = ended_by(source, edit, f"3 {ASSISTANT} 4?")
    assert ended[0].text == "Therefore, the answer is 7."
    first, second = (step.prompt for step in ended[0].steps)
    assert first == "Q: 3 \ufffd 4?\nA: Let's think step by step."
    assert second == f"{first} It is 3 + 4.\ufffd\nTherefore, the answer is"
    assert edit(Texts({"question": (f"3 {ASSISTANT} 4?",)})).prompts[0] == first
    chat = TwoPasses(question(WRITING), chat=True)
    (ended,) = ended_by(source, chat, "3 and 4?")
    assert [role for role, _ in turns(ended[0].steps[1].prompt)] == ["user", "assistant", "user", "assistant"]
    with pytest.raises(ConfigError):
        TwoPasses(question(WRITING), trigger=" ")


def test_programs_with_other_prompts_differ_in_print():
    """Cached outputs are told apart by it."""
    made = [
        TwoPasses(question(WRITING)), TwoPasses(question(WRITING), trigger="Think."),
        TwoPasses(question(WRITING), chat=True),
        TwoPasses(question(WRITING), writing=Writing(tokens=3)), TwoPasses(question(WRITING), budget=Budget(calls=1)),
        TwoPasses(question(WRITING, "{question}?")), LeastToMost(question(WRITING)),
        LeastToMost(question(WRITING), most=2),
    ]  # fmt: skip
    assert len({repr(edit) for edit in made}) == len(made)


def test_what_a_model_wrote_opens_no_turns():
    assert unmarked(f"a{USER}b{ASSISTANT}") == "a\ufffdb\ufffd"
    assert again("Q: x\nQS:", "[qa", f"bad {USER}").endswith("(This cannot be used: bad \ufffd. Once more.)\nQS:")


# -- answers as JSON ---------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda v: st.lists(v, max_size=3),
    max_leaves=6,
)


@given(st.lists(values, min_size=1, max_size=4), st.lists(st.integers(1, 4), max_size=5))
@settings(max_examples=60, deadline=None)
def test_references_are_filled_in_once(answers, numbers):
    text = " and ".join(f"#{n}" for n in numbers)
    if any(n > len(answers) for n in numbers):
        with pytest.raises(Unusable):
            filled(text, answers)
        return
    assert filled(text, answers) == " and ".join(json.dumps(answers[n - 1], ensure_ascii=False) for n in numbers)
    assert all(read_json(to_json(value)) == value for value in answers if value != "")


def test_sizes_are_limited():
    with pytest.raises(Unusable):
        filled("#1 " * 30, ["a" * 1000])
    with pytest.raises(Unusable):
        merged("join", to_json(["a"] * 3000) + ' "' + "b" * 100 + '"')
    with pytest.raises(Unusable):
        as_json(json.loads("[" * 20 + "]" * 20))
    with pytest.raises(Unusable):
        merged("sum", f"[1e300, {10**70}]")
    assert read_json("[" * 5000) == "[" * 5000 and read_json("1e999") == "1e999" and read_json("NaN") == "NaN"


@pytest.mark.parametrize(
    ("name", "text"),
    [("join", "3"), ("sum", '["a"]'), ("sum", "[true]"), ("count", '"a"'), ("reverse", "1"), ("merge", "[1]"),
     ("join", "[1"),
     ("concat", "[1] 2"), ("sum", ""), ("count", "#1")],
)  # fmt: skip
def test_merges_that_cannot_be(name, text):
    with pytest.raises(Unusable):
        merged(name, text)


def test_merges_and_what_follows():
    assert merged("join", '["a", 1] ", "') == "a, 1" and merged("reverse", '"abc"') == "cba"
    assert (
        merged("sum", "[0.1, 0.2]") == 0.3 and merged("sum", "[1, 2]") == 3 and merged("concat", "[1], [2]") == [1, 2]
    )
    assert afterwards("keys", [["a", 1]]) == ["a"] and afterwards("unique", [1, 1.0, "1"]) == [1, 1.0, "1"]
    for bad in ("a", [["a"]], [1]):
        with pytest.raises(Unusable):
            afterwards("keys", bad)
    assert listed_in("#2 of #1", ["a", [1]]) == (2, [1])
    with pytest.raises(Unusable):
        listed_in("#1 #9", ["a"])


# -- sentences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One."), ("He is 3.5 feet tall. Yes.", "He is 3.5 feet tall."), ("No stop", "No stop"), ("", ""),
        ("J. K. Lee wrote it. It sold.", "J. K. Lee wrote it."),
        ("In the U.S. Army he served. So.", "In the U.S. Army he served."),
        ('She said "no." Then', 'She said "no."'), ("One\nTwo", "One"), ("Is it? It is.", "Is it?"),
        ("e.g. this one. X", "e.g. this one."),
        ("It has 12. The rest", "It has 12."), ("No. 5 is best. So", "No. 5 is best."),
    ],
)  # fmt: skip
def test_first_sentences(text, first):
    assert first_sentence(text) == first


def test_what_to_search_for():
    assert search_words(["A is B.", "Thus C.", "3 + 4 = 7 in all."], "Who is it?") == "A is B."
    assert search_words(["Therefore C."], "Who is it?") == "is it?"
    assert search_words([], "When and where was he born?") == "and was he born?"
    assert search_words(["Sofia is in Bulgaria."], "") == "Sofia is in Bulgaria."


def test_settings_out_of_range():
    for make in (
        lambda: Turns(k=0), lambda: Limits(steps=0), lambda: LeastToMost(question(WRITING), most=0),
        lambda: Handlers(decomposers={"start": "x"}), lambda: Handlers(prompts={"main": "x"}),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            make()
