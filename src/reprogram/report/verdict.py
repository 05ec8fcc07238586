"""The result in words: one number with its interval, the best control, and whether the difference means anything."""

from collections.abc import Sequence
from dataclasses import dataclass

from reprogram.fit import FitResult, Metrics
from reprogram.report.controls import Control
from reprogram.report.words import amount, percent, reading, thing


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Verdict:
    """What the top of a report says.

    Attributes:
        split: "test", "validation", or "" where there is nothing to score.
        mine: the program's metrics on it.
        best: the control that scores highest on it.
        difference: the program's accuracy minus that control's, in points.
        standing: "ahead", "close" (the intervals overlap), "behind", or "alone" without controls.
        sentence: all of it in words.
    """

    split: str
    mine: Metrics | None
    best: Control | None
    difference: float | None
    standing: str
    sentence: str


def judge(result: FitResult, controls: Sequence[Control]) -> Verdict:
    """Compare a program with its controls on the test split, or on validation where there is no test."""
    split = "test" if result.test is not None else "validation" if result.validation is not None else ""
    mine = scored(result, split)
    if mine is None:
        sentence = "The task has neither a test nor a validation split, so nothing can be said about accuracy."
        return Verdict(split="", mine=None, best=None, difference=None, standing="alone", sentence=sentence)
    rivals = [(c, m) for c in controls if (m := scored(c, split)) is not None]
    told = reading(mine, split, thing(result))
    if not rivals:
        sentence = f"{told}. No controls were fitted beside it, so whether the program adds anything is not known."
        return Verdict(split=split, mine=mine, best=None, difference=None, standing="alone", sentence=sentence)
    best, theirs = max(rivals, key=lambda pair: pair[1].accuracy)
    standing = compare(mine, theirs)
    beaten = sum(m.accuracy < mine.accuracy for _, m in rivals)
    size = amount(len(mine), thing(result))
    sentence = f"{told}. {_against(mine, theirs, best.name, beaten, size)}{_caution(split)}"
    return Verdict(split=split, mine=mine, best=best, difference=points(mine, theirs), standing=standing,
                   sentence=sentence)  # fmt: skip


def scored(row: FitResult | Control, split: str) -> Metrics | None:
    """A row's metrics on "test" or "validation"."""
    return row.test if split == "test" else row.validation if split == "validation" else None


def compare(mine: Metrics, theirs: Metrics) -> str:
    """Where mine stands: "ahead" or "behind" if the 95 % intervals are apart, else "close"."""
    (low, high), (other_low, other_high) = mine.interval(), theirs.interval()
    return "ahead" if low > other_high else "behind" if high < other_low else "close"


def points(mine: Metrics, theirs: Metrics) -> float:
    """Difference of two accuracies in percentage points."""
    return 100 * (mine.accuracy - theirs.accuracy)


def _against(mine: Metrics, theirs: Metrics, name: str, beaten: int, size: str) -> str:
    """The program beside its best control, having scored higher than `beaten` of all, on so many inputs."""
    gap, standing = points(mine, theirs), compare(mine, theirs)
    far, reached = f"{abs(gap):.1f} points", percent(theirs.accuracy)
    fails = "It does not beat all its controls" if beaten else "It beats none of its controls"
    if standing == "ahead":
        return f"That is {far} above the best control, {name} ({reached}), and the intervals do not overlap."
    if standing == "behind":
        return (
            f"{fails}: {name} reaches {reached}, {far} more, and the intervals do not overlap. "
            "On this task the control is the better choice."
        )
    if gap > 0:
        return (
            f"That is {far} above the best control, {name} ({reached}), but the intervals overlap: {size} are too few "
            "to call the program better."
        )
    more = f"{far} more" if gap < 0 else "the same"
    return f"{fails}: {name} reaches {reached}, {more}. The intervals overlap, so neither is shown to be better."


def _caution(split: str) -> str:
    if split == "test":
        return ""
    return " There is no test split; validation also chose the epoch, which flatters the program."
