import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reprogram.core.errors import ArtifactError
from reprogram.store import Limits, ProgramCard
from reprogram.store.card import from_json, to_json

CARD = {
    "schema_version": 1,
    "library_version": "0.1.0",
    "created": "2025-11-30T12:00:00.5Z",
    "method": "vp",
    "form": "trained",
    "config": {"size": 224, "recipe": {"betas": [0.9, 0.999], "patience": None, "on": True}},
    "taxonomy": {"location": ["input"], "operator": []},
    "source": {
        "ref": "bundled/x",
        "fingerprint": "ab" * 32,
        "input_shape": [3, 224, 224],
        "outputs": 1000,
        "preprocessing": {"mean": [0.5], "std": [0.25], "interpolation": "bicubic"},
    },
    "task": {
        "name": "pets",
        "classes": ["cat", "日本", 'a "b"'],
        "sample": {"shape": [3, 32, 32], "fit": "crop", "interpolation": "bicubic"},
        "modality": "image",
    },
    "metrics": {"accuracy": 0.5, "n": 3, "x": None, "s": "nan"},
    "parameters": {"allocated": 3, "effective": 2, "fitted": 1},
    "citation": "@misc{x}",
    "seed": -1,
    "notes": ["a"],
}


def changed(path: str, value: object) -> str:
    card = json.loads(json.dumps(CARD))
    *steps, last = path.split(".")
    place = card
    for step in steps:
        place = place[step]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return json.dumps(card)


def test_round_trip():
    card = from_json(json.dumps(CARD))
    assert json.loads(to_json(card)) == CARD
    assert from_json(to_json(card)) == card
    assert to_json(from_json(json.dumps(dict(reversed(CARD.items()))))) == to_json(card)
    assert card.task.classes == ("cat", "日本", 'a "b"')
    assert card.source.input_shape == (3, 224, 224)
    assert [type(v) for v in card.metrics.values()] == [float, int, type(None), str]


TEXT = {"shape": [], "fit": "exact", "interpolation": "bicubic", "columns": ["premise", "hypothesis"]}


@pytest.mark.parametrize("classes", [["no", "yes"], []])
def test_text_tasks(classes):
    task = {"name": "nli", "classes": classes, "sample": TEXT, "modality": "text"}
    card = from_json(changed("task", task))
    assert card.task.sample.columns == ("premise", "hypothesis") and card.task.classes == tuple(classes)
    assert json.loads(to_json(card))["task"] == task and from_json(to_json(card)) == card


def test_cards_of_pictures_are_written_as_before():
    card = from_json(json.dumps(CARD))
    assert card.task.sample.columns == () and "columns" not in to_json(card)
    same = from_json(changed("task.sample.columns", []))
    assert same == card and to_json(same) == to_json(card)


@given(st.lists(st.text(min_size=1, max_size=20), max_size=4), st.lists(st.text(), max_size=3))
def test_any_columns_come_back(columns, classes):
    sample = {"shape": [], "fit": "exact", "interpolation": "bicubic", "columns": columns}
    try:
        card = from_json(changed("task", {"name": "t", "classes": classes, "sample": sample, "modality": "text"}))
    except ArtifactError:
        assert any(ord(c) in range(0xD800, 0xE000) for text in (*columns, *classes) for c in text)
        return
    assert list(card.task.sample.columns) == columns and from_json(to_json(card)) == card


def test_what_may_be_left_out():
    text = json.dumps(
        {k: v for k, v in CARD.items() if k not in ("schema_version", "metrics", "citation", "seed", "notes")}
    )
    card = from_json(text)
    assert (card.schema_version, card.metrics, card.citation, card.seed, card.notes) == (1, {}, "", None, [])
    assert from_json(changed("task", None)).task is None


WRONG = {
    "schema_version": [2, 0, "1", True, None, 1.5],
    "library_version": ["", 1, None, KeyError],
    "created": ["", "2025", "2025-11-30T12:00:00", "2025-11-30T12:00:00Z\n", 5, KeyError],
    "method": ["", None, ["vp"], "x" * 1001, KeyError],
    "config": [None, [], "x", KeyError],
    "taxonomy": [None, {"location": "input"}, {"location": [1]}, []],
    "source": [None, {}, "bundled/x", KeyError],
    "source.ref": ["", 3, KeyError],
    "source.fingerprint": ["", None],
    "source.input_shape": [[-1], ["3"], 3, [1.5], None],
    "source.outputs": [-1, "7", 1.5, None, True],
    "source.preprocessing": [None, {}, []],
    "source.preprocessing.mean": [0.5, ["x"], None],
    "source.auto_map": [{"AutoModel": "evil"}],
    "task": ["pets", {}, []],
    "task.classes": ["ab", [1], None],
    "task.sample": [None, {}],
    "task.sample.columns": ["text", [1], [""], None, 5],
    "metrics": [None, [], {"a": []}, {"a": {}}],
    "parameters.allocated": [-1, 0.5, "3", KeyError],
    "citation": [None, 1],
    "seed": ["1", 0.5, True],
    "notes": ["a", [1], None],
    "_component_": ["os.system"],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in WRONG.items() for v in values], ids=repr)
def test_wrong_fields_are_named(field, value):
    with pytest.raises(ArtifactError, match=rf"^`card\.{re.escape(field)}"):
        from_json(changed(field, value))


def test_several_wrong_fields_are_counted():
    with pytest.raises(ArtifactError, match="1 more of its fields"):
        from_json(json.dumps({**CARD, "seed": "x", "method": 1}))


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "1", '"x"', "{", '{"method": "a", "method": "b"}', '{"metrics": NaN}', "\ud800"]
)
def test_what_is_no_card(text):
    with pytest.raises(ArtifactError, match=r"^`card"):
        from_json(text)


def test_not_a_number_is_no_metric():
    for number in ["NaN", "Infinity", "1e999"]:
        with pytest.raises(ArtifactError):
            from_json(json.dumps(CARD).replace('"accuracy": 0.5', f'"accuracy": {number}'))


def test_cards_are_bounded():
    text = json.dumps(CARD)
    from_json(text, limits=Limits(header_bytes=len(text.encode())))
    with pytest.raises(ArtifactError, match="bytes long"):
        from_json(text, limits=Limits(header_bytes=len(text.encode()) - 1))


def test_cards_do_not_change():
    card = from_json(json.dumps(CARD))
    with pytest.raises(ValidationError):
        card.method = "other"
    assert isinstance(card, ProgramCard)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([f for f in WRONG if f not in ("_component_", "source.auto_map")]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5,
))  # fmt: skip
def test_any_field_can_be_anything(field, value):
    try:
        card = from_json(changed(field, value))
    except ArtifactError:
        return
    assert from_json(to_json(card)) == card
