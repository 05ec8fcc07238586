"""Templates: the prompt is the fixed parts and the data, spans say which is which, and mistakes are named."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprogram.core.errors import ConfigError, DataError
from reprogram.core.texts import MASK, SEP, SLOT, SLOTS, Texts, Tokens
from reprogram.inputs import Template, default_layout, woven_layout

often = settings(deadline=None, max_examples=80)
text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Co")), max_size=12)
marks = st.sampled_from([MASK, SEP, chr(SLOT), chr(SLOT + SLOTS - 1)])


def batch(**columns: str) -> Texts:
    return Texts({name: (value,) for name, value in columns.items()})


def escaped(fixed: str) -> str:
    return fixed.replace("{", "{{").replace("}", "}}")


@often
@given(st.lists(st.tuples(text, st.sampled_from("ab")), min_size=1, max_size=4), text, text, text)
def test_spans_are_the_data_and_the_rest_is_the_layout(pieces, tail, a, b):
    layout = "".join(f"{escaped(fixed)}{{{name}}}" for fixed, name in pieces) + escaped(tail)
    rendered = Template(layout, ["a", "b"])(batch(a=a, b=b))
    prompt, spans = rendered.prompts[0], rendered.spans[0]
    values = {"a": a, "b": b}
    assert [prompt[start:end] for start, end in spans] == [values[name] for _, name in pieces]
    left, at = "", 0
    for start, end in spans:
        left, at = left + prompt[at:start], end
    assert left + prompt[at:] == "".join(fixed for fixed, _ in pieces) + tail


@often
@given(text, marks, text)
def test_marks_in_the_data_open_no_places(before, mark, after):
    rendered = Template("{text}{sep}{soft:2}{mask}")(batch(text=before + mark + after))
    start, end = rendered.spans[0][0]
    assert rendered.prompts[0][start:end] == f"{before}\ufffd{after}"
    assert rendered.prompts[0][end:] == SEP + chr(SLOT) + chr(SLOT + 1) + MASK


def test_rows_targets_and_order_stay():
    given_rows = Texts({"q": ("1", "2"), "c": ("x", "y")}, targets=("t", "u"))
    rendered = Template("{c}: {q}")(given_rows)
    assert rendered.prompts == ("x: 1", "y: 2")
    assert rendered.targets == ("t", "u")
    assert rendered[[1]].spans == (((0, 1), (3, 4)),)


def test_soft_tokens_are_numbered_on():
    template = Template("{soft:2}{text}{soft:1}")
    rendered = template(batch(text="x"))
    assert rendered.prompts[0] == chr(SLOT) + chr(SLOT + 1) + "x" + chr(SLOT + 2)
    assert (template.slots, template.answers) == (3, 0)
    assert Template("{mask} {text} {mask}").answers == 2


@pytest.mark.parametrize(
    ("layout", "lead"),
    [
        ("{text}\nLabel:", "\nLabel:"),
        ("{text}{sep}It was{mask}. {mask}", "It was"),
        ("a {text}", ""),
        ("{text}{soft:2}", ""),
        ("{soft:2} so {mask}{text} on", " so "),
    ],
)
def test_lead_is_the_text_right_before_the_answer(layout, lead):
    assert Template(layout).lead == lead


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ("{text} {", "brace without its other at character 7"),
        ("}{text}", "brace without its other at character 0"),
        ("{te{xt}", "brace without its other at character 0"),
        ("{txet}", r"must name columns of the task, \['text', 'label'\], got '{txet}'. Did you mean {text}\?"),
        ("{}", "must name columns"),
        ("no column", r"must name a column of the task, such as {text}"),
        ("{text}{soft:many}", "must be a number of soft tokens from 1 to 4096"),
        ("{text}{soft:0}", "must be a number of soft tokens from 1 to 4096"),
        ("{text}{soft:4097}", "must be a number of soft tokens from 1 to 4096"),
        ("{text}{soft:4096}{soft:1}", "must be at most 4096 soft tokens in all, got 4097"),
        (f"{{text}}{MASK}", "private-use"),
    ],
)
def test_mistakes_are_named(layout, said):
    with pytest.raises(ConfigError, match=said):
        Template(layout, ["text", "label"])


def test_data_that_do_not_fit():
    with pytest.raises(DataError, match=r"must name columns of the task, \['txt'\]"):
        Template("{text}")(batch(txt="x"))
    import torch

    ids = Tokens(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises((DataError, TypeError), match=r"texts|Tokens"):
        Template("{text}")(ids)


@pytest.mark.parametrize("kind", ["causal", "masked", "seq2seq", "encoder", "classifier"])
@pytest.mark.parametrize("columns", [["text"], ["premise", "hypothesis"]])
def test_defaults_hold_every_column_and_a_place_for_masked_models(kind, columns):
    template = Template(default_layout(kind, columns), columns)
    assert len(template(Texts({name: ("x",) for name in columns})).spans[0]) == len(columns)
    assert template.answers == (kind == "masked")
    assert template.lead == template.lead.rstrip(" ")


@pytest.mark.parametrize("name", ["mask", "sep", "soft:3", "a{b", "c}", ""])
def test_columns_that_no_template_can_name(name):
    with pytest.raises(ConfigError, match="Rename the column"):
        default_layout("causal", [name])


@often
@given(st.sampled_from(["causal", "masked"]), st.integers(0, 30), st.integers(1, 3))
def test_woven_layouts_have_all_tokens_in_even_gaps(kind, tokens, columns):
    names = [f"c{i}" for i in range(columns)]
    template = Template(woven_layout(kind, names, tokens), names)
    assert template.slots == tokens
    prompt = template(Texts({name: ("x",) for name in names})).prompts[0]
    gaps = [len(gap) for gap in prompt.replace(MASK, "x").split("x")]
    if kind == "causal":
        assert len(gaps) == columns + 1
    assert max(gaps) - min(gaps) <= 1
    assert sum(gaps) == tokens
