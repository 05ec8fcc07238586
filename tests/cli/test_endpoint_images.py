"""An image classifier behind HTTP from the command line: fit, evaluate, predict, show."""

import json

import pytest

from reprogram.testing import tiny_source
from reprogram.testing.image_server import ImageServer


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROGRAM_CACHE", str(tmp_path / "cache"))
    with ImageServer(tiny_source()) as server:
        yield f"endpoint/{server.url}"


def test_the_whole_way(cli, url, pictures, tmp_path):
    out = tmp_path / "p.safetensors"
    code, text, notes = cli("fit", "-s", url, "-t", pictures, "-m", "no_edit", "-o", out, "--no-report", "--json")
    assert code == 0, notes
    fitted = json.loads(text)
    code, _, notes = cli("evaluate", out, "-t", pictures)
    assert code == 1
    assert "nothing is sent there unasked" in notes
    code, text, notes = cli("evaluate", out, "-t", pictures, "-s", url, "--json")
    assert code == 0, notes
    assert json.loads(text)["accuracy"] == fitted["test"]["accuracy"]
    picture = next(pictures.rglob("*.png"))
    code, text, notes = cli("predict", out, picture, "-s", url, "--format", "jsonl")
    assert code == 0, notes
    code, text, notes = cli("show", out)
    assert code == 0, notes
    assert "endpoint/http://127.0.0.1" in text


def test_what_needs_gradients_is_refused_in_a_line(cli, url, pictures, tmp_path):
    code, _, notes = cli("fit", "-s", url, "-t", pictures, "-m", "ilm_vp", "-o", tmp_path / "p.safetensors")
    assert code == 1
    assert "gradients" in notes
