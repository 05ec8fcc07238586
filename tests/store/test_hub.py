"""Sharing programs, against a hub on the loopback; no other address is reached."""

import builtins
import json
import socket

import pytest
import torch
import yaml

from reprogram.core.errors import ArtifactError, ConfigError, MissingExtraError
from reprogram.store import Limits, from_hub, push_to_hub, read, save
from reprogram.store.hub import page

from .hub_server import running
from .parts import tiny_program

pytest.importorskip("huggingface_hub")
TIME = "2025-11-30T12:00:00Z"
REPO = "someone/toy-shift"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The fake hub, for which alone the tests' offline mode is lifted; to reach any other address fails the test."""
    real, elsewhere = socket.socket.connect, []

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            elsewhere.append(address)
            raise OSError("not in a test")
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with running() as made:
        yield made
    assert elsewhere == []


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "mine.safetensors"
    metrics = {"accuracy": 0.75, "a|b": "<x>"}
    save(
        tiny_program(seed=1), path, metrics=metrics, seed=1, created=TIME, citation="@misc{x,\n}", notes=["one\n# two"]
    )
    return path


def test_there_and_back(hub, program, tmp_path):
    url = push_to_hub(program, REPO, token="hf_secret", private=True, endpoint=hub.endpoint)
    assert url == f"{hub.endpoint}/{REPO}/commit/{hub.commit}"
    assert hub.private[REPO]
    assert set(hub.files[REPO]) == {"program.safetensors", "README.md"}
    assert hub.files[REPO]["program.safetensors"] == program.read_bytes()
    assert hub.tokens == {"Bearer hf_secret"}

    asked = len(hub.requests)
    got = from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="hf_secret")
    assert got.name == "program.safetensors"
    assert got.is_relative_to(tmp_path / "cache")
    assert all("README" not in r for r in hub.requests[asked:])
    ours, theirs = read(program), read(got)
    assert ours.card == theirs.card
    assert all(torch.equal(t, theirs.tensors[n]) for n, t in ours.tensors.items())


def test_a_second_push_replaces(hub, program, tmp_path):
    for seed in [1, 2]:
        save(tiny_program(seed=seed), program, seed=seed, created=TIME)
        push_to_hub(program, REPO, token="t", endpoint=hub.endpoint)
        got = from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="t")
        assert read(got).card.seed == seed
    assert hub.commits == 2


def test_a_revision(hub, program, tmp_path):
    push_to_hub(program, REPO, token="t", endpoint=hub.endpoint)
    got = from_hub(REPO, revision=hub.commit, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="t")
    assert read(got).card == read(program).card
    with pytest.raises(ArtifactError, match=REPO):
        from_hub(REPO, revision="other", endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="t")


def test_only_programs_are_pushed(hub, tmp_path):
    (tmp_path / "f").write_bytes(b"no program")
    with pytest.raises(ArtifactError):
        push_to_hub(tmp_path / "f", REPO, token="t", endpoint=hub.endpoint)
    assert hub.requests == []


def test_what_comes_is_checked(hub, program, tmp_path):
    push_to_hub(program, REPO, token="t", endpoint=hub.endpoint)
    good = hub.files[REPO]["program.safetensors"]
    for number, data in enumerate([good[:-1], b"\x80\x04K\x01.", good.replace(b"cat", b"bat"), b""]):
        hub.files[REPO]["program.safetensors"] = data
        with pytest.raises(ArtifactError):
            from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path / f"cache{number}", token="t")


def test_what_is_too_big_is_not_downloaded(hub, program, tmp_path):
    push_to_hub(program, REPO, token="t", endpoint=hub.endpoint)
    hub.claim = 2**42
    with pytest.raises(ArtifactError, match="4398046511104"):
        from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="t")
    hub.claim = None
    with pytest.raises(ArtifactError, match="at most 20 bytes"):
        limits = Limits(header_bytes=10, tensor_bytes=10)
        from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="t", limits=limits)
    assert not any(r.startswith("GET") and "resolve" in r for r in hub.requests)


def test_what_is_not_there(hub, tmp_path):
    hub.files["someone/empty"] = {}
    for repo in ["someone/nothing", "someone/empty"]:
        with pytest.raises(ArtifactError, match=f"{repo}.*hf auth login") as caught:
            from_hub(repo, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="t")
        assert caught.value.__cause__ is not None


def test_a_hub_that_is_broken_or_gone(hub, program, tmp_path):
    push_to_hub(program, REPO, token="t", endpoint=hub.endpoint)
    cached = from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="t")
    hub.broken = 403
    with pytest.raises(ArtifactError, match="must take the upload"):
        push_to_hub(program, REPO, token="t", endpoint=hub.endpoint)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ArtifactError, match="network"):
        from_hub(REPO, endpoint=nobody, cache_dir=tmp_path / "other", token="t")
    assert from_hub(REPO, endpoint=nobody, cache_dir=tmp_path / "cache", token="t") == cached


@pytest.mark.parametrize("repo", ["", "a/b/c", "../../etc", "a b/c", "someone/x..y", "http://evil/x"])
def test_names_that_are_none(hub, program, repo):
    with pytest.raises(ConfigError, match="repo_id"):
        push_to_hub(program, repo, endpoint=hub.endpoint)
    with pytest.raises(ConfigError, match="repo_id"):
        from_hub(repo, endpoint=hub.endpoint)
    assert hub.requests == []


def test_the_page(program):
    text = page(read(program).card, REPO)
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "reprogram",
        "license": "unknown",
        "tags": ["reprogram", "model-reprogramming", "shift"],
        "pipeline_tag": "image-classification",
    }
    assert "| accuracy | 0.75 |" in body
    assert "tiny/source" in body
    assert f"rp.load(from_hub({json.dumps(REPO)}))" in body
    assert "\n# two" not in body
    assert "<x>" not in body
    assert "\n    @misc{x," in body


def test_without_the_extra(program, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"reprogram\[hub\]"):
        push_to_hub(program, REPO)
