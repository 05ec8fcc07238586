"""Names, strokes and ticks that the charts share."""

from itertools import pairwise

import pytest

from reprogram.report.experiment import Axis, Point, marks
from reprogram.report.figures import SERIES, brief, dash, log_ticks
from reprogram.report.ranking import Point as Source
from reprogram.report.ranking import scatter


def test_every_series_looks_different():
    looks = [(SERIES[i % len(SERIES)], dash(i)) for i in range(36)]
    assert len(set(looks)) == 36


@pytest.mark.parametrize(("values", "most"), [([1e-9, 1e6], 4), ([1e-3, 1.0], 8), ([2.0, 90.0], 4)])
def test_wide_axes_have_whole_decades_and_not_too_many(values, most):
    step = log_ticks(values, most)["dtick"]
    assert step == int(step) >= 1
    assert max(values) / min(values) <= 10 ** (step * most)


@pytest.mark.parametrize("values", [[0.02, 0.04], [3.0], [1.2e-7, 1.3e-7], [9.0, 11.0], []])
def test_narrow_axes_have_plain_numbers_around_the_values(values):
    ticks = log_ticks(values, 4)
    low, high = min(values, default=1.0), max(values, default=1.0)
    assert len(ticks["tickvals"]) >= 2
    assert ticks["tickvals"][0] <= low
    assert ticks["tickvals"][-1] >= high
    assert [float(text) for text in ticks["ticktext"]] == pytest.approx(ticks["tickvals"])
    assert all(a < b for a, b in pairwise(ticks["tickvals"]))


def test_names_of_files_can_be_told_apart():
    refs = [f"cifar-resnet/../shared/data/resnet_cifar10/resnet{n}.safetensors" for n in (20, 32)]
    points = [Point(1.0, 2.0, "a")]
    drawn = marks(dict.fromkeys(refs, points), Axis(title="x"), Axis(title="y"))
    assert [t["name"] for t in drawn["data"]] == ["cifar-resnet/…/resnet20", "cifar-resnet/…/resnet32"]
    assert brief("vp, mlp") == "vp, mlp"


def test_what_is_not_above_zero_is_left_out_of_a_logarithmic_axis():
    points = [Point(1.0, 0.0, "zero"), Point(2.0, 1e-3, "small"), Point(3.0, 1e3, "large")]
    drawn = marks({"a": points}, Axis(title="x"), Axis(title="y", log=True))
    assert drawn["data"][0]["y"] == [1e-3, 1e3]
    assert drawn["layout"]["yaxis"]["dtick"] == 1
    empty = marks({"a": points[:1]}, Axis(title="x"), Axis(title="y", log=True))
    assert empty["data"][0]["y"] == []


def test_a_scatter_is_logarithmic_where_values_are_far_apart():
    wide = scatter([Source("a", 1e-6, 0.5, False), Source("b", 1.0, 0.6, False)], "t")
    assert wide["layout"]["xaxis"]["type"] == "log"
    assert wide["layout"]["xaxis"]["dtick"] == 2
    for values in ((0.5, 1.0), (0.0, 1.0), (-1.0, 100.0)):
        near = scatter([Source("a", v, 0.5, False) for v in values], "t")
        assert "type" not in near["layout"]["xaxis"]
