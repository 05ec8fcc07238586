"""What `efficiency` shows of its rows, and what it concludes."""

import math
from collections.abc import Sequence
from dataclasses import replace

from reprogram.experiments.claims import Row
from reprogram.experiments.experiment import of, values
from reprogram.experiments.study import Finding, compared, median
from reprogram.report.experiment import Axis, Chart, Point, Sheet, marks

FULL, PROBE, LORA, BARE = "full fine-tuning", "linear_probe", "LoRA", "no_edit"
KINDS = {"weights": "weights of a copy", "program": "programs", "control": "controls"}


def done(rows: Sequence[Row], **columns: object) -> list[Row]:
    """Rows of approaches that came to an end."""
    return [r for r in of(rows, **columns) if r.get("accuracy") is not None]


def judge(rows: Sequence[Row]) -> list[Finding]:
    """Fewer numbers? As accurate? Quicker? Less memory?"""
    programs = values(done(rows, kind="program"), "approach")
    shares = [_middle(rows, name, "share") for name in programs]
    many = f"{len(programs)} programs, one number each"
    made = [
        _of_programs(compared(f"A program learns less than {limit:.1%} of the numbers of full fine-tuning: {limit:.1%} "
                              "less its share", many, [limit - share for share in shares]))
        for limit in (0.01, 0.001)
    ]  # fmt: skip
    best = {r["seed"]: _best(rows, r["seed"]) for r in done(rows, kind="program")}
    others = ((FULL, "full fine-tuning"), (LORA, "LoRA"), (PROBE, "a linear probe on class scores"),
              (BARE, "a label map on the untouched source"))  # fmt: skip
    for other, text in others:
        theirs = {r["seed"]: r["accuracy"] for r in done(rows, approach=other)}
        gaps = [best[seed]["accuracy"] - theirs[seed] for seed in best if seed in theirs]
        made.append(compared(f"The best program on validation is more accurate than {text}: difference on test",
                             "a number a seed", gaps))  # fmt: skip
    for column, text in (("seconds", "takes less time"), ("memory", "takes less memory")):
        whole = [r[column] for r in done(rows, approach=FULL) if r.get(column)]
        mine = [_middle(rows, name, column) for name in programs]
        saved = [1 - one / median(whole) for one in mine if whole and math.isfinite(one)]
        made.append(_of_programs(compared(f"Fitting a program {text} than full fine-tuning: share saved", many, saved)))
    return made


def remarks(rows: Sequence[Row]) -> list[str]:
    """The best of each kind in a sentence."""
    made: list[str] = []
    for kind, text in KINDS.items():
        names = values(done(rows, kind=kind), "approach")
        if names:
            name = max(names, key=lambda n: _middle(rows, n, "val_accuracy"))
            made.append(f"Best of the {text} on validation: {name}, {_middle(rows, name, 'accuracy'):.1%} on test with "
                        f"{_middle(rows, name, 'learned'):,.0f} learned numbers.")  # fmt: skip
    programs = [n for n in values(done(rows, kind="program"), "approach") if _middle(rows, n, "learned") > 0]
    if programs and done(rows, approach=FULL):
        orders = sorted(-math.log10(_middle(rows, n, "share")) for n in programs)
        made.append(f"Programs learn between {orders[0]:.1f} and {orders[-1]:.1f} orders of magnitude fewer numbers "
                    f"than full fine-tuning, {median(orders):.1f} in the middle.")  # fmt: skip
    return made


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """All approaches, the most accurate on validation first; what could not be done, and why."""
    names = sorted(values(done(rows), "approach"), key=lambda n: -_middle(rows, n, "val_accuracy"))
    lines = [
        (name, KINDS[done(rows, approach=name)[0]["kind"]], f"{_middle(rows, name, 'val_accuracy'):.1%}",
         _spread(rows, name), *(f"{_middle(rows, name, c):,.0f}" for c in ("learned", "effective")),
         f"{_middle(rows, name, 'share'):.2%}", f"{_middle(rows, name, 'seconds'):.1f}", _megabytes(rows, name))
        for name in names
    ]  # fmt: skip
    heads = ("approach", "what changes", "validation", "test (lowest to highest)", "learned", "effective",
             "share of all", "seconds", "memory, MB")  # fmt: skip
    note = "Medians over seeds. Effective: learned numbers that can reach the output."
    made = [Sheet(title="Every approach", heads=heads, rows=lines, note=note)]
    unable: dict[str, list[str]] = {}
    for name in values(rows, "approach"):
        if name not in names:
            unable.setdefault(_reason(rows, name).replace(f" for {name}", ""), []).append(name)
    if unable:
        several = sorted(unable.items(), key=lambda one: -len(one[1]))
        shown = [(", ".join(held), why) for why, held in several]
        made.append(Sheet(title="Not applicable here", heads=("approaches", "reason"), rows=shown))
    return made


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Test accuracy against learned numbers, seconds and memory."""
    share = Axis(title="test accuracy", share=True)
    made: list[Chart] = []
    columns = (("learned", "learned numbers"), ("seconds", "seconds"), ("memory", "peak memory, MB"))
    for column, title in columns:
        scale = 1e6 if column == "memory" else 1.0
        groups = {
            text: [Point(_middle(rows, n, column) / scale, _middle(rows, n, "accuracy"), n)
                   for n in values(done(rows, kind=kind), "approach") if _middle(rows, n, column) > 0]
            for kind, text in KINDS.items()
        }  # fmt: skip
        if any(groups.values()):
            caption = f"Accuracy on test against {title}; medians over seeds, a mark an approach."
            figure = marks({k: v for k, v in groups.items() if v}, Axis(title=title, log=True), share)
            made.append(Chart(name=column, label=caption, caption=caption, figure=figure))
    return made


def _best(rows: Sequence[Row], seed: int) -> Row:
    return max(done(rows, kind="program", seed=seed), key=lambda r: r["val_accuracy"])


def _middle(rows: Sequence[Row], name: str, column: str) -> float:
    known = [r[column] for r in done(rows, approach=name) if r.get(column) is not None]
    return median(known) if known else math.nan


def _spread(rows: Sequence[Row], name: str) -> str:
    found = [r["accuracy"] for r in done(rows, approach=name)]
    return f"{median(found):.1%} ({min(found):.1%} to {max(found):.1%})"


def _megabytes(rows: Sequence[Row], name: str) -> str:
    found = _middle(rows, name, "memory")
    return "–" if math.isnan(found) else f"{found / 1e6:,.0f}"


def _reason(rows: Sequence[Row], name: str) -> str:
    return next((str(r["reason"]) for r in of(rows, approach=name) if r.get("reason")), "")


def _of_programs(found: Finding) -> Finding:
    return replace(found, reason=found.reason.replace("seeds", "programs"))
