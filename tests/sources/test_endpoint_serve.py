"""A real server, `transformers serve` with SmolLM2: what comes over HTTP is what the model writes here."""

import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest
import torch

import reprogram as rp
from reprogram.core.program import Input
from reprogram.core.source import Capability, Reading
from reprogram.core.texts import Texts
from reprogram.core.writing import ASSISTANT, USER, Grammar, Writing
from reprogram.sources import load_source, smollm2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not smollm2.is_whole(smollm2.folder()), reason="bundled/smollm2-135m is not installed"),
    pytest.mark.skipif(
        not all(find_spec(name) for name in ("fastapi", "uvicorn", "openai")),
        reason="transformers serve needs fastapi, uvicorn and openai",
    ),
]
PROMPTS = ("The capital of France is", "Roses are red, violets are", "1, 2, 3, 4,")
TURN = USER + "Name a colour." + ASSISTANT


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def healthy(url):
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/health", timeout=5) as reply:
            return reply.status == 200
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()
    port = free_port()
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve",
               str(smollm2.folder()), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu",
               "--dtype", "float32"]  # fmt: skip
    env = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 180
            while not healthy(f"http://127.0.0.1:{port}"):
                assert server.poll() is None and time.monotonic() < end, (home / "log").read_text()
                time.sleep(0.3)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(15)


@pytest.fixture(scope="module")
def remote(url, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache") / "replies.sqlite3"
    source = load_source(f"endpoint/{url}", model=str(smollm2.folder()), cache=cache, concurrency=2)
    yield source
    source.close()


@pytest.fixture(scope="module")
def local():
    return load_source("bundled/smollm2-135m")


def write(source, prompts, **options):
    said = source(Texts({"prompt": prompts}), Input(), Reading(writing=Writing(**options)))
    return [row[0] for row in said.written]


def test_it_is_seen_for_what_it_is(remote):
    facts = remote.facts
    assert facts.completions and facts.chat and facts.sure
    assert not facts.echo and not facts.top_completions and not facts.top_chat  # it ignores these fields
    assert not facts.pictures
    assert remote.capabilities == {Capability.GENERATION}


def test_it_writes_what_the_model_writes_here(remote, local):
    there, here = write(remote, PROMPTS, tokens=12), write(local, PROMPTS, tokens=12)
    assert [one.text for one in there] == [one.text for one in here]
    assert [one.tokens for one in there] == [12, 12, 12] and {one.finish for one in there} == {"length"}


def test_chats_too(remote, local):
    assert write(remote, (TURN,), tokens=10)[0].text == write(local, (TURN,), tokens=10)[0].text


def test_texts_end_before_stop_texts(remote):
    full = write(remote, PROMPTS[2:], tokens=12)[0].text
    short = write(remote, PROMPTS[2:], tokens=12, stop=(", 7",))[0]
    assert ", 7" in full and short.text == full[: full.index(", 7")] and short.finish == "stop"


def test_what_it_cannot_do_is_an_error_and_not_a_wrong_answer(remote):
    with pytest.raises(rp.CapabilityError, match="grammar"):
        write(remote, PROMPTS[:1], grammar=Grammar(kind="choice", text="a\nb"))
    with pytest.raises(rp.CapabilityError, match="scoring"):
        scored = load_source(remote.spec.ref, scoring="steps", cache=remote._cache.path)
        scored(Texts({"prompt": PROMPTS}), Input(), Reading(choices=(" a", " b")))


def test_a_program_is_evaluated_and_a_second_time_from_the_cache(remote, local):
    texts = ["2 plus 2 is", "The sky is", "Fire is", "Snow is"]
    task = rp.Task.from_texts(texts, targets=["4", "blue", "hot", "white"], name="facts")
    settings = {"shots": 0, "template": "{text}{mask}", "new_tokens": 6, "stop": ("\n", ".")}
    program = rp.build("few_shot", remote, task, **settings)
    first = rp.evaluate(program, task.train)
    sent = remote.usage.requests
    second = rp.evaluate(rp.build("few_shot", remote, task, **settings), task.train)
    assert remote.usage.requests == sent and remote.usage.hits > 0
    here = rp.evaluate(rp.build("few_shot", local, task, read="text", **settings), task.train)
    for other in (second, here):
        assert [a.value for a in other.answers] == [a.value for a in first.answers]
        assert other.accuracy == first.accuracy
    assert len(first.answers) == len(task.train) and torch.isfinite(torch.tensor(first.accuracy))
