"""The page of a diagnosis: warnings first, figures in words, then the spectra, the reach and the loss curves."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reprogram.ntk import Diagnosis
from reprogram.report import page
from reprogram.report.experiment import Axis, Point, marks
from reprogram.report.figures import Figure

TRUST = (
    "A diagnosis ranks sources; it does not forecast an accuracy. It compares only figures of the identical sample, "
    "method and label mapping. Set a short probe (a few epochs of the real training) beside it: it is the baseline to "
    "beat, and often as good."
)


MOST = 0.995
"""A share that is shown as 100 %."""


def write_diagnosis(found: Diagnosis, path: str | os.PathLike[str], *, command: str = "") -> Path:
    """Write a diagnosis as one HTML file that opens anywhere, without a network.

    Args:
        found: what `diagnose` returned.
        path: the file; its folder is made if need be.
        command: the command line, if there was one.

    Raises:
        MissingExtraError: plotly or jinja2 is not installed.
        ConfigError: the file cannot be written.
    """
    context = {
        "title": f"{found.source} on {found.task or 'these data'}: diagnosis before training",
        "found": found,
        "lead": lead(found),
        "facts": _facts(found),
        "trust": TRUST,
        "command": command,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return page.write(path, "diagnosis.html.j2", context, _charts(found))


def lead(found: Diagnosis) -> str:
    """The diagnosis in a sentence or two, without promising anything."""
    if found.program is None:
        return "The program learns nothing by gradients; only the source has a kernel here."
    size = found.program.size
    if found.below_rounding or not found.program.rank:
        said = "The program hardly moves the scores, so that gradients will not train it on this source."
    elif found.full_rank:
        said = (
            f"The program's kernel has full rank ({size}): in the linear regime any labels of the sample can be fitted."
        )
    else:
        reach = found.values.get("reachable") or 0.0
        said = (
            f"The program's kernel has rank {found.program.rank} of {size}: in the linear regime {reach:.0%} of the "
            f"label energy can be fitted{', and the rest cannot' if reach < MOST else ''}."
        )
    signs = len(found.warnings)
    return f"{said} {'No sign of failure was found.' if not signs else 'Heed the warnings below.'}"


def _facts(found: Diagnosis) -> list[tuple[str, str]]:
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.seconds.items() if seconds >= 0.05)
    rows = [
        ("Samples, targets", f"{found.samples} x {found.targets} (kernel of {found.samples * found.targets} rows)"),
        ("Learned numbers", f"{found.parameters:,}"),
        ("Source kernel", f"of the first {found.source_samples} samples" if found.source_samples else "not made"),
        ("Output map", found.mapping),
        ("Arithmetic", found.precision),
        ("Time", spent or "under 0.1 s"),
        ("Sample", f"seed {found.seed}, digest {found.digest[:16]}"),
    ]
    if found.program is not None:
        rows.insert(2, ("Noise floor", f"{found.program.floor:.2g}; no figure below it is given"))
    return rows + [(f"Route of {name}", route) for name, route in found.routes.items()]


def _charts(found: Diagnosis) -> dict[str, Figure]:
    curves = found.curves
    charts: dict[str, Figure] = {}
    spectra = {"program": curves.program, "source": curves.source}
    if any(spectra.values()):
        groups = {f"{name} kernel": _steps(values, 1) for name, values in spectra.items() if values}
        drawn = _plain(marks(groups, Axis(title="eigenvalue number", log=True), Axis(title="eigenvalue", log=True),
                             joined=True))  # fmt: skip
        charts["spectrum"] = {**drawn, "layout": {**drawn["layout"], "showlegend": True}}
    if curves.reach:
        charts["reach"] = _plain(marks({"label energy": _steps(curves.reach, 1)}, Axis(title="top eigenvectors taken"),
                                       Axis(title="reachable label energy", share=True), joined=True),
                                 range=[0, 1.03])  # fmt: skip
    if curves.predicted:
        groups = {"predicted by the kernel": _steps(curves.predicted, 0)}
        groups |= {"actual training": _steps(curves.actual, 0)} if curves.actual else {}
        axes = Axis(title="steps of gradient descent"), Axis(title="squared loss a sample")
        charts["loss"] = _plain(marks(groups, *axes, joined=True), rangemode="tozero")
    return charts


def _steps(values: Sequence[float], first: int) -> list[Point]:
    return [Point(float(i), v, f"{i}: {v:.4g}") for i, v in enumerate(values, first)]


def _plain(figure: Figure, **upright: Any) -> Figure:
    """Lines without a mark at each of a thousand points; `upright` is for the y axis."""
    traces: list[dict[str, Any]] = [
        {**trace, "mode": "lines" if len(trace["x"]) > 30 else "lines+markers", "hovertemplate": "%{text}"}
        for trace in figure["data"]
    ]
    layout = {**figure["layout"], "yaxis": {**figure["layout"]["yaxis"], **upright}}
    return {**figure, "data": traces, "layout": layout}
