"""Requests and replies of image classifiers: exact out, distrusted in."""

import base64
import io
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reprogram.sources import EndpointError
from reprogram.sources.endpoint_images_options import ImageFacts
from reprogram.sources.endpoint_images_wire import as_sent, keys, packed, request, scores, unpacked
from reprogram.testing.image_server import form_files

FLOOR = 1e-8


def facts(**changes):
    known = {
        "outputs": 4, "labels": ("cat", "dog", "crane", "crane"), "shape": (3, 2, 2), "resizable": False,
        "gives": "probabilities", "format": "json", "pixels": "float32", "field": "image", "listed": False,
        "answer": None, "batch": 8, "model": "m",
    }  # fmt: skip
    return ImageFacts(**known | changes)


def log(*values):
    return torch.tensor([values]).clamp_min(FLOOR).log()


# -- requests ----------------------------------------------------------------------------------------------------------


def test_floats_are_sent_as_they_are():
    x = torch.tensor([[[[0.1, 1.5], [-0.25, 1 / 3]]] * 3])
    sent = as_sent(x.squeeze(2), "float32")
    body, files = request(sent, facts(listed=True, field="pictures"))
    assert files is None
    [one] = json.loads(json.dumps(body))["pictures"]
    back = torch.frombuffer(bytearray(base64.b64decode(one["float32"])), dtype=torch.float32).reshape(one["shape"])
    assert torch.equal(back, sent[0])


def test_png_files_hold_the_rounded_pixels_in_json_and_in_a_form():
    x = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    sent = as_sent(x, "png")
    assert torch.equal(sent, (x.clamp(0, 1) * 255).round().byte())
    body, _ = request(sent, facts(pixels="png", listed=True))
    datas = [base64.b64decode(text) for text in body["image"]]
    _, files = request(sent, facts(pixels="png", format="multipart", field="f"))
    assert [name for name, _ in files] == ["f", "f"] and datas == [data for _, (_, data, _) in files]
    for data, picture in zip(datas, sent, strict=True):
        pixels = torch.tensor(list(Image.open(io.BytesIO(data)).tobytes())).reshape(5, 4, 3).permute(2, 0, 1)
        assert torch.equal(pixels.byte(), picture)
    assert isinstance(request(sent[:1], facts(pixels="png"))[0]["image"], str)


def test_keys_are_the_pictures_and_how_they_are_sent():
    x = torch.rand(3, 3, 4, 4)
    x[2] = x[0]
    found = keys(as_sent(x, "float32"), "a")
    assert found[0] == found[2] != found[1]
    assert not set(found) & set(keys(as_sent(x, "float32"), "b"))
    assert not set(found) & set(keys(as_sent(x, "png"), "a"))
    assert keys(torch.zeros(1, 3, 2, 8), "a") != keys(torch.zeros(1, 3, 8, 2), "a")
    x[1, 0, 0, 0] = torch.nextafter(x[1, 0, 0, 0], torch.tensor(2.0))
    assert keys(as_sent(x, "float32"), "a")[1] != found[1]


def test_a_form_is_read_as_it_was_written():
    data = bytes(range(256)) + b"\r\n--x-\r\n"
    body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nno file\r\n'
    body += b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n' + data.replace(b"--x", b"--y")
    assert form_files(body + b"\r\n--x--\r\n", 'multipart/form-data; boundary="x"') == [data.replace(b"--x", b"--y")]
    for wrong in (body, b"", b"--x\r\nnothing"):
        with pytest.raises(ValueError, match="boundary"):
            form_files(wrong, "multipart/form-data; boundary=x")
    with pytest.raises(ValueError, match="name its boundary"):
        form_files(body, "multipart/form-data")


# -- replies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        {"answers": [[0.5, 0.25, 0.25, 0.0]]},
        {"probabilities": [0.5, 0.25, 0.25, 0.0]},
        {"predictions": [[0.5, 0.25, 0.25, 0]], "model": "m", "took": 3},
    ],
)
def test_probabilities_become_logarithms_with_a_floor(reply):
    torch.testing.assert_close(scores(reply, 1, facts(), FLOOR), log(0.5, 0.25, 0.25, 0.0))


def test_logits_stay_as_they_are():
    got = scores({"logits": [[1.5, -2, 0, 1e-3], [0, 0, 0, 9]]}, 2, facts(gives="logits"), FLOOR)
    assert torch.equal(got, torch.tensor([[1.5, -2, 0, 1e-3], [0, 0, 0, 9.0]]))


