"""Charts as plain data for plotly.js: what is drawn is decided here, colours are names that the page resolves.

A colour is written as the name of a style variable, such as "--accent"; the page puts in the value of the light or the
dark theme. Names from the task are escaped, because plotly reads some HTML in texts. Axes of classes are numeric with
names as tick labels, so that two classes whose shortened names are equal stay two.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

Figure = dict[str, Any]

SERIES = ("--accent", "--second", "--third", "--fourth", "--fifth", "--sixth")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SHARE = {"tickformat": ".0%", "hoverformat": ".1%"}


class Bar(NamedTuple):
    """An accuracy with its interval; `mine` is drawn in the accent colour."""

    name: str
    value: float
    low: float
    high: float
    mine: bool


class Line(NamedTuple):
    """A curve over epochs."""

    name: str
    epochs: list[int]
    values: list[float]


def short(text: str, limit: int = 26) -> str:
    """A name cut to length and escaped for plotly.

    >>> short("<b>bold", 4)
    '&lt;b&gt;…'
    """
    flat = " ".join(text.split())
    return html.escape(flat if len(flat) <= limit else flat[: limit - 1] + "…", quote=False)


def brief(ref: str) -> str:
    """A source's reference without the folders in its middle and the ending of its file.

    >>> brief("cifar-resnet/../data/resnet20.safetensors (random)"), brief("bundled/efficientnet-lite0")
    ('cifar-resnet/…/resnet20 (random)', 'bundled/efficientnet-lite0')
    """
    parts = ref.replace(".safetensors", "").split("/")
    return f"{parts[0]}/…/{parts[-1]}" if len(parts) > 2 else "/".join(parts)


def dash(i: int) -> str:
    """The stroke of the i-th series: colours come again after six, and then with another stroke."""
    return DASHES[(i + i // len(SERIES)) % len(DASHES)]


def log_ticks(values: Sequence[float], most: int) -> dict[str, Any]:
    """Ticks of a logarithmic axis: whole decades, at most so many, or numbers such as 0.02 where decades are too few.

    >>> log_ticks([1e-6, 1.0], 3), log_ticks([0.02, 0.04], 3)["ticktext"]
    ({'dtick': 2}, ['0.01', '0.02', '0.05'])
    """
    low, high = (math.log10(v) for v in (min(values, default=1.0), max(values, default=1.0)))
    if high - low >= 1.5:
        return {"dtick": math.ceil((high - low) / most)}
    ends = 10 ** (low - 0.35), 10 ** (high + 0.35)
    decades = range(math.floor(low) - 1, math.ceil(high) + 1)
    ticks = [v for v in (float(f"{m}e{e}") for e in decades for m in (1, 2, 5)) if ends[0] <= v <= ends[1]]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{v:g}" for v in ticks]}


def bars(rows: Sequence[Bar]) -> Figure:
    """Horizontal bars with intervals, the first row on top."""
    places = list(range(len(rows)))
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [row.value for row in rows],
        "y": places,
        "width": 0.58,
        "marker": {"color": ["--accent" if row.mine else "--quiet" for row in rows]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [row.high - row.value for row in rows],
            "arrayminus": [row.value - row.low for row in rows],
            "color": "--ink",
            "thickness": 1.4,
            "width": 5,
        },
        "customdata": [[short(row.name, 60), row.low, row.high] for row in rows],
        "hovertemplate": "%{customdata[0]}<br>%{x:.1%} (%{customdata[1]:.1%} to %{customdata[2]:.1%})<extra></extra>",
    }
    top = min(1.02, 1.08 * max([row.high for row in rows], default=1.0))
    layout = {
        "height": 44 * len(rows) + 60,
        "margin": {"l": 10, "r": 16, "t": 6, "b": 40},
        "xaxis": _axis("accuracy", range=[0, top], **_SHARE),
        "yaxis": _names([row.name for row in rows], autorange="reversed", showgrid=False),
    }
    return {"data": [trace], "layout": layout}


def lines(curves: Sequence[Line], title: str, *, share: bool, selected: int | None = None) -> Figure:
    """Curves over epochs, with the selected epoch (from 1) marked."""
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(curve.epochs) <= 30 else "lines",
            "name": short(curve.name, 32),
            "x": curve.epochs,
            "y": curve.values,
            "line": {"color": SERIES[i % len(SERIES)], "width": 2, "dash": dash(i)},
            "marker": {"color": SERIES[i % len(SERIES)], "size": 6},
            "hovertemplate": "epoch %{x}: %{y" + (":.1%" if share else ":.4f") + "}",
        }
        for i, curve in enumerate(curves)
    ]
    epochs = [epoch for curve in curves for epoch in curve.epochs] or [1]
    layout = {
        "height": 280 + 22 * max(0, (len(curves) - 3 + 1) // 2),
        "margin": {"l": 10, "r": 12, "t": 26, "b": 44},
        "xaxis": _axis("epoch", range=[min(epochs) - 0.3, max(epochs) + 0.3], **_whole(max(epochs))),
        "yaxis": _axis("", **(_SHARE if share else {}), rangemode="tozero" if not share else "normal"),
        "title": {"text": title, "font": {"size": 13}, "x": 0, "xref": "paper", "yref": "container", "y": 0.97},
        "legend": {"orientation": "h", "x": 0, "y": -0.24, "yanchor": "top"},
        "hovermode": "x unified",
    }
    if selected is not None:
        layout |= _mark(selected)
    return {"data": traces, "layout": layout}


def confusion(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Counts [T, T], rows the truth; coloured by the share of the row, which is what a class is taken for."""
    share = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    places = list(range(len(classes)))
    numbers = len(classes) <= 20
    angle = 0 if numbers and max(map(len, classes)) <= 3 else -45
    trace = {
        "type": "heatmap",
        "z": [[round(v, 4) for v in row] for row in share.tolist()],
        "x": places,
        "y": places,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "--cell"], [1, "--accent"]],
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "customdata": [
            [[short(classes[t], 60), short(classes[p], 60), n] for p, n in enumerate(row)]
            for t, row in enumerate(counts.tolist())
        ],
        "hovertemplate": "is %{customdata[0]}<br>taken for %{customdata[1]}<br>"
        "%{customdata[2]} examples, %{z:.1%} of the class<extra></extra>",
    }
    if numbers:
        trace |= {"text": [[n or "" for n in row] for row in counts.tolist()], "texttemplate": "%{text}"}
    side = max(26, min(42, 520 // len(classes))) if numbers else 15
    layout = {
        "height": side * len(classes) + 130,
        "margin": {"l": 10, "r": 12, "t": 8, "b": 30},
        "xaxis": _names(classes, 14, title="prediction", tickangle=angle, showgrid=False, small=not numbers),
        "yaxis": _names(classes, 18, title="truth", autorange="reversed", showgrid=False, small=not numbers),
    }
    return {"data": [trace], "layout": layout, "width": max(340, side * len(classes) + 160)}


def classes_right(names: Sequence[str], shares: Sequence[float], counts: Sequence[int]) -> Figure:
    """A bar a class, best first; `shares` are already in that order."""
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": list(shares),
        "y": list(range(len(names))),
        "marker": {"color": "--accent"},
        "customdata": [[short(name, 60), n] for name, n in zip(names, counts, strict=True)],
        "hovertemplate": "%{customdata[0]}: %{x:.1%} of %{customdata[1]} examples<extra></extra>",
    }
    layout = {
        "height": 19 * len(names) + 60,
        "margin": {"l": 10, "r": 16, "t": 6, "b": 40},
        "bargap": 0.35,
        "xaxis": _axis("classified right", range=[0, 1.02], dtick=0.2, **_SHARE),
        "yaxis": _names(names, 22, autorange="reversed", showgrid=False),
    }
    return {"data": [trace], "layout": layout}


def _axis(title: str, **more: Any) -> dict[str, Any]:
    shown = {"title": {"text": title, "font": {"size": 12}, "standoff": 8}} if title else {}
    return {"fixedrange": True, "automargin": True, "zeroline": False, "gridcolor": "--line", **shown, **more}


def _names(names: Sequence[str], limit: int = 26, *, title: str = "", small: bool = False, **more: Any) -> Figure:
    size: Mapping[str, Any] = {"tickfont": {"size": 9}} if small else {}
    labels = [short(name, limit) for name in names]
    places = list(range(len(names)))
    return _axis(
        title, tickmode="array", tickvals=places, ticktext=labels, ticks="", ticklabelstandoff=6, **size, **more
    )


def _whole(last: int) -> dict[str, Any]:
    """Ticks at whole epochs only."""
    return {"dtick": 1} if last <= 12 else {"nticks": 10}


def _mark(epoch: int) -> dict[str, Any]:
    line = {"type": "line", "x0": epoch, "x1": epoch, "xref": "x", "y0": 0, "y1": 1, "yref": "paper"}
    return {
        "shapes": [{**line, "line": {"color": "--quiet", "width": 1.5, "dash": "dot"}}],
        "annotations": [{"x": epoch, "y": 1, "xref": "x", "yref": "paper", "yanchor": "bottom", "showarrow": False,
                         "text": "selected", "font": {"size": 11, "color": "--soft"}}],
    }  # fmt: skip
