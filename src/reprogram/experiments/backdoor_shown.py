"""What `backdoor` shows of its rows: sentences, tables and charts."""

from collections.abc import Sequence

from reprogram.experiments.claims import Row
from reprogram.experiments.experiment import of, values
from reprogram.experiments.study import median
from reprogram.report.experiment import Axis, Chart, Point, Sheet, marks

NONE, PLAIN, REFINED = "no defence", "plain pattern", "refine"


def remarks(rows: Sequence[Row]) -> list[str]:
    """Medians over seeds."""
    made: list[str] = []
    for defence in values(rows, "defence"):
        some = of(rows, defence=defence)
        accuracy, attack, seen = (median([r[c] for r in some]) for c in ("accuracy", "attack", "seen_through"))
        made.append(f"{defence.capitalize()}: accuracy {accuracy:.1%}, attack success {attack:.1%}, stamped pictures "
                    f"in their own class {seen:.1%} (medians); {some[0]['numbers']:,} learned numbers.")  # fmt: skip
    return made


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Every seed with its intervals."""
    lines = [
        (row["defence"], str(row["seed"]), _share(row, "accuracy"), _share(row, "attack"), f"{row['seen_through']:.1%}")
        for row in rows
    ]
    return [
        Sheet(
            title="Accuracy and attack success", rows=lines,
            heads=("defence", "seed", "accuracy", "attack success", "stamped, own class"),
            note=f"In brackets 95 % intervals, of {rows[0]['pictures']} clean and {rows[0]['stamped']} stamped "
            "pictures.",
        )
    ]  # fmt: skip


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Accuracy against attack success: a defence should be at the upper left."""
    groups = {
        defence: [Point(r["attack"], r["accuracy"], f"{defence}, seed {r['seed']}") for r in of(rows, defence=defence)]
        for defence in values(rows, "defence")
    }
    axes = Axis(title="attack success", share=True), Axis(title="accuracy on clean pictures", share=True)
    caption = "Accuracy on clean pictures against attack success, a mark a seed; a good defence is at the upper left."
    return [Chart(name="defences", label="Accuracy against attack success.", caption=caption,
                  figure=marks(groups, *axes))]  # fmt: skip


def _share(row: Row, name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.1%} ({low:.1%} to {high:.1%})"
