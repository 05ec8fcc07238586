"""A report is one whole page that holds everything, loads nothing, and lets no name from the task run."""

import sys

import plotly.graph_objects as go
import pytest
import torch

from reprogram.core.errors import ConfigError, MissingExtraError
from reprogram.core.program import Program
from reprogram.fit import FitOptions, fit
from reprogram.inputs import Place
from reprogram.outputs import BayesianMap, Identity
from reprogram.report import controls, write_report
from reprogram.report.page import THEMES
from tests.report.conftest import fitted, random_task, renamed
from tests.report.pages import read_page

SECTIONS = ["controls", "training", "pattern", "samples", "label-map", "confusion", "size", "reproduce"]
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(blm, blm_controls, task, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new folder" / "blm.html"
    assert write_report(blm, task, path, controls=blm_controls, command="reprogram fit blm") == path
    return read_page(path)


def painted(value, key=""):
    """A chart as the page paints it: colour names in place."""
    if isinstance(value, list):
        return [painted(v, key) for v in value]
    if isinstance(value, dict):
        return {k: painted(v, k) for k, v in value.items()}
    return THEMES["light"].get(value, value) if isinstance(value, str) else value


def check(page):
    """What holds for every report."""
    assert not page.misnested and page.open == []
    assert page.places == set(page.figures)
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset", "data", "action", "poster"):
                assert value.startswith("data:image/png;base64,"), (tag, name, value[:80])
            if name == "href":
                assert tag == "a" and not value.lower().startswith("javascript"), (tag, value)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    assert all("src" not in attributes for attributes, _ in page.scripts)
    assert all(image.get("alt") for image in page.all("img"))
    for figure in page.figures.values():
        go.Figure(painted({k: v for k, v in figure.items() if k != "width"}))


def test_all_sections_are_there(page):
    check(page)
    assert page.sections == SECTIONS
    assert set(page.figures) == {"controls", "accuracy", "loss", "confusion", "classes"}


def test_numbers_of_the_result_are_there(page, blm, blm_controls):
    low, high = blm.test.interval()
    assert f"{100 * blm.test.accuracy:.1f} %" in page.text
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f} %" in page.text
    for control in blm_controls:
        assert control.name in page.text and control.description in page.text
    count = blm.program.count()
    assert f"{count.allocated:,}" in page.text and f"{count.fitted:,}" in page.text
    assert f"{blm.out.stat().st_size / 1000:.1f} kB" in page.text
    assert blm.program.source.fingerprint() in page.text
    assert "Bayesian-guided Label Mapping" in page.text and "reprogram fit blm" in page.text


def test_epochs_are_stated_apart(page, blm):
    assert "Selected: best on validation" in page.text and "Best on test (known only afterwards, not used)" in page.text
    curves = {trace["name"]: trace for trace in page.figures["accuracy"]["data"]}
    assert set(curves) == {"train", "validation", "test"}
    assert curves["validation"]["y"] == [row["val_accuracy"] for row in blm.history]
    assert page.figures["accuracy"]["layout"]["shapes"][0]["x0"] == blm.best_epoch + 1


def test_samples_say_right_or_wrong_in_words(page, blm, task):
    cards = [a for a in page.all("article") if a["class"] == "sample"]
    assert len(cards) == 9
    assert page.text.count("✓ right") + page.text.count("✗ wrong") == 9


def test_file_is_small_and_says_what_it_may_load(blm, task, tmp_path):
    path = write_report(blm, task, tmp_path / "r.html")
    text = path.read_text()
    assert path.stat().st_size < 8e6
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]  # nothing temporary left


def test_names_are_text_and_nothing_else(source, task, tmp_path):
    names = (EVIL, '"><img src=x onerror=alert(2)>', "--accent {{ 7*7 }} <a href='http://evil'>")
    task = renamed(task, names, name=f"{EVIL} task", warnings=(f"odd: {EVIL}",))
    result = fitted("blm", source, task, epochs=1)
    path = write_report(result, task, tmp_path / "r.html", controls=controls(result, task), command=EVIL, title=EVIL)
    page, text = read_page(path), path.read_text()
    check(page)
    assert EVIL not in text and "<img src=x" not in text
    assert EVIL in page.text and names[1] in page.text and "{{ 7*7 }}" in page.text
    labels = page.figures["confusion"]["layout"]["yaxis"]["ticktext"]
    assert not any("<" in label for label in labels)


