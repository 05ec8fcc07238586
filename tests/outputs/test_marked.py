"""Reading answers about marks, points, grids."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import CapabilityError, ConfigError
from reprogram.core.source import SourceOutput
from reprogram.core.writing import Writing, Written
from reprogram.inputs.marks_reading import chosen_ids, last_object, listed_names, named_ids
from reprogram.outputs.marked import (
    MarkedClasses,
    NamedAnswer,
    PointClasses,
    QuadrantColours,
    cited,
    class_in,
    nearest_colour,
    point_in,
)

W = Writing(tokens=8)
CLASSES = ("cat", "hot dog", "dog")


def said(*rows):
    return SourceOutput(written=tuple(tuple(Written(text=t) for t in row) for row in rows))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_parsers_never_fail(text):
    assert set(cited(text, ["1", "2"])[0]) <= {"1", "2"}
    assert all(1 <= n <= 5 for n in chosen_ids(text, 5))
    assert class_in(text, CLASSES)[0] in (*CLASSES, None)
    point = point_in(text)
    assert isinstance(point, str) or all(0 <= n <= 1 for n in point)
    assert isinstance(last_object(text), dict)
    assert isinstance(listed_names(text), list)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ('{"point": [0.5, 0.25]}', (0.5, 0.25)),
        ('so {"point": [9, 9]}, no: {"point": [1, 0]}.', (1.0, 0.0)),
        ('{"point": [1.5, 0.5]}', None),
        ('{"point": [NaN, 0.5]}', None),
        ('{"point": [true, 0.5]}', None),
        ('{"point": [0.5]}', None),
        ('{"point": "0.5, 0.5"}', None),
        ("[0.5, 0.5]", None),
        ("{" * 5000, None),
        ('{"point": ' + "[" * 5000, None),
    ],
)
def test_points_are_checked(text, point):
    found = point_in(text)
    assert found == point if point else isinstance(found, str)


def test_ids_are_checked():
    assert chosen_ids('{"points": 2}', 3) == [2]
    assert chosen_ids('{"points": [4, 0, "3", -2, 99]}', 3) == [3]
    assert chosen_ids('{"points": [[1], {"a": 2}, null, 1e3, 3]}', 3) == [3]
    assert chosen_ids('{"other": [1]}', 3) == []
    assert chosen_ids("{" * 100_000, 3) == []
    assert named_ids('{"1": "CAT", "2": "cow", "9": "dog", "3": 7}', 5, CLASSES) == {1: "cat"}
    assert cited("[A] and [b], [1], [ab]", ["a", "b", "ab"]) == (["a", "b", "ab"], ["1"])


def test_marks_stand_for_classes():
    output = MarkedClasses(CLASSES, W)
    answers = output.answers(said(["first [1], but [3]."], ["[4]"], ["3"], [" [ 2 ]"]))
    assert [a.value for a in answers] == ["dog", None, None, "hot dog"]
    assert answers[1].reason == "it cites mark [4], which is not there"
    assert "no mark" in answers[2].reason
    scores = output(said(["[3]"], ["?"]))
    assert int(scores[0].argmax()) == 2
    assert scores[1].tolist() == [0, 0, 0]
    assert torch.allclose(scores[0].softmax(0).sum(), torch.tensor(1.0))
    assert output.reading.writing == W
    with pytest.raises(ConfigError, match="one for each"):
        MarkedClasses(CLASSES, W, ["1"])
    with pytest.raises(CapabilityError, match="write"):
        output(SourceOutput())


def test_names_in_texts():
    assert class_in("hot dogs", CLASSES) == (None, "it names no class")
    assert class_in("ANSWER: hot dog", CLASSES)[0] == "hot dog"
    assert class_in("cat? The answer is dog, not cat", CLASSES)[0] == "dog"
    assert class_in("Answer: unknown. a cat", CLASSES)[0] == "cat"
    output = NamedAnswer(CLASSES, W, labels=["1", "2"])
    answers = output.answers(said(["[2] is a dog"], ["[7] is a dog"]))
    assert answers[0].value == "dog"
    assert answers[1].reason == "it cites mark [7], which is not there"
    for bad in ((), ("a",), ("a", "A"), ("a", "")):
        with pytest.raises(ConfigError, match="classes"):
            NamedAnswer(bad, W)


def test_several_texts_vote():
    output = NamedAnswer(CLASSES, W)
    answer = output.answers(said(["cat", "dog", "a dog", "?"]))[0]
    assert (answer.value, answer.unparsable) == ("dog", 1)
    assert answer.share == pytest.approx(2 / 3)
    lines = NamedAnswer(CLASSES, W, lines=True).answers(said(["cat\ndog\ndog\nwhat"]))[0]
    assert (lines.value, lines.unparsable) == ("dog", 1)
    shares = output(said(["cat", "dog", "dog"]))[0].softmax(0)
    assert shares[2] == pytest.approx(2 / 3, abs=0.02)
    assert shares[2] > shares[0]


def test_points_fall_into_cells():
    output = PointClasses(("a", "b", "c", "d", "e", "f"), 2, 3)
    texts = ['{"point": [0, 0]}', '{"point": [1, 1]}', '{"point": [0.34, 0.49]}', '{"point": [0.99, 0.5]}', "no"]
    assert [a.value for a in output.answers(said(*[[t] for t in texts]))] == ["a", "f", "b", "f", None]
    with pytest.raises(ConfigError, match="table"):
        PointClasses(("a", "b", "c"), 2, 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_nearest_colour_is_the_slow_search(seed):
    generator = torch.Generator().manual_seed(seed)
    pixels, palette = torch.rand(3, 4, 5, generator=generator), torch.rand(6, 3, generator=generator)
    found = nearest_colour(pixels, palette)
    for y in range(4):
        for x in range(5):
            away = [float((pixels[:, y, x] - colour).square().sum()) for colour in palette]
            assert away[int(found[y, x])] == pytest.approx(min(away))


def test_quadrants_are_read_by_colour():
    palette = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    output = QuadrantColours(palette, 16, (9, 9), 7)
    page = torch.full((2, 3, 16, 16), 0.5)
    page[0, :, 9:, 9:] = torch.tensor([0.2, 0.7, 0.1]).view(3, 1, 1)
    page[1, :, 9:, 9:] = torch.tensor([0.1, 0.1, 0.8]).view(3, 1, 1)
    page[1, :, 9:, 9] = torch.tensor([0.9, 0.1, 0.1]).view(3, 1)
    shares = output(SourceOutput(page.flatten(1))).softmax(1)
    assert shares.argmax(1).tolist() == [1, 2]
    assert shares[1, 0] == pytest.approx(1 / 7, abs=0.02)
    with pytest.raises(CapabilityError, match="16 x 16"):
        output(SourceOutput(torch.zeros(1, 5)))
    with pytest.raises(ConfigError, match="of its own"):
        QuadrantColours(palette[[0, 0]], 16, (9, 9), 7)
    with pytest.raises(ConfigError, match="canvas"):
        QuadrantColours(palette, 16, (10, 9), 7)
