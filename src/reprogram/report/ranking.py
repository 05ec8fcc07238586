"""The page of a ranking: every score of every source, and what they were worth where the outcome is known.

Knows only plain data, the card of a ranking, so that a page can be made of a file as well.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from reprogram.report import page
from reprogram.report.figures import Figure, _axis, brief, log_ticks, short
from reprogram.report.words import percent

PANELS = (
    "probe_accuracy", "source_lambda_min", "program_lambda_min", "gf_loss", "loo_accuracy", "leep", "logme", "knn",
    "source_accuracy",
)  # fmt: skip
"""Scores that are drawn against the outcome, where sources have them."""

_SHARES = {"probe_accuracy", "loo_accuracy", "knn", "source_accuracy", "reachable"}


class Point(NamedTuple):
    """A source in a scatter plot; `control` is drawn in grey."""

    name: str
    x: float
    y: float
    control: bool


def scatter(points: Sequence[Point], title: str) -> Figure:
    """Outcome against a score. The score's axis is logarithmic where its values span more than a factor of 30."""
    values = [p.x for p in points]
    wide = min(values) > 0 and max(values) > 30 * min(values)
    log = {"type": "log", "exponentformat": "power", **log_ticks(values, 4)} if wide else {}
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": [p.y for p in points],
        "marker": {"size": 10, "color": ["--quiet" if p.control else "--accent" for p in points]},
        "customdata": [short(p.name, 60) for p in points],
        "hovertemplate": "%{customdata}<br>%{x:.4g}: %{y:.1%}<extra></extra>",
    }
    layout = {
        "height": 300,
        "margin": {"l": 10, "r": 12, "t": 10, "b": 44},
        "xaxis": _axis(title, **log),
        "yaxis": _axis("accuracy", tickformat=".0%"),
        "showlegend": False,
    }
    return {"data": [trace], "layout": layout}


def write_ranking(card: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the page of a ranking.

    Args:
        card: `Ranking.card()`, or the same read from `ranking.json`.
        path: the file; its folder is made if need be.

    Raises:
        MissingExtraError: plotly or jinja2 is not installed.
        ConfigError: the file cannot be written.
    """
    known = card["scores"]
    names = [n for n in known if any(row["scores"].get(n) is not None for row in card["rows"])]
    validated = any(row["actual"] is not None for row in card["rows"])
    called = _called(card)
    context = {
        "title": f"{card['task']}: {len(card['rows'])} sources ranked",
        "card": card,
        "sentence": _named(_sentence(card), called),
        "reason": _named(card["reason"], called),
        "labels": [known[n]["label"] for n in names],
        "rows": [
            _row(row, names, card) | {"called": called[row["source"]].removesuffix(" (random)")} for row in card["rows"]
        ],
        "costs": [_seconds(card["costs"].get(n)) for n in names],
        "validated": validated,
        "agreement": {pool: [_agreed(a, known) for a in found if a["sources"]] for pool, found in _pools(card)},
        "notes": [(called[row["source"]], row["notes"]) for row in card["rows"] if row["notes"]],
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return page.write(path, "ranking.html.j2", context, _charts(card, names) if validated else {})


def _called(card: Mapping[str, Any]) -> dict[str, str]:
    """What to call each source: its reference in brief, where that says which one is meant."""
    names = [row["source"] for row in card["rows"]]
    short_names = [brief(name) for name in names]
    return {name: one if short_names.count(one) == 1 else name for name, one in zip(names, short_names, strict=True)}


def _named(text: str, called: Mapping[str, str]) -> str:
    for name in sorted(called, key=len, reverse=True):
        text = text.replace(name, called[name])
    return text


def _sentence(card: Mapping[str, Any]) -> str:
    first = card["rows"][0]
    said = f"Try {first['source']} first."
    if first["actual"] is None or card["regret"] is None:
        return said
    loss = "which is the best of them" if card["regret"] <= 0 else f"{100 * card['regret']:.1f} points below the best"
    return f"{said} Reprogrammed in full it reaches {percent(first['actual'])}, {loss}."


def _row(row: Mapping[str, Any], names: Sequence[str], card: Mapping[str, Any]) -> dict[str, Any]:
    best = {name: _best(name, card) for name in names}
    cells = [{"text": number(name, row["scores"].get(name)), "why": row["missing"].get(name, ""),
              "best": row["scores"].get(name) is not None and row["scores"][name] == best[name]}
             for name in names]  # fmt: skip
    return {
        "place": row["position"] or "–",
        "name": row["source"],
        "control": row["twin_of"] is not None,
        "error": row["error"],
        "actual": "–" if row["actual"] is None else percent(row["actual"]),
        "cells": cells,
    }


def _best(name: str, card: Mapping[str, Any]) -> float | None:
    values = [row["scores"][name] for row in card["rows"] if row["scores"].get(name) is not None]
    if len(set(values)) < 2:
        return None
    return max(values) if card["scores"][name]["higher"] else min(values)


def number(name: str, value: float | None) -> str:
    """A score for people.

    >>> number("knn", 0.5), number("depth", 18), number("leep", -1.23456), number("leep", None)
    ('50.0 %', '18', '-1.23', '–')
    >>> number("parameters", 11_200_000)
    '11,200,000'
    """
    if value is None:
        return "–"
    if name in _SHARES:
        return percent(value)
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else "0" if value == 0 else f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def _pools(card: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(pool, list(found)) for pool, found in card["agreement"].items()]


def _agreed(one: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    def cell(measure: str) -> str:
        if one[measure] is None:
            return "–"
        ends = one["intervals"].get(measure)
        return f"{one[measure]:+.2f}" + (f" ({ends[0]:+.2f} to {ends[1]:+.2f})" if ends else "")

    return {
        "label": known[one["score"]]["label"],
        "sources": one["sources"],
        "cells": [cell(measure) for measure in ("kendall", "weighted", "spearman")],
        "regret": "–" if one["regret"] is None else f"{100 * one['regret']:.1f}",
        "reason": one["reason"],
        "mine": one["score"] == "recommended",
    }


def _charts(card: Mapping[str, Any], names: Sequence[str]) -> dict[str, Figure]:
    """A scatter for each of the main scores that at least three sources have."""
    made: dict[str, Figure] = {}
    for name in (n for n in PANELS if n in names):
        rows = [row for row in card["rows"] if row["scores"].get(name) is not None and row["actual"] is not None]
        points = [Point(row["source"], row["scores"][name], row["actual"], row["twin_of"] is not None) for row in rows]
        if len(points) > 2:
            made[name] = scatter(points, card["scores"][name]["label"])
    return made
