"""What a report calls the examples of a task, and how it says how well they are answered."""

from reprogram.fit import FitResult, Metrics
from reprogram.tasks import Task


def thing(given: FitResult | Task) -> str:
    """What the task of a result, or a task, is about: "picture" or "text"."""
    modality = given.spec.modality if isinstance(given, Task) else given.program.source.spec.modality
    return "text" if modality == "text" else "picture"


def writes(metrics: Metrics) -> bool:
    """Whether these are of texts that are to be written, so that accuracy counts their tokens."""
    return metrics.confusion is None and metrics.answers is None


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.8625)
    '86.2 %'
    """
    return f"{100 * share:.1f} %"


def interval(metrics: Metrics) -> str:
    """The 95 % interval for people. Tokens of one text are no independent trials, so each text counts as one."""
    low, high = metrics.interval()
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"


def perplexity(metrics: Metrics) -> str:
    """For people: a digit behind the point while that matters."""
    value = metrics.perplexity
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}" if value < 1e9 else f"{value:.1e}"


def amount(count: int, what: str) -> str:
    """So many of them.

    >>> amount(1200, "test text"), amount(1, "picture")
    ('1,200 test texts', '1 picture')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def reading(metrics: Metrics, split: str, thing: str) -> str:
    """A sentence without its full stop: how well a program answers."""
    where = amount(len(metrics), f"{split} {thing}")
    if not writes(metrics):
        missed = f"; no answer could be read of {percent(metrics.unparsable)}" if metrics.unparsable else ""
        return f"The program is right on {percent(metrics.accuracy)} of {where} ({interval(metrics)}{missed})"
    return (
        f"Told what comes before, the program predicts {percent(metrics.accuracy)} of the tokens to be written in "
        f"{where} ({interval(metrics)}; {metrics.loss:.2f} nats a token, perplexity {perplexity(metrics)})"
    )
