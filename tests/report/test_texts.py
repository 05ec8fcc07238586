"""Reports and controls of text tasks: nothing of pictures in them, and texts are escaped."""

import pytest
import torch

from reprogram.catalogue import build
from reprogram.fit import FitOptions, FitResult, evaluate, fit
from reprogram.inputs import Template
from reprogram.outputs import Linear, Verbalizer
from reprogram.report import comparison_table, controls, write_comparison, write_report
from reprogram.report.controls import placed
from reprogram.report.texts import LONGEST, text_samples
from reprogram.report.verdict import judge
from reprogram.tasks import Task, load_task
from reprogram.testing import scripted_source, tiny_text_source
from tests.methods.text_tasks import opinions
from tests.methods.text_tasks import orders as words_twice
from tests.report.pages import read_page

QUIET = FitOptions(progress=False)
SMALL = {"tokens": 4, "recipe.epochs": 2, "recipe.batch_size": 8}
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \u202e"
TEXTS = [
    f"the {word} film was {mood} {n} {EVIL}" for n in range(10) for word, mood in (("old", "good"), ("new", "bad"))
]
MOOD = Task.from_texts(TEXTS, ["positive", "negative"] * 10, name="mood", test=0.5)
PAIRS = Task.from_texts([(text, "<b>") for text in TEXTS], ["yes", "no", "maybe", "yes"] * 5, name="pairs", test=0.5)
ORDERS = load_task("bundled/json-orders").limit(train=8, val=4, test=8)


@pytest.fixture(scope="module")
def gpt2():
    return tiny_text_source("gpt2")


def fitted(method: str, source, task: Task, **settings) -> FitResult:
    return fit(build(method, source, task, **{**SMALL, **settings}), task, options=QUIET)


@pytest.fixture(scope="module")
def mood(gpt2):
    return fitted("prompt_tuning", gpt2, MOOD)


@pytest.fixture(scope="module")
def orders(gpt2):
    return fitted("prompt_tuning", gpt2, ORDERS)


def names(rows):
    return [row.name for row in rows]


def test_controls(gpt2, mood):
    rows = controls(mood, MOOD)
    assert names(rows) == ["no edit, same output", "linear probe", "majority class"]
    assert all(row.test is not None and row.test.scores.shape == (10, 2) for row in rows)
    zero = evaluate(build("no_edit", gpt2, MOOD), MOOD.test)  # the same template, the same label words
    assert torch.equal(rows[0].test.scores, zero.scores) and rows[0].parameters.allocated == 0
    assert "text in the program's template" in rows[0].description and "features" in rows[1].description
    assert rows[1].parameters.allocated == 2 * 32 + 2


def test_random_source(mood):
    rows = controls(mood, MOOD, full=True)
    assert names(rows)[-1] == "random source" and rows[-1].test is not None, rows[-1].description


def test_a_control_has_no_row_for_itself(gpt2):
    no_edit = fit(build("no_edit", gpt2, MOOD), MOOD, options=QUIET)
    assert names(controls(no_edit, MOOD)) == ["linear probe", "majority class"]
    probe = fit(build("linear_probe", gpt2, MOOD, **{"recipe.epochs": 1}), MOOD, options=QUIET)
    assert names(controls(probe, MOOD)) == ["majority class"]


@pytest.mark.parametrize(
    ("method", "kind", "output"),
    [
        ("prefix_tuning", "gpt2", Verbalizer),
        ("p_tuning", "bert", Verbalizer),
        ("prompt_tuning", "bert_encoder", Linear),
        ("mixture_of_soft_prompts", "gpt2", Verbalizer),
    ],
)
def test_controls_of_other_methods(method, kind, output):
    """Templates lose their learned tokens, and several prompts' answers become one."""
    source = tiny_text_source(kind)
    result = fitted(method, source, MOOD)
    place = placed(result.program, MOOD)
    assert isinstance(place, Template) and place.slots == 0
    first = controls(result, MOOD)[0]
    assert first.test is not None and first.test.scores.shape == (10, 2), first.description
    from reprogram.report.controls import fresh_output

    assert isinstance(fresh_output(result.program), output)


def test_generation_has_one_control(orders):
    rows = controls(orders, ORDERS)
    assert names(rows) == ["no edit, same output"] and rows[0].test.confusion is None
    assert 0 < rows[0].test.loss < 100


def test_verdicts(mood, orders):
    sentence = judge(mood, controls(mood, MOOD)).sentence
    assert "of 10 test texts" in sentence and "picture" not in sentence
    sentence = judge(orders, ()).sentence
    assert "of the tokens to be written in 8 test texts" in sentence and "perplexity" in sentence


