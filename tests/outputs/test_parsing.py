"""Parsers: against real solutions with known marks, against plain references, and on texts meant to trip them."""

import json
import re
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError
from reprogram.core.task import Example, Sample, TaskSpec
from reprogram.outputs.json_schema import canonical_json, fault, json_values, read_schema
from reprogram.outputs.numbers import canonical_number, numbers, read_number
from reprogram.outputs.parsing import Failure, Parsed, Parser, canonical_text, choices_of, parser_for

SOLUTIONS = Path(__file__).parents[3] / "shared/data/gsm8k/example_model_solutions.jsonl"
MODELS = {"6b_finetuning": 0.2168, "6b_verification": 0.3904, "175b_finetuning": 0.3472, "175b_verification": 0.5625}
ABC = choices_of(("A", "B", "C", "D", "E"))
RULES = {
    "the line A:": Parser(kind="number", markers=("line",), fallback="none"),
    "the last number": Parser(kind="number", markers=(), fallback="last"),
    "the last run of digits": Parser(kind="number", markers=(), fallback="run"),
}


@pytest.mark.skipif(not SOLUTIONS.exists(), reason="shared/data/gsm8k is not here")
@pytest.mark.parametrize("rule", RULES)
def test_each_rule_gives_all_flags_of_the_5276_solutions_of_gsm8k(rule):
    parser, seen = RULES[rule], 0
    rows = [json.loads(line) for line in SOLUTIONS.read_text().splitlines()]
    for model, accuracy in MODELS.items():
        right = []
        for row in rows:
            found = parser.parse(row[model]["solution"])
            right.append(isinstance(found, Parsed) and found.value == parser.canonical(row["ground_truth"]))
            assert right[-1] == row[model]["is_correct"], row[model]["solution"]
        seen += len(right)
        assert round(sum(right) / len(right), 4) == accuracy
    assert seen == 5276


AQUA = SOLUTIONS.parents[1] / "aqua"


@pytest.mark.skipif(not AQUA.exists(), reason="shared/data/aqua is not here")
def test_letters_are_read_off_the_508_rationales_of_aqua_without_a_wrong_one():
    """Written by many people in many forms. The first capital letter, which others take, is right in 163."""
    parser, right, unread, capitals = Parser(kind="choice", choices=ABC), 0, 0, 0
    for line in (AQUA / "dev.json").read_text().splitlines() + (AQUA / "test.json").read_text().splitlines():
        row = json.loads(line)
        found = parser.parse(row["rationale"])
        unread += isinstance(found, Failure)
        right += isinstance(found, Parsed) and found.value == row["correct"]
        capitals += re.findall("[A-E]", row["rationale"])[:1] == [row["correct"]]
    assert (right, unread, right + unread, capitals) == (482, 26, 508, 163)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,234,567.50", ["1234567.5"]), ("12,34", ["12", "34"]), ("$ -3", ["-3"]), ("-$3", ["-3"]), ("$-3", ["-3"]),
        ("5-3=2", ["5", "3", "2"]), ("x-4", ["4"]), ("= -4", ["-4"]), ("\u22127", ["-7"]), ("(2)-1", ["2", "1"]),
        ("50%", ["50"]), ("0.5 kg", ["0.5"]), (".5", ["0.5"]), ("5.", ["5"]), ("3.5.2", ["3.5"]), ("v2", []),
        ("10km", ["10"]), ("3rd", ["3"]), ("H2O", []), ("3/4", ["0.75"]), ("1/3", ["1/3"]), ("2/6", ["1/3"]),
        ("1 1/2", ["1.5"]), ("3/4/2020", ["3", "1/505"]), ("1/0", [None]), (r"\frac{3}{4}", ["0.75"]),
        ("1.5e3", ["1500"]), ("2 x 10^3", ["2000"]), (r"2 \times 10^{-2}", ["0.02"]), ("1e999", [None]),
        ("9" * 61, [None]), ("1e99999999999", [None]), ("-0", ["0"]), ("007", ["7"]), ("USD5 Rs.5", ["5"]),
        ("12/20 = 3/5", ["0.6", "0.6"]), ("10:30", ["10", "30"]), ("<<16-3=13>>13", ["16", "3", "13", "13"]),
    ],
)  # fmt: skip
def test_numbers(text, values):
    found = [None if one.value is None else canonical_number(one.value) for one in numbers(text)]
    assert found == values


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=4))
@settings(max_examples=200, deadline=None)
def test_a_number_is_found_again_in_any_spelling(value):
    plain = canonical_number(Fraction(value))
    assert Decimal(plain) == value and Fraction(plain) == Fraction(value)
    assert plain == (format(value.normalize(), "f") if value else "0")
    for spelled in (str(value), f"{value:,}", f"{value:e}"):
        found = [one.value for one in numbers(f"we get {spelled} of them")]
        assert found == [Fraction(value)], spelled


