"""The report on one program: a single HTML file that answers a reader's questions in the order they come up."""

import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from reprogram.core.program import Observing, evaluating
from reprogram.fit import FitResult, Metrics
from reprogram.report import facts, figures, page, pictures
from reprogram.report.controls import Control, placed
from reprogram.report.figures import Bar, Figure, Line
from reprogram.report.mapping import label_map
from reprogram.report.prompt import shown
from reprogram.report.texts import text_samples
from reprogram.report.verdict import Verdict, judge, points, scored
from reprogram.report.words import interval, percent, perplexity, thing, writes
from reprogram.tasks import Task

LABELLED = 50
"""Confusion matrices up to this many classes are drawn; larger ones are told by their worst rows."""


class Standing(NamedTuple):
    """A line of the table of controls."""

    name: str
    description: str
    accuracy: str
    interval: str
    difference: str
    balanced: str
    loss: str
    learned: str
    fitted: str
    seconds: str
    mine: bool


class Mix(NamedTuple):
    """A confusion: so many examples of one class were taken for another."""

    truth: str
    prediction: str
    examples: int
    share: str


def write_report(
    result: FitResult,
    task: Task,
    path: str | os.PathLike[str],
    *,
    controls: Sequence[Control] = (),
    command: str = "",
    title: str | None = None,
) -> Path:
    """Write a report as one HTML file that opens anywhere, without a network.

    Args:
        result: of `fit`, or `evaluate_result` of a program that was loaded.
        task: what it was fitted on.
        path: the file; its folder is made if need be.
        controls: what `controls` gave; without them the report says that it cannot judge.
        command: the command line, if there was one.
        title: instead of task and method.

    Raises:
        MissingExtraError: plotly or jinja2 is not installed.
        ConfigError: the file cannot be written.
    """
    with evaluating(result.program):
        context, charts = _contents(result, task, controls, command)
    context["title"] = title or f"{task.name} with {context['method']}"
    return page.write(path, "template.html.j2", context, charts)


def _contents(
    result: FitResult, task: Task, controls: Sequence[Control], command: str
) -> tuple[dict[str, Any], dict[str, Figure]]:
    program, verdict = result.program, judge(result, controls)
    charts = training_charts(result) | _control_chart(result, controls, verdict) | _class_charts(verdict.mine, task)
    context = {
        "method": program.origin.method if program.origin else "a program made by hand",
        "taxonomy": program.taxonomy.axes(),
        "source": program.source.spec.ref,
        "task": task,
        "verdict": verdict,
        "tiles": _tiles(result, verdict),
        "standings": _standings(result, controls, verdict),
        "choices": facts.choices(result, len(task.val) > 0),
        "story": _story(result),
        "learned": pictures.learned(program, task),
        "samples": pictures.samples(program, task, placed(program, task)),
        "texts": text_samples(program, task),
        "thing": thing(task),
        "generates": task.spec.generates,
        "exact": verdict.mine is not None and verdict.mine.answers is not None,
        "prompt": shown(program, task),
        "shown_split": pictures.shown_split(task).name,
        "mapping": label_map(program, task.classes),
        **_mistakes(verdict.mine, task),
        "size": facts.size(result),
        "speed": facts.speed(result, task),
        "data": facts.data(task),
        **_again(result, task, command),
    }
    return context, charts


def _mistakes(metrics: Metrics | None, task: Task) -> dict[str, list[Any]]:
    """The tables beside the confusion matrix."""
    if metrics is None or metrics.confusion is None:
        return {"mixes": [], "weak": []}
    many, names = len(task.classes), task.classes
    return {
        "mixes": _worst(metrics.confusion, names) if many > 2 else [],
        "weak": _weakest(metrics.confusion, names, thing(task)) if many > LABELLED else [],
    }


