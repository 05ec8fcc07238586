"""The sentence at the top says what the numbers say."""

from dataclasses import replace

import pytest
import torch

from reprogram.core.result import Parameters
from reprogram.fit import measure
from reprogram.report import Control
from reprogram.report.verdict import judge


def scored(right: int, of: int):
    said = torch.tensor([0] * right + [1] * (of - right))
    return measure(torch.eye(2)[said], torch.zeros(of, dtype=torch.int64))


def control(name: str, right: int, of: int) -> Control:
    return Control(name=name, description="", test=scored(right, of), validation=scored(right, of),
                   parameters=Parameters(0, 0), seconds=0)  # fmt: skip


CASES = [
    (90, [("probe", 60), ("majority", 10)], "ahead", "30.0 points above the best control, probe (60.0 %), and the"),
    (62, [("probe", 60), ("majority", 10)], "close", "the intervals overlap: 100 pictures are too few"),
    (60, [("probe", 60)], "close", "It beats none of its controls: probe reaches 60.0 %, the same."),
    (58, [("probe", 60), ("majority", 10)], "close", "It does not beat all its controls: probe reaches 60.0 %, 2.0"),
    (20, [("probe", 60), ("majority", 10)], "behind", "On this task the control is the better choice."),
    (20, [("probe", 60)], "behind", "It beats none of its controls"),
]


@pytest.mark.parametrize(("right", "rivals", "standing", "words"), CASES)
def test_sentences(right, rivals, standing, words, blm):
    mine = replace(blm, test=scored(right, 100))
    found = judge(mine, [control(name, n, 100) for name, n in rivals])
    assert found.standing == standing and words in found.sentence, found.sentence
    assert f"right on {right}.0 % of 100 test pictures" in found.sentence
    assert found.best.name == "probe" and found.difference == pytest.approx(right - 60)


def test_no_controls_and_no_split(blm):
    assert "is not known" in judge(replace(blm, test=scored(5, 10)), []).sentence
    nothing = judge(replace(blm, test=None, validation=None), [control("probe", 5, 10)])
    assert nothing.mine is None and nothing.split == ""


def test_a_control_that_could_not_be_fitted_is_no_rival(blm):
    broken = Control(name="random source", description="", test=None, validation=None, parameters=Parameters(0, 0),
                     seconds=0)  # fmt: skip
    assert judge(replace(blm, test=scored(5, 10)), [broken]).standing == "alone"