def test_samples(mood, orders):
    rows = text_samples(mood.program, MOOD)
    assert len(rows) == 8 and {row.truth for row in rows} <= {"positive", "negative"}
    told = dict(zip(MOOD.test.names, mood.program.predict(list(_texts(MOOD.test))).labels, strict=True))
    assert all(row.answer == told[row.name] and row.right == (row.answer == row.truth) for row in rows)
    rows = text_samples(orders.program, ORDERS)
    assert len(rows) == 4 and all(row.truth.startswith('{"item"') and row.answer is not None for row in rows)
    assert text_samples(orders.program, ORDERS) == rows  # greedy, hence the same again


def test_long_texts_are_cut(gpt2):
    task = Task.from_texts(["x y " * 1000, "z " * 1000] * 4, [0, 1] * 4, name="long")
    source = tiny_text_source("bert_encoder")
    rows = text_samples(build("no_edit", source, task), task)
    assert rows and all(len(row.parts[0][1]) == LONGEST + 1 for row in rows)


def _texts(split):
    return split.fetch(torch.arange(len(split))).columns["text"]


@pytest.mark.parametrize("task", [MOOD, PAIRS], ids=lambda t: t.name)
def test_page(task, gpt2, tmp_path):
    result = fitted("prompt_tuning", gpt2, task)
    path = write_report(result, task, tmp_path / "x.html", controls=controls(result, task))
    page = read_page(path)
    assert not page.misnested and not page.open and not page.all("img")
    assert "texts" in page.sections and "samples" not in page.sections and "confusion" in page.sections
    assert "picture" not in page.text.lower().replace("class picture", "")
    assert "alert(2)" in page.text  # as text ...
    assert not any(
        "alert(1)" in body and "figures" not in a.get("id", "") for a, body in page.scripts
    )  # ... not as code
    assert len(page.scripts) == 4 and "Label words" in page.text
    assert f"“ {task.classes[0]}”" in page.text
    assert "Learned tokens" in page.text and "4 tokens that join every text" in page.text
    assert "Columns" in page.text and "characters in training" in page.text
    assert page.places <= set(page.figures) and {"confusion", "controls"} <= page.places


def test_page_of_generation(orders, tmp_path):
    path = write_report(orders, ORDERS, tmp_path / "x.html", controls=controls(orders, ORDERS))
    page = read_page(path)
    assert not page.misnested and "confusion" not in page.sections and "confusion" not in page.figures
    assert "texts to be written" in page.text and "nats a token" in page.text and "perplexity" in page.text
    assert "to be written" in page.text and '{"item":' in page.text and "nan" not in page.text.lower()
    assert "The answer is what the source writes" in page.text and "picture" not in page.text.lower()


def test_page_of_an_encoder(tmp_path):
    source = tiny_text_source("bert_encoder")
    result = fit(build("no_edit", source, MOOD), MOOD, options=QUIET)
    page = read_page(write_report(result, MOOD, tmp_path / "x.html"))
    assert "The text reaches the source as it is, only in its template" in page.text and not page.misnested


def test_tables_and_comparisons(mood, orders, tmp_path):
    rows = controls(mood, MOOD)
    assert "majority class" in comparison_table([mood, *rows])
    page = read_page(write_comparison([mood], MOOD, tmp_path / "c.html", controls=rows))
    assert "test texts is the" in page.text and "picture" not in page.text.lower() and not page.misnested
    page = read_page(write_comparison([orders], ORDERS, tmp_path / "d.html", controls=controls(orders, ORDERS)))
    assert "texts to be written" in page.text and not page.misnested


def test_programs_that_read_answers_off_texts(tmp_path):
    task = words_twice()
    source = scripted_source(
        [(r"get the film\n$", "  "), (r"get the (\w+)\n$", lambda found, _: f"{found[1]} {found[1]}")]
    )
    result = fit(build("few_shot", source, task, shots=2), task, options=QUIET)
    made = controls(result, task)
    assert [c.name for c in made] == ["no edit, same output"]
    text = write_report(result, task, tmp_path / "r.html", controls=made).read_text()
    assert "What the source is shown" in text and "with 2 examples" in text
    assert "no answer could be read of" in text and "read by rule off what the source writes" in text
    assert "perplexity" not in text and ">nan" not in text.lower()


def test_conversations_are_shown_step_by_step(tmp_path):
    task = opinions()
    source = scripted_source([("therefore|Therefore", "(C)"), ("", "It is praise.")])
    result = fit(build("zero_shot_cot", source, task), task, options=QUIET)
    text = write_report(result, task, tmp_path / "r.html", controls=controls(result, task)).read_text()
    assert "2 questions" in text and "Answer 2" in text and "It is praise." in text
