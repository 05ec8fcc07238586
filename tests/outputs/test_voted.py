"""Votes and parsed answers: counts against all subsets and continuations, ties, and texts of which nothing is read."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import CapabilityError, ConfigError, DataError
from reprogram.core.source import SourceOutput
from reprogram.core.writing import Writing, Written
from reprogram.outputs.parsing import Parser, choices_of
from reprogram.outputs.voted import Ballot, ParsedText, Tally, Voted, decided, majority_at, vote

CHOICE = Parser(kind="choice", choices=choices_of(("A", "B", "C")))
counts = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def said(*rows):
    return SourceOutput(
        written=tuple(tuple(t if isinstance(t, Written) else Written(text=t) for t in row) for row in rows)
    )


@given(counts, st.integers(0, 2), st.data())
@settings(max_examples=60, deadline=None)
def test_majority_at_k_is_the_mean_over_all_subsets(votes, abstained, data):
    n = sum(votes) + abstained
    k = data.draw(st.integers(1, min(n, 9)))
    right = data.draw(st.none() | st.integers(0, len(votes) - 1))
    texts = [i for i, count in enumerate(votes) for _ in range(count)] + [None] * abstained
    credit = []
    for subset in itertools.combinations(texts, k):
        given_ = [one for one in subset if one is not None]
        most = max((given_.count(one) for one in given_), default=0)
        leaders = {one for one in given_ if given_.count(one) == most}
        credit.append(1 / len(leaders) if right in leaders else 0.0)
    assert majority_at(votes, right, abstained, k) == pytest.approx(math.fsum(credit) / len(credit), abs=1e-12)


def test_majority_at_k_of_forty_is_quick_and_exact():
    assert majority_at([40], 0, 0, 20) == 1.0
    assert majority_at([20, 20], 0, 0, 20) == pytest.approx(0.5)
    assert majority_at([3, 2, 2], 0, 33, 40) == 1.0
    with pytest.raises(ConfigError):
        majority_at([2], 0, 0, 3)
    with pytest.raises(ConfigError):
        majority_at([2], 1, 0, 1)


@given(st.lists(st.integers(0, 4), max_size=3), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_vote_is_decided_if_no_continuation_brings_a_tie_or_another_leader(votes, left):
    def leader(final):
        top = max(final, default=0)
        return [i for i, n in enumerate(final) if n == top] if top else []

    start = [*votes, 0]  # also an answer nobody gave so far
    ends = []
    for more in itertools.product(range(len(start) + 1), repeat=left):  # the last is an abstention
        final = [n + more.count(i) for i, n in enumerate(start)]
        ends.append(leader(final))
    assert decided(votes, left) == (len(leader(start)) == 1 and all(end == leader(start) for end in ends))


def test_ties_go_to_the_likelier_answer_then_to_the_earlier():
    assert vote([Ballot("a", logprob=-9.0), Ballot("b", logprob=-1.0)]).winner == "b"
    assert vote([Ballot("a"), Ballot("b", logprob=-1.0)]).winner == "b"
    assert vote([Ballot("b"), Ballot("a")]).winner == "b"
    both = [Ballot("a", logprob=-2.0), Ballot("b", logprob=-1.9), Ballot("a", logprob=-2.0), Ballot("b", logprob=-9.0)]
    assert vote(both).winner == "a"  # 2 exp(-2) > exp(-1.9) + exp(-9)


def test_margin_and_entropy():
    tally = vote([Ballot("a")] * 3 + [Ballot("b")] + [Ballot(None)] * 5)
    assert tally.margin == 0.5 and tally.unparsable == 5
    assert tally.entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert vote([Ballot("a")]).margin == 1.0 and vote([Ballot("a")]).entropy == 0.0
    assert vote([Ballot(None)]) == Tally((), 1) and vote([]).winner is None and vote([]).margin == 0.0


def test_what_cannot_be_read_is_no_candidate():
    output = Voted(CHOICE, ("A", "B", "C"))
    answers = output.answers(said(["Hm."] * 4 + ["The answer is B."], ["Hm."] * 5, ["(A)", "(A)", "(C)", "", ""]))
    assert [(a.value, a.unparsable) for a in answers] == [("B", 4), (None, 5), ("A", 2)]
    assert answers[0].share == 1.0 and answers[1].reason == "none of 5 texts could be read"
    assert answers[2].share == pytest.approx(2 / 3)


letters = st.sampled_from(["(A)", "(B)", "(C)", "none of them"])


@given(st.lists(st.lists(st.tuples(letters, st.floats(-9, 0)), min_size=1, max_size=6), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_scores_agree_with_the_answers(rows):
    output = Voted(CHOICE, ("A", "B", "C"))
    texts = said(*[[Written(text=t, tokens=3, logprob=p) for t, p in row] for row in rows])
    scores, answers = output(texts), output.answers(texts)
    assert scores.shape == (len(rows), 3) and bool(scores.isfinite().all())
    for row, answer in zip(scores, answers, strict=True):
        if answer.value is None:
            assert float(row.max() - row.min()) == 0
        else:
            assert "ABC"[int(row.argmax())] == answer.value and int((row == row.max()).sum()) == 1


def test_weights_by_probability():
    texts = said([Written(text="(A)", tokens=2, logprob=-8.0)] * 2 + [Written(text="(B)", tokens=2, logprob=-0.2)])
    assert Voted(CHOICE, ("A", "B", "C")).answers(texts)[0].value == "A"
    answer = Voted(CHOICE, ("A", "B", "C"), weights="probability").answers(texts)[0]
    a, b = 2 * math.exp(-4), math.exp(-0.1)
    assert answer.value == "B" and answer.share == pytest.approx(b / (a + b))
    with pytest.raises(CapabilityError, match="weights"):
        Voted(CHOICE, ("A", "B", "C"), weights="probability").answers(said(["(A)"]))
    far = said([Written(text="(A)", tokens=1, logprob=-5000.0)])
    assert Voted(CHOICE, ("A", "B", "C"), weights="probability").answers(far)[0].share == 1.0


def test_one_text_is_read_by_rule():
    output = ParsedText(Parser(kind="number"), writing=Writing(tokens=9))
    texts = said(["The answer is 3."], ["none"])
    assert [a.value for a in output.answers(texts)] == ["3", None]
    assert output(texts).tolist() == [[1.0], [0.0]] and output.reading.writing == Writing(tokens=9)
    assert output.answers(texts)[1].reason == "no number was found" and output.answers(texts)[1].unparsable == 1
    assert output.canonical("#### 3.0") == "3"
    cut = Written(text="", finish="budget", reason="the budget was used up")
    assert output.answers(said([cut]))[0].reason == "the budget was used up"
    with pytest.raises(ConfigError):
        ParsedText(Parser(kind="number"), writing=Writing(samples=2, temperature=1.0))


def test_the_calculator_corrects_before_the_vote():
    wrong = "3 * 14 = 52. 52 - 2 = 50. The answer is 50."
    for plain, corrected in ((ParsedText, {"calculator": True}), (Voted, {"calculator": True})):
        assert plain(Parser(kind="number")).answers(said([wrong]))[0].value == "50"
        assert plain(Parser(kind="number"), **corrected).answers(said([wrong]))[0].value == "40"


def test_scores_are_finite_under_autocast_and_errors_are_named():
    output = Voted(CHOICE, ("A", "B", "C"))
    with torch.autocast("cpu", torch.bfloat16):
        scores = output(said(["(A)", "(B)"], ["?", "?"]))
    assert bool(scores.isfinite().all()) and scores.dtype == torch.float32
    with pytest.raises(CapabilityError):
        output.answers(SourceOutput(scores=torch.zeros(1, 3)))
    with pytest.raises(DataError, match="classes"):
        Voted(CHOICE, ("A", "B"))(said(["(C)"]))