@given(st.fractions(max_denominator=999))
@settings(max_examples=100, deadline=None)
def test_equal_fractions_have_one_spelling(value):
    assert read_number(canonical_number(value)) == value
    times = f"{3 * value.numerator}/{3 * value.denominator}"
    assert read_number(times) == value


@pytest.mark.parametrize(
    ("text", "value", "rule"),
    [
        ("so 7 of 9. The answer is 8.", "8", "cue"),
        ("the ANSWER IS: $1,200 in all", "1200", "cue"),
        ("The answer is\n\n**42**", "42", "cue"),
        ("thus \\boxed{\\frac{1}{2}} and 3", "0.5", "boxed"),
        ("3\n#### 12 apples", "12", "hash"),
        ("#### none\nthe answer is 4", "4", "cue"),
        ("The answer is clear.\nThe answer is 6.", "6", "cue"),
        ("The answer is 5.\n\nQ: Next?\nA: The answer is 9.", "5", "cue"),
        ("it is 3, then 4 apples", "4", "last"),
    ],
)
def test_markers_come_before_the_last_number(text, value, rule):
    found = Parser(kind="number").parse(text)
    assert (found.value, found.rule) == (value, rule)
    start, end = found.span
    assert read_number(text[start:end]) == Fraction(value)


def test_run_on_text_is_cut_before_the_last_number_is_taken():
    for demonstration in ("\nQ: What is 3 + 9?", "\n\nQ: And 12?\nA: 12.", "\nQuestion: 12 of what?"):
        text = "So there are 4 apples." + demonstration
        assert Parser(kind="number").parse(text).value == "4"
        assert Parser(kind="number", cut=()).parse(text).value != "4"
        assert Parser(kind="text").parse(text).value == "so there are 4 apples"


def test_first_and_last():
    text = "The answer is 1. \\boxed{5} As shown, \\boxed{6}"
    assert Parser(kind="number").parse(text).value == "5"
    assert Parser(kind="number", take="last").parse(text).value == "6"
    assert Parser(kind="number", markers=(), fallback="first").parse(text).value == "1"
    assert Parser(kind="number", markers=("cue",), take="last").parse("answer is 1, answer is 2").value == "2"
    assert Parser(kind="number", cut=()).parse("1\nQ: what is 2?").value == "2"


def test_what_cannot_be_read_is_a_failure_and_no_other_number():
    parse = Parser(kind="number").parse
    assert parse("") == Failure("no number was found")
    assert parse("the answer is 1/0, not 3") == Failure("the number is too long, or divides by 0")
    assert parse("3 and 1e9999") == Failure("the number is too long, or divides by 0")
    assert "more than" in parse("1" * 200_000).reason
    assert "markers" in Parser(kind="number", fallback="none").parse("7").reason
    assert Parser(kind="text").parse(" \n ").reason == "no text was found"
    assert Parser(kind="yes_no").parse("maybe").reason == "no yes or no was found"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is (C).", "C"), ("The answer is C", "C"), ("the answer is option d)", "D"),
        ("answer is: **B**", "B"),
        ("The answer is B because A is wrong", "B"), ("The answer is A train", "A"), ("The answer is a train", None),
        ("Apples And Cats", None), ("An Eagle", None), ("A cat is on the mat", None), ("I pick A, not a cat", "A"),
        ("(A) is wrong. (B) is right", "B"), ("E. coli", "E"), ("D-day", None), ("vitamin-C", None), ("C's", None),
        ("Both A and B fit, so C.", "C"), ("(e)", "E"), ("e", None),
    ],
)  # fmt: skip
def test_choice_letters_are_words_of_their_own(text, value):
    found = Parser(kind="choice", choices=ABC).parse(text)
    assert (found.value if isinstance(found, Parsed) else None) == value


