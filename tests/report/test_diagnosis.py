"""The page of a diagnosis: all in one file, untrusted names, warnings first, and nothing where there is nothing."""

import json
from dataclasses import replace

import pytest
import torch

from reprogram.core.errors import ConfigError
from reprogram.core.program import Program
from reprogram.inputs import Place
from reprogram.ntk import DiagnoseOptions, diagnose
from reprogram.outputs import FirstClasses
from reprogram.report.diagnosis import lead, write_diagnosis
from tests.ntk.nets import additive, healthy, mlp, patch, samples
from tests.report.pages import read_page

NASTY = '</script><img src=x onerror=alert(1)>"&{{ 7*7 }} Ünï'


def made(program, n=12, source_samples=4, follow=0):
    options = DiagnoseOptions(source_samples=source_samples, follow=follow)
    return diagnose(program, *samples(n), options=options)


@pytest.fixture(scope="module")
def full():
    return made(additive(mlp()), follow=12)


def written(found, tmp_path, **more):
    path = write_diagnosis(found, tmp_path / "a b" / "diagnosis.html", **more)
    return read_page(path), path.read_text(encoding="utf-8")


def test_everything_is_there_and_nothing_is_loaded(full, tmp_path):
    page, text = written(full, tmp_path, command="reprogram diagnose -s x")
    assert page.sections == ["readings", "spectrum", "reach", "loss", "facts"]
    assert page.places == set(page.figures) == {"spectrum", "reach", "loss"}
    assert not page.misnested
    assert not page.open
    head = text.split("<script")[0] + text.split("</script>")[-1]
    assert not any(word in head for word in ("http:", "https:", "src=", "url("))
    assert "default-src 'none'" in text
    for reading in full.readings:
        assert " ".join(reading.predicts.split()) in page.text
        assert " ".join(reading.trust.split()) in page.text
        assert reading.shown in page.text
    assert "reprogram diagnose -s x" in page.text
    assert full.digest[:16] in page.text
    assert "does not forecast an accuracy" in page.text


def test_no_two_elements_share_an_id(full, tmp_path):
    """The charts find their data by id."""
    page, _ = written(full, tmp_path)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {"figures", "themes"} <= set(ids)


def test_charts_hold_the_numbers(full, tmp_path):
    page, _ = written(full, tmp_path)
    spectrum, loss = page.figures["spectrum"]["data"], page.figures["loss"]["data"]
    assert [t["name"] for t in spectrum] == ["program kernel", "source kernel"]
    assert spectrum[0]["y"] == list(full.curves.program)
    assert spectrum[0]["x"][0] == 1
    assert loss[0]["y"] == list(full.curves.predicted)
    assert loss[1]["y"] == list(full.curves.actual)
    assert loss[1]["x"] == list(range(13))
    assert page.figures["reach"]["data"][0]["y"] == list(full.curves.reach)


def test_hostile_names_stay_text(full, tmp_path):
    found = replace(full, source=NASTY, task=NASTY, method=NASTY, mapping=NASTY, warnings=(NASTY,),
                    routes={NASTY: NASTY})  # fmt: skip
    page, text = written(found, tmp_path, command=NASTY)
    assert not page.all("img")
    assert "49" not in page.text.split("Ünï")[0][-12:]
    assert page.text.count("{{ 7*7 }}") >= 8
    assert len(page.scripts) == 4
    assert NASTY not in text
    json.dumps(page.figures)


def test_warnings_come_before_the_figures(full, tmp_path):
    page, text = written(replace(full, warnings=("Mind the first.", "Mind the second.")), tmp_path)
    assert text.index("Mind the first.") < text.index("Mind the second.") < text.index('id="readings"')
    assert "Heed the warnings below." in page.text
    calm, _ = written(replace(full, warnings=()), tmp_path)
    assert "Warnings" not in calm.text
    assert "No sign of failure was found." in calm.text


def test_without_following(tmp_path):
    page, _ = written(made(additive(mlp())), tmp_path)
    assert [t["name"] for t in page.figures["loss"]["data"]] == ["predicted by the kernel"]
    assert "Training, predicted" in page.text
    assert "and actual" not in page.text


def test_without_a_source_kernel(tmp_path):
    page, _ = written(made(additive(mlp()), source_samples=0), tmp_path)
    assert [t["name"] for t in page.figures["spectrum"]["data"]] == ["program kernel"]
    assert "of the source's own" not in page.text
    assert "source lambda_min" not in page.text
    assert "not made" in page.text


def test_a_zero_kernel(tmp_path):
    source = mlp()
    with torch.no_grad():
        source.module.layers[0].weight.zero_()
    page, text = written(made(additive(source), follow=3), tmp_path)
    assert page.sections == ["readings", "spectrum", "facts"]
    assert "its kernel is zero" in page.text
    assert "hardly moves the scores" in page.text
    assert "Eigenvalues of the source's own on the first 4 of 12 samples" in page.text
    visible = page.text.lower()
    assert "nan" not in visible.split()
    assert "inf" not in visible.split()
    bare, text = written(made(additive(source), source_samples=0), tmp_path)
    assert bare.sections == ["readings", "facts"]
    assert "Plotly" not in text


def test_a_program_that_learns_nothing(tmp_path):
    program = Program([Place(8)], mlp(), FirstClasses(4, 3))
    page, _ = written(made(program), tmp_path)
    assert page.sections == ["readings", "spectrum", "facts"]
    assert "only the source has a kernel" in page.text
    page, _ = written(made(program, source_samples=0), tmp_path)
    assert page.sections == ["facts"]


def test_low_rank_says_so_and_gives_no_smallest_eigenvalue(tmp_path):
    found = made(patch(mlp(), size=1))
    assert lead(found).startswith("The program's kernel has rank 3 of 36: in the linear regime ")
    assert ", and the rest cannot." in lead(found)
    page, _ = written(found, tmp_path)
    assert "zero by structure: rank at most 3 of 36" in page.text


def test_a_share_that_is_all_leaves_no_rest():
    found = made(additive(healthy()))
    assert not found.full_rank
    reach = replace(found, values={**found.values, "reachable": 0.999})
    assert "and the rest cannot" not in lead(reach)


def test_a_path_that_cannot_be_written(full, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="path"):
        write_diagnosis(full, tmp_path / "file" / "x.html")