@pytest.mark.parametrize(
    "answer, wanted",
    [
        ([{"label": "dog", "score": 0.6}, {"label": "cat", "score": 0.3}], (0.3, 0.6, 0.05, 0.05)),
        ([{"index": 3, "label": "crane", "score": 0.9}], (1 / 30, 1 / 30, 1 / 30, 0.9)),
        ([{"label": 2, "score": 1.0}], (0, 0, 1, 0)),
        ([{"index": 0, "score": 0.1}], (0.1, 0.1, 0.1, 0.1)),  # no more for the others than for the best
        ([{"index": i, "score": s} for i, s in enumerate((0.1, 0.2, 0.3, 0.4))], (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_the_rest_gets_what_is_left_of_some_classes(answer, wanted):
    for reply in ({"answers": [answer]}, {"answers": answer}):
        torch.testing.assert_close(scores(reply, 1, facts(gives="top"), FLOOR), log(*wanted))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.data())
@settings(max_examples=40, deadline=None)
def test_top_classes_keep_their_order_and_add_up_to_one(weights, data):
    chances = [w + 1e-3 for w in weights]
    chances = [c / sum(chances) for c in chances]
    told = data.draw(st.integers(1, len(chances)))
    best = sorted(range(len(chances)), key=lambda i: -chances[i])[:told]
    known = facts(gives="top", outputs=len(chances), labels=None)
    reply = {"answers": [[{"index": i, "score": chances[i]} for i in best]]}
    got = scores(reply, 1, known, FLOOR)[0].exp()
    assert abs(float(got.sum()) - 1) < 1e-4
    least = min(chances[i] for i in best)
    for i, chance in enumerate(chances):
        if i in best:
            assert abs(float(got[i]) - chance) < 1e-5
        else:
            assert float(got[i]) <= least + 1e-5


@pytest.mark.parametrize("answer", ["dog", {"label": "dog", "score": 0.4}, 1, {"index": 1}])
def test_one_class_is_certain(answer):
    for reply in ({"label": answer}, {"answers": [answer]}):
        torch.testing.assert_close(scores(reply, 1, facts(gives="label"), FLOOR), log(0.0, 1.0, 0.0, 0.0))


def test_answers_may_be_deep_inside():
    reply = {"outputs": [{"scores": [1, 2, 3, 4]}]}
    got = scores(reply, 1, facts(gives="logits", answer="outputs.0.scores"), FLOOR)
    assert got.tolist() == [[1, 2, 3, 4]]
    for path in ("outputs.1.scores", "outputs.x", "nothing", "outputs.0.scores.0.deeper"):
        with pytest.raises(EndpointError, match="must have"):
            scores(reply, 1, facts(gives="logits", answer=path), FLOOR)


@pytest.mark.parametrize(
    "reply, changes, message",
    [
        ({"weather": 1}, {}, "must have one of answers"),
        ({"answers": [[0.25] * 5]}, {}, "each of 4 classes, got '5 scores'"),
        ({"answers": [[0.25] * 3]}, {}, "each of 4 classes, got '3 scores'"),
        ({"answers": [[0.25] * 4] * 2}, {}, "each of 1 pictures, got '2 answers'"),
        ({"answers": []}, {}, "each of 1 pictures, got '0 answers'"),
        ({"answers": None}, {}, "each of 1 pictures"),
        ({"answers": [[0.25, 0.25, 0.25, math.nan]]}, {}, "finite"),
        ({"answers": [[0.25, 0.25, 0.25, math.inf]]}, {"gives": "logits"}, "finite"),
        ({"answers": [[1e300, 0.0, 0.0, 0.0]]}, {"gives": "logits"}, "finite"),
        ({"answers": [[10**400, 0, 0, 0]]}, {"gives": "logits"}, "finite"),
        ({"answers": [["0.25"] * 4]}, {}, "list of numbers"),
        ({"answers": [[True] * 4]}, {}, "list of numbers"),
        ({"answers": [[3.0, 1.0, -2.0, 0.0]]}, {}, "gives=logits"),
        ({"answers": [[1.5, -0.5, 0.0, 0.0]]}, {}, "gives=logits"),
        ({"answers": [[]]}, {"gives": "top"}, '"score"'),
        ({"answers": [[{"label": "cat"}]]}, {"gives": "top"}, "must be a probability"),
        ({"answers": [[{"label": "cat", "score": 3.5}]]}, {"gives": "top"}, "must be a probability"),
        ({"answers": [[{"index": 0, "score": 0.7}, {"index": 1, "score": 0.7}]]}, {"gives": "top"}, "add up to 1"),
        ({"answers": [[{"index": 0, "score": 0.2}, {"label": "cat", "score": 0.2}]]}, {"gives": "top"}, "once"),
        ({"answers": [[{"label": "crane", "score": 0.2}]]}, {"gives": "top"}, "Several classes have this name"),
        ({"answers": [[{"index": 4, "score": 0.2}]]}, {"gives": "top"}, "from 0 to 3"),
        ({"answers": [[{"index": -1, "score": 0.2}]]}, {"gives": "top"}, "from 0 to 3"),
        ({"label": "horse"}, {"gives": "label"}, "must be one of the 4 classes, got 'horse'"),
        ({"label": "cat"}, {"gives": "label", "labels": None}, "Set labels="),
        ({"label": None}, {"gives": "label"}, "must be one of the 4 classes"),
        ({"answers": [[0.25] * 4], "model": "n"}, {}, "It was replaced"),
    ],
)
def test_what_makes_no_sense_is_refused(reply, changes, message):
    with pytest.raises(EndpointError, match=message):
        scores(reply, 1, facts(**changes), FLOOR)


def test_rounded_probabilities_pass():
    got = scores({"answers": [[0.33, 0.33, 0.33, 0.0]]}, 1, facts(), FLOOR)
    torch.testing.assert_close(got, log(0.33, 0.33, 0.33, 0.0))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_what_is_kept_comes_back_exactly(values):
    row = torch.tensor(values)
    assert torch.equal(unpacked(packed(row), len(values)), row)
    assert unpacked(packed(row), len(values) + 1) is None


@pytest.mark.parametrize("text", ["", "ab", "!!!!", 3, None, ["a"], packed(torch.tensor([math.nan, 1.0]))])
def test_damaged_answers_are_none(text):
    assert unpacked(text, 2) is None
