"""One HTML file that needs nothing else: style, charts and plotly.js go inside, and it may load nothing from anywhere.

Names of classes and files are untrusted text. Templates escape everything that is not marked, charts get their data as
JSON without a "<", and the page's own content policy forbids whatever might still come through to reach a network.
"""

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from reprogram.core.errors import ConfigError, missing_extra, say
from reprogram.report.figures import Figure
from reprogram.store import write_atomic

THEMES = {
    "light": {
        "--paper": "#ffffff",
        "--raised": "#f6f7f9",
        "--ink": "#1b2027",
        "--soft": "#5b6572",
        "--line": "#e2e6eb",
        "--quiet": "#a9b3bf",
        "--cell": "#f1f4f8",
        "--accent": "#2f6fde",
        "--second": "#c2570c",
        "--third": "#0f8a6a",
        "--fourth": "#8b46c9",
        "--fifth": "#b3346c",
        "--sixth": "#6b7280",
        "--good": "#0b7a55",
        "--bad": "#b8420a",
    },
    "dark": {
        "--paper": "#14171c",
        "--raised": "#1d2128",
        "--ink": "#e7eaee",
        "--soft": "#a0a9b5",
        "--line": "#303640",
        "--quiet": "#5f6977",
        "--cell": "#1f242c",
        "--accent": "#6ea3ff",
        "--second": "#f59e5b",
        "--third": "#48c9a1",
        "--fourth": "#c095f2",
        "--fifth": "#f088b4",
        "--sixth": "#9aa3af",
        "--good": "#4fd0a5",
        "--bad": "#ff9a62",
    },
}


def write(
    path: str | os.PathLike[str], template: str, context: Mapping[str, Any], figures: Mapping[str, Figure]
) -> Path:
    """Render a page and put it in place in one step.

    Args:
        path: the file; its folder is made if need be.
        template: a file of this folder.
        context: what the template shows.
        figures: charts by the name that the template gives their place.

    Raises:
        MissingExtraError: plotly or jinja2 is not installed.
        ConfigError: the file cannot be written.
    """
    jinja2, plotly = _extra("jinja2"), _extra("plotly.offline")
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template(template).render(
        **context,
        themes=THEMES,
        themes_json=as_json(THEMES),
        figures=figures,
        figures_json=as_json(figures),
        plotly_js=plotly.get_plotlyjs() if figures else "",
    )
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, text.encode("utf-8", "replace"))
    except OSError as problem:
        raise ConfigError(say("path", "must be a file that can be written", str(target), str(problem))) from problem
    return target


def as_json(value: object) -> str:
    r"""JSON that can stand inside a script element, whatever texts it holds.

    >>> as_json(["</script>"])
    '["\\u003c/script\\u003e"]'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _extra(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        raise missing_extra(module.partition(".")[0], "report", "A report") from problem