@pytest.mark.parametrize("method", ["smm", "ilm_vp", "vp", "no_edit", "linear_probe"])
def test_other_methods(method, source, task, tmp_path):
    result = fitted(method, source, task, epochs=1)
    page = read_page(write_report(result, task, tmp_path / "r.html", controls=controls(result, task)))
    check(page)
    assert page.sections == SECTIONS
    nothing = "Nothing. The picture reaches the source as it is" in page.text
    assert nothing == (method in ("no_edit", "linear_probe"))
    assert ("mask of sample 4" in [i["alt"] for i in page.all("img")]) == (method == "smm")
    assert ("read from one source class" in page.text) == (method in ("smm", "ilm_vp", "vp"))


def test_a_program_that_reads_features(task, tmp_path):
    from reprogram.testing import tiny_source

    result = fitted("linear_probe", tiny_source(), task, features=True, epochs=1)
    assert "reads the network's features" in read_page(write_report(result, task, tmp_path / "r.html")).text


def test_programs_by_hand_and_an_output_without_a_table(tmp_path):
    from reprogram.testing import tiny_source

    task = random_task(12, 6)
    program = Program([Place(16, 16)], tiny_source(), Identity())
    result = fit(program, task, options=FitOptions(progress=False))
    page = read_page(write_report(result, task, tmp_path / "r.html"))
    check(page)
    assert "is no table of source classes" in page.text and "made by hand" in page.text


def test_sixty_classes(tmp_path):
    from reprogram.testing import tiny_source

    task = random_task(60)
    result = fitted("blm", tiny_source(classes=64), task, epochs=1)
    page = read_page(write_report(result, task, tmp_path / "r.html", controls=controls(result, task)))
    check(page)
    assert "confusion" not in page.figures and "classes" not in page.figures
    assert "Weakest classes" in page.text and "Most frequent mistakes" in page.text


def test_two_classes(source, tmp_path):
    task = random_task(2, 20)
    result = fitted("blm", source, task, epochs=1)
    page = read_page(write_report(result, task, tmp_path / "r.html", controls=controls(result, task)))
    check(page)
    assert "confusion" in page.figures and "classes" not in page.figures


def test_without_validation(source, tmp_path):
    task = random_task(3, 12, val=0)
    result = fitted("blm", source, task)
    page = read_page(write_report(result, task, tmp_path / "r.html", controls=controls(result, task)))
    check(page)
    assert "for want of validation data" in page.text


def test_without_test(source, tmp_path):
    task = random_task(3, 12, test=0)
    result = fitted("blm", source, task, epochs=1)
    page = read_page(write_report(result, task, tmp_path / "r.html", controls=controls(result, task)))
    check(page)
    assert "validation pictures" in page.text and "There is no test split" in page.text


def test_without_both(source, tmp_path):
    task = random_task(3, 12, val=0, test=0)
    result = fitted("no_edit", source, task, epochs=1)
    page = read_page(write_report(result, task, tmp_path / "r.html", controls=controls(result, task)))
    check(page)
    assert "nothing can be said about accuracy" in page.text and "confusion" not in page.sections


def test_without_controls(blm, task, tmp_path):
    page = read_page(write_report(blm, task, tmp_path / "r.html"))
    check(page)
    assert "No controls were fitted" in page.text


def test_a_program_that_knows_nothing_yet(source, task, tmp_path):
    from reprogram.report import evaluate_result

    program = Program([Place(16, 16)], source, BayesianMap(12, 3)).eval()
    page = read_page(write_report(evaluate_result(program, task), task, tmp_path / "r.html"))
    check(page)
    assert "never seen" in page.text and "No history of the fit" in page.text


def test_the_mode_of_the_program_is_put_back(blm, task, tmp_path):
    blm.program.train()
    write_report(blm, task, tmp_path / "r.html")
    assert blm.program.training
    blm.program.eval()


def test_a_place_that_cannot_be_written_to(blm, task, tmp_path):
    with pytest.raises(ConfigError, match="must be a file that can be written"):
        write_report(blm, task, tmp_path)


@pytest.mark.parametrize("missing", ["jinja2", "plotly.offline"])
def test_a_missing_extra_is_named(missing, blm, task, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"reprogram\[report\]"):
        write_report(blm, task, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_weird_text_does_not_break_the_file(source, task, tmp_path):
    task = renamed(task, ("lone \udcff", "new\nline", "x" * 500))
    result = fitted("no_edit", source, task, epochs=1)
    check(read_page(write_report(result, task, tmp_path / "r.html")))
    assert torch.is_tensor(result.test.confusion)
