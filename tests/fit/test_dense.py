"""The engine and the metrics on label maps: pixels that count, against a plain count."""

import pytest
import torch

import reprogram as rp
from reprogram.core.errors import ConfigError, DataError
from reprogram.core.result import Predictions
from reprogram.core.task import IGNORED
from reprogram.fit import FitOptions, evaluate, fit
from reprogram.fit.metrics import by_pixel, of_pixels
from reprogram.report import controls
from reprogram.testing import tiny_source
from tests.methods.test_evp_explicit import squares


def dense_program(task, **settings):
    return rp.build("evp_explicit", tiny_source(), task, decoder=8, seed=0, epochs=2, batch_size=6, **settings)


def plain_numbers(predicted, truth, classes):
    """Accuracy and mean IoU, pixel by pixel."""
    pairs = [(int(p), int(t)) for p, t in zip(predicted.flatten(), truth.flatten(), strict=True) if int(t) != IGNORED]
    ious = []
    for c in range(classes):
        union = sum(c in (p, t) for p, t in pairs)
        if union:
            ious.append(sum(p == c and t == c for p, t in pairs) / union)
    return sum(p == t for p, t in pairs) / len(pairs), sum(ious) / len(ious)


def test_metrics_are_those_of_the_pixels_that_count():
    task = squares()
    program = dense_program(task)
    found = evaluate(program, task.test, batch_size=2)
    scores = program.predict(task.test.fetch(torch.arange(len(task.test)))).scores
    accuracy, iou = plain_numbers(scores.argmax(1), task.test.labels, 2)
    assert found.accuracy == pytest.approx(accuracy, abs=1e-12)
    assert found.mean_iou == pytest.approx(iou, abs=1e-12)
    loss = torch.nn.functional.cross_entropy(scores.double(), task.test.labels)  # -100 is torch's own, too
    assert found.loss == pytest.approx(float(loss), rel=1e-6)
    assert int(found.confusion.sum()) == int((task.test.labels != IGNORED).sum())
    assert torch.allclose(found.scores, scores.mean((2, 3)), atol=1e-6)
    assert found.brief()["mean_iou"] == found.mean_iou
    low, high = found.interval()
    assert low < found.accuracy < high


def test_a_fit_counts_pixels():
    task = squares()
    program = dense_program(task, dropout=0.0, lr=1e-9)
    result = fit(program, task, options=FitOptions(progress=False))
    kept = int((task.train.labels != IGNORED).sum())
    for row in result.history:
        assert 0 < row["accuracy"] <= 1  # right pixels by pictures would be above 1
        assert round(row["accuracy"] * kept, 6) == pytest.approx(round(row["accuracy"] * kept))


def test_flattening():
    scores, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    target[0, 1, 2] = IGNORED
    flat, classes = by_pixel(scores, target)
    assert flat.shape == (39, 3)
    assert torch.equal(flat[0], scores[0, :, 0, 0])
    whole = torch.nn.functional.cross_entropy(scores, target)
    assert torch.allclose(torch.nn.functional.cross_entropy(flat, classes), whole)
    same = by_pixel(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    assert same[0].shape == (2, 3)
    with pytest.raises(DataError, match="evp_explicit"):
        by_pixel(torch.zeros(2, 3), target)
    with pytest.raises(DataError, match="every pixel"):
        by_pixel(torch.zeros(2, 3, 8, 8), target)


def test_a_class_that_neither_occurs_nor_is_predicted_is_left_out():
    found = of_pixels(torch.tensor([[2, 0, 0], [1, 1, 0], [0, 0, 0]]), 0.0, torch.zeros(1, 3))
    assert found.mean_iou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found.balanced_accuracy == pytest.approx(0.75)


@pytest.mark.parametrize("name", ["vp", "linear_probe", "no_edit"])
def test_methods_with_one_answer_a_picture_are_refused(name):
    with pytest.raises(ConfigError, match="score for each pixel"):
        rp.build(name, tiny_source(), squares(), **({"width": 3} if name == "vp" else {}))


def test_resuming_gives_the_same_bits(tmp_path):
    task = squares()
    whole = fit(dense_program(task), task, options=FitOptions(progress=False), seed=3)
    again = fit(dense_program(task), task, options=FitOptions(progress=False), seed=3, out=tmp_path / "p.safetensors")
    assert all(torch.equal(v, again.program.state_dict()[k]) for k, v in whole.program.state_dict().items())
    assert again.out.exists()


def test_predictions_of_maps_name_what_occurs():
    scores = torch.zeros(1, 3, 2, 2)
    scores[0, 2], scores[0, 1, 0, 0] = 1.0, 5.0
    said = Predictions(scores, ("sky", "sea", "sand"))
    assert said.indices.tolist() == [[[1, 2], [2, 2]]]
    assert said.labels == ["sand, sea"]
    assert said.confidence.shape == (1,)
    assert said.probabilities.sum(1).allclose(torch.ones(1, 2, 2))


def test_controls_are_the_decoder_alone_and_the_majority():
    task = squares()
    result = fit(dense_program(task), task, options=FitOptions(progress=False))
    found = controls(result, task, options=FitOptions(progress=False))
    assert [c.name for c in found] == ["no edit, same output", "majority class"]
    assert all(c.test.mean_iou is not None for c in found)
    truth = task.test.labels[task.test.labels != IGNORED]
    assert found[1].test.accuracy == pytest.approx(float((truth == 0).float().mean()))
