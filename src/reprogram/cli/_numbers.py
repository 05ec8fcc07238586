"""Results as plain numbers for `--json`, and shares for people."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reprogram.core.result import Parameters
    from reprogram.fit import Metrics


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.8625)
    '86.2 %'
    """
    return f"{100 * share:.1f} %"


def numbers(test: "Metrics | None", count: "Parameters", seconds: float) -> dict[str, Any]:
    """What a program or control scored, how big it is and how long it took."""
    found: dict[str, Any] = {"test": None, "parameters": asdict(count), "seconds": round(seconds, 3)}
    if test is not None:
        found["test"] = {"inputs": len(test), **test.brief(), "interval": list(test.interval())}
    return found