def test_choices_by_name_and_by_letter():
    parser = Parser(kind="choice", choices=choices_of(("very bad", "bad", "good")))
    for text, value in {
        "The answer is (A).": "very bad", "The answer is Very Bad.": "very bad", "It is bad": "bad", "badly": None,
        "The answer is (C) good": "good", "goodness": None, "GOOD!": "good", "The answer is good, not bad": "good",
    }.items():  # fmt: skip
        found = parser.parse(text)
        assert (found.value if isinstance(found, Parsed) else None) == value, text
    assert parser.canonical("very bad") == "very bad"


def test_yes_no_and_texts():
    assert Parser(kind="yes_no").parse("I know not. The answer is No, never. Yes").value == "no"
    text = Parser(kind="text")
    assert text.parse("He was born in Ulm. The answer is St. Ives. It is far.").value == "st. ives"
    assert text.parse("The answer is: New  York.").value == text.canonical("new york") == "new york"
    assert text.parse("one\ntwo\n").value == "two"
    assert Parser(kind="text", fallback="first").parse("\none\ntwo").value == "one"
    assert canonical_text("“U.S.”") == "u.s"


def test_a_target_may_hold_its_rationale():
    parser = Parser(kind="number")
    for target in ("42", "$42.00", "6 * 7 = 42\n#### 42", "so\nA: 42", "It is 6 * 7. The answer is 42."):
        assert parser.canonical(target) == "42", target
    assert Parser(kind="text").canonical("x\n#### Rome") == "rome"
    assert parser.canonical("none at all") == "none at all"


SCHEMA = json.dumps({"type": "object", "required": ["n"], "additionalProperties": False,
                     "properties": {"n": {"type": "integer", "minimum": 1}, "why": {"type": "string"}}})  # fmt: skip


def test_json_answers():
    parser = Parser(kind="json", schema=SCHEMA)
    assert parser.parse('so: {"why": "x", "n": 3.0}').value == '{"n":3,"why":"x"}'
    assert parser.parse('{"n": 0}').reason == "value.n must have minimum 1"
    assert parser.parse('{"n": 0} then {"n": 2}').value == '{"n":2}'
    assert parser.parse('{"n": 2, "m": 1}').reason == "value must not have m"
    assert parser.parse("{'n': 2}").reason == "no JSON was found"
    assert parser.parse('{"n": NaN}').reason == "no JSON was found"
    assert "out of range" in Parser(kind="json").parse("[1e999]").reason
    assert parser.canonical('{ "n": 2 }') == '{"n":2}'
    field = Parser(kind="number", markers=("json",), field="answer")
    assert field.parse('1 {"steps": [2], "answer": "$1,000"} 3') == Parsed("1000", (2, 36), "json")
    assert field.parse('{"answer": 7}').value == "7"


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": ["string", "null"]}, [None, "a"], [1, [], {}]),
        ({"type": "number"}, [1, 2.5], [True, "1"]),
        ({"type": "integer"}, [1, 2.0], [2.5, False]),
        ({"enum": [1, "a", [2]]}, [1.0, "a", [2]], [2, "b"]),
        ({"const": {"a": 1}}, [{"a": 1.0}], [{}, 1]),
        ({"items": {"type": "string"}, "minItems": 1, "maxItems": 2, "uniqueItems": True}, [["a"], ["a", "b"], 3],
         [[], ["a", "a"], ["a", "b", "c"], [1]]),
        ({"minLength": 2, "maxLength": 3}, ["ab", "abc", 5], ["a", "abcd"]),
        ({"minimum": 0, "exclusiveMaximum": 1}, [0, 0.5, "x"], [-1, 1]),
        ({"maximum": 1, "exclusiveMinimum": 0}, [1, 0.5], [0, 2]),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, ["a", 4], [2]),
        ({"additionalProperties": {"type": "integer"}, "properties": {"a": {}}}, [{"a": "x", "b": 1}], [{"b": "x"}]),
    ],
)  # fmt: skip
def test_schema_keywords(schema, good, bad):
    known = read_schema(json.dumps(schema))
    assert [fault(value, known) for value in good] == [""] * len(good)
    assert all(fault(value, known) for value in bad)


def test_a_schema_with_an_unknown_keyword_is_refused():
    for bad in ("[]", "{", '{"pattern": "a"}', '{"items": {"$ref": "#"}}', '{"type": "text"}', '{"anyOf": [{"x": 1}]}'):
        with pytest.raises(ConfigError):
            Parser(kind="json", schema=bad)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.text(max_size=3), json_like, max_size=3), max_size=3))