def _again(result: FitResult, task: Task, command: str) -> dict[str, Any]:
    """How to do it again."""
    program = result.program
    return {
        "command": command,
        "api": facts.api_lines(result, task),
        "seed": result.seed,
        "recipe": facts.recipe(result.recipe),
        "versions": facts.versions(),
        "fingerprint": program.source.fingerprint(),
        "bibtex": program.origin.citation() if program.origin else "",
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _tiles(result: FitResult, verdict: Verdict) -> list[facts.Fact]:
    """The few numbers at the top."""
    fact, count = facts.Fact, result.program.count()
    rows: list[facts.Fact] = []
    if verdict.mine is not None:
        what = "tokens predicted" if writes(verdict.mine) else "accuracy"
        rows.append(fact(f"{verdict.split} {what}", percent(verdict.mine.accuracy), interval(verdict.mine)))
        if writes(verdict.mine):
            rows.append(fact("perplexity", perplexity(verdict.mine), f"{verdict.mine.loss:.2f} nats a token"))
    if verdict.mine is not None and verdict.mine.unparsable is not None:
        rows.append(fact("without an answer", percent(verdict.mine.unparsable), "counted as wrong"))
    theirs = scored(verdict.best, verdict.split) if verdict.best else None
    if verdict.best and theirs and verdict.difference is not None:
        rows.append(fact("best control", percent(theirs.accuracy), verdict.best.name))
        words = {"close": "intervals overlap"}.get(verdict.standing, "intervals do not overlap")
        rows.append(fact("difference", _signed(verdict.difference), f"points, {words}"))
    rows.append(fact("learned numbers", f"{count.allocated:,}", "the source stays as it is"))
    rows.append(
        fact(
            "program",
            facts.data_size(facts.program_bytes(result)),
            "size of the file" if result.out else "size of its numbers",
        )
    )
    return rows


# -- charts ------------------------------------------------------------------------------------------------------------


def training_charts(result: FitResult) -> dict[str, Figure]:
    """Loss and accuracy over the epochs, as far as there are any."""
    selected = result.best_epoch + 1
    loss = _curves(result, {"loss": "train", "val_loss": "validation", "test_loss": "test"})
    accuracy = _curves(result, {"accuracy": "train", "val_accuracy": "validation", "test_accuracy": "test"})
    if not any(curve.name == "train" for curve in loss):
        return {}
    return {
        "loss": figures.lines(loss, "Loss (cross-entropy)", share=False, selected=selected),
        "accuracy": figures.lines(accuracy, _accuracy_of(result), share=True, selected=selected),
    }


def _accuracy_of(result: FitResult) -> str:
    scored_on = result.test or result.validation
    return "Tokens predicted" if scored_on is not None and writes(scored_on) else "Accuracy"


def _curves(result: FitResult, names: dict[str, str]) -> list[Line]:
    curves: list[Line] = []
    for key, name in names.items():
        rows = [(r["epoch"] + 1, r[key]) for r in result.history if key in r and math.isfinite(r[key])]
        if rows:
            curves.append(Line(name, [epoch for epoch, _ in rows], [value for _, value in rows]))
    return curves


def _control_chart(result: FitResult, controls: Sequence[Control], verdict: Verdict) -> dict[str, Figure]:
    rows = [("this program", verdict.mine, True), *((c.name, scored(c, verdict.split), False) for c in controls)]
    bars = [Bar(name, m.accuracy, *m.interval(), mine) for name, m, mine in rows if m is not None]
    return {"controls": figures.bars(bars)} if bars else {}


def _class_charts(metrics: Metrics | None, task: Task) -> dict[str, Figure]:
    if metrics is None or metrics.confusion is None or len(task.classes) > LABELLED:
        return {}
    charts = {"confusion": figures.confusion(metrics.confusion, task.classes)}
    if len(task.classes) > 2:
        order = _by_class(metrics.confusion)
        names = [task.classes[place] for place, _, _ in order]
        charts["classes"] = figures.classes_right(names, [s for _, s, _ in order], [n for _, _, n in order])
    return charts


# -- tables ------------------------------------------------------------------------------------------------------------


def _standings(result: FitResult, controls: Sequence[Control], verdict: Verdict) -> list[Standing]:
    me = Control(name="this program", description="", test=result.test, validation=result.validation,
                 parameters=result.program.count(), seconds=result.seconds)  # fmt: skip
    return [_standing(row, verdict, row is me) for row in (me, *controls)]


def _standing(row: Control, verdict: Verdict, mine: bool) -> Standing:
    metrics = scored(row, verdict.split)
    low, high = metrics.interval() if metrics else (0.0, 0.0)
    gap = _signed(-points(verdict.mine, metrics)) if metrics and verdict.mine and not mine else "–"
    return Standing(
        name=row.name,
        description=row.description,
        accuracy=percent(metrics.accuracy) if metrics else "–",
        interval=f"{100 * low:.1f} – {100 * high:.1f}" if metrics else "–",
        difference=gap,
        balanced=percent(metrics.balanced_accuracy) if metrics and metrics.confusion is not None else "–",
        loss=f"{metrics.loss:.2f}" if metrics and math.isfinite(metrics.loss) else "–",
        learned=f"{row.parameters.effective:,}",
        fitted=f"{row.parameters.fitted:,}",
        seconds=facts.duration(row.seconds),
        mine=mine,
    )


def _story(result: FitResult) -> str:
    """What there is to say about the course of the fit where there are no curves."""
    if not result.history:
        return "No history of the fit was found, so only the program as it is can be shown."
    if "loss" in result.history[-1]:
        return ""
    if isinstance(result.program.output, Observing):
        return "Nothing is learned by gradient here: one pass over the training split is all the fitting there is."
    return "Nothing is learned and nothing counted here: the program is what it shows and how it reads the answer."


def _by_class(confusion: Tensor) -> list[tuple[int, float, int]]:
    """(class, share right, examples), best first; classes without examples are left out."""
    counts, right = confusion.sum(1).tolist(), confusion.diag().tolist()
    rows = [(place, r / n, n) for place, (r, n) in enumerate(zip(right, counts, strict=True)) if n]
    return sorted(rows, key=lambda row: -row[1])


def _weakest(confusion: Tensor, classes: Sequence[str], thing: str, most: int = 15) -> list[facts.Fact]:
    rows = _by_class(confusion)[::-1][:most]
    return [facts.Fact(classes[place], percent(share), f"of {count:,} {thing}s") for place, share, count in rows]


def _worst(confusion: Tensor, classes: Sequence[str]) -> list[Mix]:
    """The confusions with the most examples."""
    wrong = confusion.clone().fill_diagonal_(0)
    totals = confusion.sum(1).tolist()
    most = 20 if len(classes) > LABELLED else 8
    values, places = wrong.flatten().topk(min(most, wrong.numel()))
    rows: list[Mix] = []
    for count, place in zip(values.tolist(), places.tolist(), strict=True):
        truth, guess = divmod(int(place), len(classes))
        if count:
            rows.append(Mix(classes[truth], classes[guess], count, percent(count / totals[truth])))
    return rows


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
