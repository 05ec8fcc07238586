"""The page of an experiment: question, verdicts, charts, tables, caveats. Knows plain data only."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from reprogram.report import page
from reprogram.report.figures import SERIES, Figure, brief, dash, log_ticks, short

_SHARE = {"tickformat": ".0%", "hoverformat": ".1%"}


class Point(NamedTuple):
    """A mark in a chart."""

    x: float
    y: float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is on an axis: a share is shown in per cent, a logarithmic one leaves out what is not above 0."""

    title: str
    log: bool = False
    share: bool = False

    def layout(self, values: Sequence[float], most: int) -> dict[str, Any]:
        """As plotly wants it, for these values and with so many ticks at most, where it is logarithmic."""
        made: dict[str, Any] = {"title": {"text": self.title, "font": {"size": 12}, "standoff": 8}, "automargin": True,
                                "fixedrange": True, "zeroline": False, "gridcolor": "--line"}  # fmt: skip
        made |= {"type": "log", "exponentformat": "power", **log_ticks(values, most)} if self.log else {}
        return made | (_SHARE if self.share else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart with a name for the page, a text for those who cannot see it, and a caption."""

    name: str
    label: str
    caption: str
    figure: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table; numbers come as text already."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything that is shown, in this order."""

    title: str
    about: str
    question: str
    verdicts: Sequence[tuple[str, str]]
    charts: Sequence[Chart]
    sheets: Sequence[Sheet]
    caveats: Sequence[str]
    command: str
    written: str
    summary: tuple[str, str, str] = ("Does it hold here?", "Verdict", "On what")  # over the verdicts


def marks(groups: Mapping[str, Sequence[Point]], x: Axis, y: Axis, *, joined: bool = False) -> Figure:
    """A mark a point, a colour a group; `joined` draws a line through each group in the order given."""
    traces: list[dict[str, Any]] = []
    all_x: list[float] = []
    all_y: list[float] = []
    for i, (name, points) in enumerate(groups.items()):
        shown = [p for p in points if not (x.log and p.x <= 0) and not (y.log and p.y <= 0)]
        colour = SERIES[i % len(SERIES)]
        all_x += [p.x for p in shown]
        all_y += [p.y for p in shown]
        traces.append({
            "type": "scatter", "mode": "lines+markers" if joined else "markers", "name": short(brief(name), 32),
            "x": [p.x for p in shown], "y": [p.y for p in shown], "text": [short(p.name, 60) for p in shown],
            "marker": {"color": colour, "size": 8},
            "line": {"color": colour, "width": 2, "dash": dash(i)},
            "hovertemplate": "%{text}<br>%{x} · %{y}<extra></extra>",
        })  # fmt: skip
    layout = {
        "height": 320 + 22 * ((len(groups) + 1) // 2),
        "margin": {"l": 10, "r": 12, "t": 12, "b": 44},
        "xaxis": x.layout(all_x, 4),
        "yaxis": y.layout(all_y, 8),
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        "showlegend": len(groups) > 1,
    }
    return {"data": traces, "layout": layout}


def write_experiment(path: str | os.PathLike[str], shown: Page) -> Path:
    """Write the page of an experiment as one HTML file that loads nothing.

    Raises:
        MissingExtraError: plotly or jinja2 is not installed.
        ConfigError: the file cannot be written.
    """
    figures = {chart.name: chart.figure for chart in shown.charts}
    return page.write(path, "experiment.html.j2", {"title": shown.title, "page": shown}, figures)
