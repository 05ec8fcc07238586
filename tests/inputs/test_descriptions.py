"""Texts about classes: both forms, nothing missing, nothing strange, and the same again from a program's context."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError, DataError
from reprogram.inputs import as_examples, cause_sets, descriptions, exactly, from_examples, read_descriptions

CLASSES = ("daisy", "rose")
SETS = {
    "daisy": {"descriptive": ["White  petals.", "white petals.", "Yellow in the middle."], "distinctive": "No thorns."},
    "rose": {"descriptive": ["Red petals."], "distinctive": ["Thorns.", "..."]},
}


def written(tmp_path, text):
    path = tmp_path / "some.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_both_sets_are_read_in_the_tasks_order_from_a_mapping_or_a_file(tmp_path):
    expected = {
        "descriptive": [["Red petals."], ["White petals.", "Yellow in the middle."]],
        "distinctive": [["Thorns."], ["No thorns."]],
    }
    path = written(tmp_path, json.dumps(SETS))
    for given_ in (SETS, path, str(path)):
        assert read_descriptions(given_, ("rose", "daisy")) == expected
    assert read_descriptions(SETS, ("rose", "daisy"), None) == expected
    assert read_descriptions(SETS, ("rose", "daisy"), ["distinctive"]) == {"distinctive": expected["distinctive"]}


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    path = written(tmp_path, b"\xef\xbb\xbf" + json.dumps({"daisy": "a", "rose": "b"}).encode())
    assert read_descriptions(path, CLASSES, None) == {"descriptions": [["a"], ["b"]]}


def test_plain_lists_are_one_set_and_no_two():
    flat = {"daisy": ["White."], "rose": "Red."}
    assert read_descriptions(flat, CLASSES, ["attributes"]) == {"attributes": [["White."], ["Red."]]}
    with pytest.raises(DataError, match="must have the sets \\['descriptive', 'distinctive'\\]"):
        read_descriptions(flat, CLASSES)


@pytest.mark.parametrize(
    "given_, message",
    [
        ({"daisy": SETS["daisy"]}, "'rose'\\] missing"),
        (SETS | {"tulip": SETS["rose"]}, "'tulip'\\] unknown"),
        (SETS | {"rose": {"descriptive": ["Red."]}}, "descriptions\\['rose'\\]` must have the set 'distinctive'"),
        (SETS | {"rose": {"descriptive": ["Red."], "distinctive": ["!", " "]}}, "'distinctive'\\]` must have a text"),
        (SETS | {"rose": {"descriptive": ["Red."], "distinctive": []}}, "must have a text with words"),
        (SETS | {"rose": {"descriptive": ["Red."], "distinctive": [3]}}, "must be a text or a list of texts"),
        (SETS | {"rose": {"descriptive": ["Red."], "distinctive": {"a": "b"}}}, "must be a text or a list of texts"),
        (SETS | {"rose": {"descriptive": ["\ud800"], "distinctive": ["a"]}}, "must be Unicode text"),
        (SETS | {"rose": None}, "must have the sets"),
    ],
)
def test_what_is_missing_strange_or_empty_is_named(given_, message):
    with pytest.raises(DataError, match=message):
        read_descriptions(given_, CLASSES)


def test_all_sets_means_the_same_ones_for_every_class():
    odd = {"daisy": {"cause_1": "a", "cause_2": "b"}, "rose": {"cause_1": "c"}}
    with pytest.raises(DataError, match="as 'daisy' has"):
        read_descriptions(odd, CLASSES, None)
    with pytest.raises(DataError, match=r"must have the set 'cause_2'.*--kind causes"):
        read_descriptions(odd, CLASSES, cause_sets(2))
    assert read_descriptions(odd, CLASSES, cause_sets(1)) == {"cause_1": [["a"], ["c"]]}


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "must be a JSON file"),
        (b"\xff\xfe{}", "must be a JSON file"),
        ("[" * 100_000, "must be a JSON file"),
        ('["a"]', "must be a JSON object"),
        ('{"daisy": ["a"], "daisy": ["b"], "rose": ["c"]}', "must name each class and set once, got \\['daisy'\\]"),
    ],
)
def test_files_that_are_no_descriptions(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_descriptions(written(tmp_path, text), CLASSES, None)


def test_files_that_cannot_be_read_or_are_too_large(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="must be a JSON file that can be read"):
        read_descriptions(tmp_path / "none.json", CLASSES)
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):  # a pipe would be waited for
        with pytest.raises(DataError, match="must be a file"):
            read_descriptions(place, CLASSES)
    path = written(tmp_path, json.dumps(SETS))
    monkeypatch.setattr(descriptions, "MAX_BYTES", path.stat().st_size)
    assert read_descriptions(path, CLASSES)
    monkeypatch.setattr(descriptions, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match="at most"):
        read_descriptions(path, CLASSES)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 5))
def test_exactly_m_texts_each_one_used_before_any_is_repeated(sizes, count, seed):
    texts = [[f"{c}-{i}" for i in range(size)] for c, size in enumerate(sizes)]
    drawn = exactly(texts, count, seed)
    for own, got in zip(texts, drawn, strict=True):
        assert len(got) == count
        assert set(got) <= set(own)
        assert len(set(got)) == min(count, len(own))
    assert drawn == exactly(texts, count, seed)
    assert exactly([*texts, ["other"]], count, seed)[:-1] == drawn  # not of the other classes' texts


def test_exactly_draws_differently_with_another_seed_and_needs_texts():
    many = [[str(i) for i in range(50)]]
    assert exactly(many, 20, 0) != exactly(many, 20, 1)
    with pytest.raises(ConfigError, match="count"):
        exactly(many, 0)
    with pytest.raises(DataError, match=r"texts\[1\]"):
        exactly([["a"], []], 2)


@pytest.mark.parametrize("sets", [None, ("distinctive", "descriptive")])
def test_a_programs_context_gives_the_same_back(sets):
    found = read_descriptions(SETS, CLASSES, sets)
    assert from_examples(as_examples(found, CLASSES), CLASSES, sets) == found
    flat = read_descriptions({"daisy": "a", "rose": "b"}, CLASSES, None)
    assert [one.texts for one in as_examples(flat, CLASSES)] == [("daisy",), ("rose",)]
    assert from_examples(as_examples(flat, CLASSES), CLASSES, None) == flat
    with pytest.raises(DataError, match="'rose'\\] missing"):
        from_examples(as_examples(found, CLASSES)[:1], CLASSES, None)
