"""What an experiment is: which sources, what is asked of the rows, what is drawn. One file of this room holds one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprogram.experiments.claims import LUCK, Claim, Row, Split, best_split, by_design, thresholds
from reprogram.experiments.measure import Extra
from reprogram.experiments.options import Options
from reprogram.experiments.zoo import Design
from reprogram.report.experiment import Axis, Chart, Point, Sheet, marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment.

    Attributes:
        name: what users type.
        title: of its page.
        question: one or two sentences.
        designs: the sources to train, for a seed; ready-made sources may take their place if `ready` says so.
        claims: what the rows of one method are asked.
        charts: of all rows.
        sheets: further tables.
        remarks: further sentences that follow from the rows; they come under the verdicts.
        caveats: beyond those that hold for all.
        extra: what else is measured of a program.
        ready: whether `options.sources` may replace the designs.
    """

    name: str
    title: str
    question: str
    designs: Callable[[Options, int], Sequence[Design]]
    claims: Callable[[Sequence[Row], str], Sequence[Claim]]
    charts: Callable[[Sequence[Row]], Sequence[Chart]]
    sheets: Callable[[Sequence[Row]], Sequence[Sheet]] = lambda _: ()
    remarks: Callable[[Sequence[Row]], Sequence[str]] = lambda _: ()
    caveats: Sequence[str] = ()
    extra: Extra | None = None
    ready: bool = False


SOURCE_EIGENVALUE = "source_lambda_min"
PROGRAM_EIGENVALUE = "program_lambda_min"

SCORES = {
    SOURCE_EIGENVALUE: "smallest eigenvalue of the source's kernel",
    PROGRAM_EIGENVALUE: "smallest eigenvalue of the program's kernel",
    "gf_loss": "predicted training loss",
    "gf_loss_relative": "predicted training loss, free of scale",
    "ce_rate": "first-step rate of the cross-entropy",
    "loo_accuracy": "leave-one-out accuracy of the linearised program",
    "alignment": "alignment of kernel and labels",
    "effective_rank": "effective rank",
    "source_accuracy": "accuracy of the source on its own data",
}
LOWER_IS_BETTER = frozenset({"gf_loss", "gf_loss_relative"})


def of(rows: Iterable[Row], **columns: object) -> list[Row]:
    """The rows with these values.

    >>> of([{"method": "vp"}, {"method": "fc"}], method="fc")
    [{'method': 'fc'}]
    """
    return [r for r in rows if all(r.get(k) == v for k, v in columns.items())]


def values(rows: Iterable[Row], column: str) -> list[Any]:
    """The different values of a column, in the order in which they come."""
    return list(dict.fromkeys(r.get(column) for r in rows))


def families(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """All rows, then those of each family if there are several."""
    known = values(rows, "family")
    return [("all designs", list(rows)), *((f, of(rows, family=f)) for f in known if len(known) > 1)]


def curve(rows: Sequence[Row], x: str, y: str, axes: tuple[Axis, Axis], name: str, caption: str) -> Chart:
    """A line a family and method: the median over seeds of `y` for each value of `x`."""
    groups: dict[str, list[Point]] = {}
    for row in by_design(rows, [x, y]):
        if row[x] is not None and row[y] is not None:
            group = groups.setdefault(f"{row['family']}, {row['method']}", [])
            group.append(Point(float(row[x]), float(row[y]), f"{row['design']} ({row['seeds']} seeds)"))
    ordered = {g: sorted(points) for g, points in groups.items()}
    return Chart(name=name, label=caption, caption=caption, figure=marks(ordered, *axes, joined=True))


def spectra(rows: Sequence[Row], column: str, name: str, caption: str) -> Chart:
    """Eigenvalues by their place, a line a source, of the first seed and method."""
    first = of(rows, seed=rows[0]["seed"], method=rows[0]["method"]) if rows else []
    groups = {
        r["design"]: [Point(float(i), float(v), r["design"]) for i, v in r[column]] for r in first if r.get(column)
    }
    axes = Axis(title="place", log=True), Axis(title="eigenvalue", log=True)
    return Chart(name=name, label=caption, caption=caption, figure=marks(groups, *axes, joined=True))


def cloud(rows: Sequence[Row], score: str, name: str, caption: str) -> Chart:
    """A mark a source: a score against the accuracy that reprogramming reached, all seeds."""
    groups: dict[str, list[Point]] = {}
    for row in rows:
        if row.get(score) is not None and row.get("accuracy") is not None:
            label = f"{row['source']}, {row['method']}"
            groups.setdefault(f"{row['family']}, {row['method']}", []).append(
                Point(float(row[score]), float(row["accuracy"]), label)
            )
    spread = [p.x for points in groups.values() for p in points]
    log = bool(spread) and min(spread) > 0 and max(spread) > 20 * min(spread)
    axes = Axis(title=SCORES.get(score, score), log=log), Axis(title="target accuracy", share=True)
    return Chart(name=name, label=caption, caption=caption, figure=marks(groups, *axes))


def threshold_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """For each method and eigenvalue: mean accuracy above and below every cut."""
    made: list[Sheet] = []
    for method in values(rows, "method"):
        for score in (SOURCE_EIGENVALUE, PROGRAM_EIGENVALUE):
            chosen = of(rows, method=method)
            cuts = thresholds(chosen, score)
            if not cuts:
                continue
            lines = [
                (f"{c.value:.2g}", str(c.below), f"{c.accuracy_below:.1%}", str(c.above), f"{c.accuracy_above:.1%}",
                 "yes" if c.separates else "no") for c in cuts
            ]  # fmt: skip
            made.append(Sheet(
                title=f"Thresholds on the {SCORES[score]}, {method}",
                heads=("threshold", "designs below", "mean accuracy", "designs above", "mean accuracy", "separates"),
                rows=lines, note=_luck(best_split(chosen, score)),
            ))  # fmt: skip
    return made


def threshold_remarks(rows: Sequence[Row]) -> list[str]:
    """Whether some threshold tells good designs from bad ones, with the luck of choosing it accounted for."""
    made: list[str] = []
    for method in values(rows, "method"):
        for score in (SOURCE_EIGENVALUE, PROGRAM_EIGENVALUE):
            split = best_split(of(rows, method=method), score)
            made += [f"Thresholds, {method}, {SCORES[score]}: {_luck(split)}"]
    return made


def _luck(split: Split | None) -> str:
    if split is None:
        return "too few designs have it for a threshold to be judged."
    best, verdict = split.best, "supported" if split.chance < LUCK else "cannot be told from luck"
    return (f"the best cut, {best.value:.2g}, has {split.gap:+.1%} of accuracy above it; the best cut of shuffled "
            f"accuracies is as good with probability {split.chance:.3f}: {verdict}.")  # fmt: skip


def counts(rows: Sequence[Row], column: str) -> Mapping[Any, int]:
    """How many rows have each value."""
    return {value: len(of(rows, **{column: value})) for value in values(rows, column)}