@settings(max_examples=50, deadline=None)
def test_json_is_found_among_words(values):
    text = " and ".join(["so", *map(json.dumps, values), "end"])
    assert [value for _, _, value in json_values(text)] == values
    assert [json.loads(canonical_json(value)) for _, _, value in json_values(text, last=True)] == values[::-1]


@pytest.mark.parametrize(
    "settings_",
    [
        {"kind": "choice"}, {"kind": "number", "choices": (("A", "A"),)}, {"kind": "number", "field": "a"},
        {"kind": "text", "fallback": "run"}, {"kind": "number", "markers": ("json",)}, {"kind": "text", "cues": (" ",)},
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(settings_):
    with pytest.raises(ConfigError):
        Parser(**settings_)


def test_the_parser_that_fits_a_task():
    sample = Sample(shape=(), columns=("q",))
    writing = TaskSpec(name="t", classes=(), sample=sample, modality="text")
    assert parser_for(writing).kind == "number"
    shown = TaskSpec(
        name="t", classes=(), sample=sample, modality="text", context=(Example(("q",), "So. The answer is 5."),)
    )
    assert parser_for(shown).kind == "number"
    words = TaskSpec(name="t", classes=(), sample=sample, modality="text", context=(Example(("q",), "Rome 2"),))
    assert parser_for(words).kind == "text" and parser_for(words, "yes_no").kind == "yes_no"
    classes = TaskSpec(name="t", classes=("no", "yes"), sample=sample, modality="text")
    assert parser_for(classes).parse("Well, (B)").value == "yes"
    with pytest.raises(ConfigError):
        parser_for(classes, "number")


PARSERS = [
    *RULES.values(), Parser(kind="number"), Parser(kind="number", take="last"), Parser(kind="text"),
    Parser(kind="text", fallback="whole"), Parser(kind="yes_no"), Parser(kind="choice", choices=ABC),
    Parser(kind="choice", choices=choices_of(("very bad", "bad", "good"))), Parser(kind="json"),
    Parser(kind="number", markers=("json", "hash", "boxed", "cue", "line"), field="a"),
]  # fmt: skip
PIECES = ["1", ",", ".", "-", "/", " ", "e5", "$", "{", "}", "[", '"', "a", ":", "\\boxed{", "####", "The answer is",
          "\n", "A: ", "Q:", "(B)", "yes", "×", "10^", "=", "\\frac{1}{2}", "−", "'", "\ue002", "ß"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_parsed_or_fails_with_a_reason(text):
    for parser in PARSERS:
        found = parser.parse(text)
        if isinstance(found, Failure):
            assert found.reason
            continue
        start, end = found.span
        assert 0 <= start < end <= len(text) and found.value
        if parser.kind == "number" and found.rule not in ("json", "run"):
            assert next(one for one in numbers(text, start, end)).value == Fraction(found.value)
        assert parser.parse(text) == found


def seconds(parser, text):
    start = time.process_time()
    parser.parse(text)
    return time.process_time() - start


TRAPS = [*PIECES, "1,", "1 ", "1 1/", "a1", "{[", '{"a":', "\\boxed{1", "the answer is ", "answer is A ", "1,111",
         "1.1", "####1", "x 10^", "(A", "A a ", "\nA:", ". A", "good "]  # fmt: skip


@pytest.mark.parametrize("parser", PARSERS, ids=range(len(PARSERS)))
def test_long_texts_take_no_quadratic_time(parser):
    """Six times the text may take six times as long, where a quadratic rule would take 36 times."""
    for piece in TRAPS:
        text = (piece * 24_000)[:24_000]
        long = seconds(parser, text)
        if long > 0.2:  # measured again, for a machine may have other things to do
            short = max(0.02, *(seconds(parser, text[:4_000]) for _ in range(3)))
            assert min(seconds(parser, text) for _ in range(3)) < 15 * short, piece


def test_the_patterns_of_others_differ_where_they_should():
    """What is known to go wrong elsewhere: a letter within a word is a choice, and points are a number."""
    text = "An Egg ..."
    assert re.search("[A-E]", text) and re.search(r"-?[$0-9.,]{2,}", text)
    assert isinstance(Parser(kind="choice", choices=ABC).parse(text), Failure)
    assert isinstance(RULES["the last run of digits"].parse(text), Failure)
