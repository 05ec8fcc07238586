"""The server itself: what it refuses, and its command."""

import base64
import http.client
import json
from urllib.parse import urlsplit

import pytest
import torch

from reprogram.core.errors import SourceError
from reprogram.core.program import Input
from reprogram.sources.endpoint_images_wire import as_sent, png
from reprogram.testing import image_server, tiny_source
from reprogram.testing.image_server import ImageQuirks, ImageServer


@pytest.fixture(scope="module")
def model():
    return tiny_source()


@pytest.fixture(scope="module")
def server(model):
    with ImageServer(model, quirks=ImageQuirks(gives="logits", batch=2)) as made:
        yield made


def ask(server, body, kind="application/json", path="/", method="POST", **headers):
    to = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    to.request(method, path, data, {"content-type": kind, **headers})
    reply = to.getresponse()
    found = reply.status, json.loads(reply.read())
    to.close()
    return found


def floats(shape, data=None):
    values = torch.zeros(shape) if data is None else data
    return {"shape": list(shape), "float32": base64.b64encode(values.numpy().tobytes()).decode()}


def test_it_says_what_it_is(server, model):
    status, about = ask(server, b"", method="GET")
    assert status == 200 and about["task"] == "image-classification" and about["labels"] == list(model.spec.labels)
    assert about["input_shape"] == [3, 16, 16] and about["gives"] == "logits" and about["format"] == "json"
    assert ask(server, b"", method="GET", path="/health") == (200, {"status": "ok"})
    assert ask(server, b"", method="GET", path="/other")[0] == 404


def test_pictures_of_other_sizes_are_brought_to_its_own(server, model):
    large = as_sent(torch.rand(1, 3, 40, 30), "png")[0]
    status, reply = ask(server, {"pictures": [base64.b64encode(png(large)).decode()]})
    assert status == 200 and len(reply["answers"][0]) == 12
    exact = torch.rand(1, 3, 16, 16)
    _, reply = ask(server, {"pictures": [floats((3, 16, 16), exact[0])]})
    torch.testing.assert_close(torch.tensor(reply["answers"]), model(exact, Input()).logits, atol=1e-5, rtol=0)


PNG = base64.b64encode(png(torch.zeros(3, 4, 4, dtype=torch.uint8))).decode()


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[1]", {"pictures": "x"}, {"pictures": []}, {"pictures": [PNG] * 3}, {}, {"pictures": [3]},
        {"pictures": ["not base64"]}, {"pictures": [base64.b64encode(b"no picture").decode()]},
        {"pictures": [PNG[: len(PNG) // 2]]}, {"pictures": [{"shape": [3, 16, 16], "float32": ""}]},
        {"pictures": [floats((3, 16, 16)) | {"shape": [3, 16, -16]}]}, {"pictures": [floats((1, 16, 16))]},
        {"pictures": [floats((3, 16, 16), torch.full((3, 16, 16), float("nan")))]},
        {"pictures": [floats((3, 16, 16)), floats((3, 8, 8))]}, {"pictures": [{"shape": "x"}]}, b"[" * 50_000,
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_and_the_server_lives(server, body):
    status, said = ask(server, body)
    assert status == 422 and said["error"]["message"]
    assert ask(server, {"pictures": [PNG]})[0] == 200


def test_forms_and_large_bodies(server, monkeypatch):
    assert ask(server, b"--x\r\nnothing", kind="multipart/form-data; boundary=x")[0] == 422
    assert ask(server, b"--x", kind="multipart/form-data")[0] == 422
    monkeypatch.setattr(image_server, "MAX_BODY", 10)
    assert ask(server, {"pictures": [PNG]})[0] == 413
    assert ask(server, b"")[0] == 413


def test_formats_can_be_left_out(model):
    with ImageServer(model, quirks=ImageQuirks(formats=("multipart",))) as made:
        assert ask(made, {"pictures": [PNG]})[0] == 422
    with ImageServer(model, quirks=ImageQuirks(formats=("json",), pixels=("float32",))) as made:
        assert ask(made, {"pictures": [PNG]})[0] == 422
        assert ask(made, b"--x--", kind="multipart/form-data; boundary=x")[0] == 422


def test_its_command(monkeypatch, capsys, model):
    def interrupted(self):
        assert ask(self, {"pictures": [floats((3, 24, 24))]})[0] == 200
        raise KeyboardInterrupt

    monkeypatch.setattr("reprogram.sources.load_source", lambda ref: model)
    monkeypatch.setattr(ImageServer, "wait", interrupted)
    assert image_server.main(["--source", "tiny", "--port", "0", "--canvas", "24", "--gives", "label"]) == 130
    assert "tiny is at http://127.0.0.1:" in capsys.readouterr().out


def test_mistakes_are_told(monkeypatch, capsys, model):
    assert image_server.main(["--source", "bundled/nothing"]) == 1
    assert "must be a known reference" in capsys.readouterr().err
    with ImageServer(model) as made, pytest.raises(SourceError, match="port"):
        ImageServer(model, port=int(made.url.rpartition(":")[2]))
    with pytest.raises(SourceError, match="takes one size only"):
        ImageServer(tiny_source(resizable=False), canvas=8)
