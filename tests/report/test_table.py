"""Tables and the page that compares programs."""

from dataclasses import replace

import pytest

import reprogram.report as room
from reprogram.report import comparison_table, controls, write_comparison, write_report
from tests.report.conftest import fitted, renamed
from tests.report.pages import read_page
from tests.report.test_html import EVIL, check


@pytest.fixture(scope="module")
def others(blm, source, task):
    return {"blm": blm, "ilm_vp": fitted("ilm_vp", source, task), "no_edit": fitted("no_edit", source, task, epochs=1)}


def test_the_room_says_what_it_offers():
    assert room.__all__ == sorted(room.__all__)
    assert set(room.__all__) == {
        "Control", "comparison_table", "controls", "evaluate_result", "write_comparison",
        "write_diagnosis", "write_report",
    }  # fmt: skip


def test_plain_table(blm, blm_controls):
    text = comparison_table([blm, *blm_controls])
    lines = text.splitlines()
    assert len(lines) == 2 + 5 and len({len(line) for line in lines}) == 1
    cells = [c.strip() for c in lines[2].strip("|").split("|")]
    low, high = blm.test.interval()
    assert cells[:3] == ["blm", f"{100 * blm.test.accuracy:.1f} %", f"{100 * low:.1f} – {100 * high:.1f}"]
    assert cells[3:] == ["576", "576", "36", f"{blm.seconds:.1f}"]
    assert lines[1].startswith("| ---") and "---:" in lines[1]


def test_plain_table_names(blm):
    text = comparison_table([blm, blm])
    assert "| blm " in text and "| blm (2) " in text
    assert "a\\|b c" in comparison_table({"a|b\nc": replace(blm, test=None)})
    assert comparison_table([]).count("\n") == 1


def test_comparison_page(others, blm_controls, task, tmp_path):
    path = write_comparison(others, task, tmp_path / "index.html", controls=blm_controls)
    page = read_page(path)
    check(page)
    assert set(page.figures) == {"bars", "accuracy", "loss"}
    names = [trace["name"] for trace in page.figures["accuracy"]["data"]]
    assert names == ["blm", "ilm_vp"]
    order = page.figures["bars"]["data"][0]["x"]
    assert order == sorted(order, reverse=True)
    assert page.figures["bars"]["data"][0]["marker"]["color"].count("--accent") == 2
    assert path.stat().st_size < 8e6 and "3 programs compared" in page.text


def test_links_to_reports(others, blm, task, tmp_path):
    assert not read_page(write_comparison(others, task, tmp_path / "a.html")).all("a")
    mine = replace(blm, out=tmp_path / "my blm #1.safetensors")
    write_report(blm, task, tmp_path / "my blm #1.html")
    page = read_page(write_comparison({"blm": mine}, task, tmp_path / "a.html"))
    assert [a["href"] for a in page.all("a")] == ["./my%20blm%20%231.html"]
    given = {"blm": tmp_path / "sub" / "javascript:x.html"}
    page = read_page(write_comparison([blm], task, tmp_path / "a.html", links=given))
    assert [a["href"] for a in page.all("a")] == ["./sub/javascript%3Ax.html"]


def test_comparison_escapes(others, blm, task, tmp_path):
    odd = renamed(task, tuple(task.classes), name=EVIL, warnings=(EVIL,))
    path = write_comparison({EVIL: blm}, odd, tmp_path / "a.html", title=EVIL)
    check(read_page(path))
    assert EVIL not in path.read_text()


def test_comparison_without_scores(source, tmp_path):
    from tests.report.conftest import random_task

    task = random_task(3, 12, val=0, test=0)
    result = fitted("blm", source, task, epochs=1)
    page = read_page(write_comparison([result], task, tmp_path / "a.html", controls=controls(result, task)))
    check(page)
    assert "Nothing has been scored" in page.text
