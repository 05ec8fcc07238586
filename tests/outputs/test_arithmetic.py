"""Arithmetic: against Python's own on generated expressions, within limits, and on real solutions."""

import ast
import contextlib
import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import DataError
from reprogram.outputs.arithmetic import evaluate, recomputed

GSM8K = Path(__file__).parents[3] / "shared/data/gsm8k"

expressions = st.recursive(
    st.integers(0, 99).map(str) | st.decimals(0, 9, places=2).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " + ", " - ", " * "]), inner).map("".join),
        inner.map("({})".format), inner.map("-{}".format),
        st.tuples(inner, st.sampled_from(["**2", " ** 3"])).map("".join),
    ),
    max_leaves=8,
)  # fmt: skip


def reference(node):
    """Python's own grammar, worked out in fractions."""
    if isinstance(node, ast.Constant):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp):
        return -reference(node.operand)
    left, right = reference(node.left), reference(node.right)
    if isinstance(node.op, ast.Pow):
        return left ** int(right)
    return {ast.Add: Fraction.__add__, ast.Sub: Fraction.__sub__, ast.Mult: Fraction.__mul__,
            ast.Div: Fraction.__truediv__}[type(node.op)](left, right)  # fmt: skip


@given(expressions)
@settings(max_examples=300, deadline=None)
def test_the_value_is_that_of_pythons_grammar(text):
    plain = text.replace("09", "9")
    try:
        tree = ast.parse(plain, mode="eval").body
    except SyntaxError:  # Python forbids numbers that begin with 0
        return
    try:
        wanted = reference(tree)
    except ZeroDivisionError:
        with pytest.raises(DataError):
            evaluate(plain)
        return
    if wanted.numerator.bit_length() > 300 or len(plain) > 200:
        return
    assert evaluate(plain) == wanted


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,200 × 2", 2400), ("7 ÷ 2", "7/2"), ("10% * 50", 5), ("2 x 3", 6), ("2^3^2", 512), ("2 ** -1", "1/2"),
     ("5 − 7", -2), ("-(-(3))", 3), ("2-3-4", -5), ("16/4/2", 2), (".5+.5", 1)],
)  # fmt: skip
def test_other_spellings(text, value):
    assert evaluate(text) == Fraction(value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "2 +", "(2", "2)", "2 3", "a", "2 + a", "__import__('os')", "1/0", "2**65", "9**9**9", "0**-1", "2**0.5",
     "(" * 40 + "1" + ")" * 40, "-" * 90 + "1", "1+" * 150 + "1", "*2", "()", "1e5", "2 x", "1;2", "99**64**2", "1..2",
     "((9**64)**64)**64", "\n#", "1_000"],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(DataError, match="expression"):
        evaluate(text)


@given(st.text(alphabet="0123456789.,+-*/()%^x× $ae_", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_has_a_value_or_is_refused(text):
    with contextlib.suppress(DataError):
        assert isinstance(evaluate(text), Fraction)
    recomputed(text + "=" + text)


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("3 + 4 = 8, and 8 * 2 = 16. The answer is 16.", "3 + 4 = 7, and 7 * 2 = 14. The answer is 14."),
        ("3 + 4 = 7 = 7", "3 + 4 = 7 = 7"),
        ("<<48/2=25>>25 clips", "<<48/2=24>>24 clips"),
        ("$5 * 3 = $16 each", "$5 * 3 = $15 each"),
        ("10 / 3 = 3.33", "10 / 3 = 3.33"), ("10 / 3 = 3.3", "10 / 3 = 3.3"), ("10 / 3 = 4.33", "10 / 3 = 3.33"),
        ("2 / 3 = 0.67", "2 / 3 = 0.67"), ("2 / 3 = 0.66", "2 / 3 = 0.66"),
        ("2 hours * 3 + 4 = 10", "2 hours * 3 + 4 = 10"), ("half of 12 + 2 = 8", "half of 12 + 2 = 8"),
        ("3x + 4 = 28", "3x + 4 = 28"), ("12/20 x 100% = 60%", "12/20 x 100% = 60%"), ("x = 5", "x = 5"),
        ("350 000 + 17 500 = 367 500", "350 000 + 17 500 = 367 500"), ("5. 3 + 4 = 8", "5. 3 + 4 = 7"),
        ("1/0 = 5", "1/0 = 5"), ("1,000 + 1 = 1,002", "1,000 + 1 = 1001"), ("", ""), ("= = =", "= = ="),
        ("2 + 2 = 5. He has 5.5 and 15 and 5 left.", "2 + 2 = 4. He has 5.5 and 15 and 4 left."),
    ],
)  # fmt: skip
def test_equations_are_worked_out_anew(text, better):
    assert recomputed(text) == better


@pytest.mark.skipif(not GSM8K.exists(), reason="shared/data/gsm8k is not here")
def test_solutions_by_people_are_left_as_they_are_but_for_a_few():
    """Some of those changed are wrong, others change the unit within an equation."""
    answers = [json.loads(line)["answer"] for line in (GSM8K / "test.jsonl").read_text().splitlines()]
    changed = [answer for answer in answers if recomputed(answer) != answer]
    assert len(answers) == 1319 and len(changed) <= 8
    assert (
        recomputed("Mr. Mathews made $4200+$3000 = $8600\n#### 7200")
        == "Mr. Mathews made $4200+$3000 = $7200\n#### 7200"
    )


@pytest.mark.skipif(not GSM8K.exists(), reason="shared/data/gsm8k is not here")
def test_wrong_results_in_real_chains_are_corrected_to_the_end():
    """One slip in the first note of a chain of notes that build on each other is undone by the calculator."""
    repaired = seen = 0
    for line in (GSM8K / "test.jsonl").read_text().splitlines():
        answer = json.loads(line)["answer"]
        result = answer.partition("<<")[2].partition("=")[2].partition(">>")[0]
        if not result.isdecimal() or answer.count(result) != 3 or len(result) < 2:
            continue
        seen += 1
        slip = str(int(result) + 7001)
        repaired += recomputed(answer.replace(result, slip)) == answer
    assert seen > 20 and repaired / seen > 0.9


@pytest.mark.parametrize("piece", ["=", "1=", "1+1=3 ", "(", "1+", "1,", "2 x ", "3 + 4 = 8. 8", "=-", "1/2=3"])
def test_long_texts_take_no_quadratic_time(piece):
    def seconds(length):
        start = time.process_time()
        recomputed((piece * length)[:length])
        return time.process_time() - start

    short = max(0.05, *(seconds(4_000) for _ in range(3)))
    assert min(seconds(24_000) for _ in range(2)) < 15 * short
