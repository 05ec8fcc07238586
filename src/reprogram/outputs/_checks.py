"""Checks of settings and scores that several outputs share."""

import math

from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say


def check_sizes(sources: int, targets: int) -> None:
    """S and T, at least 1."""
    for name, value in {"sources": sources, "targets": targets}.items():
        if value < 1:
            raise ConfigError(say(name, "must be 1 or more", value))


def check_one_to_one(sources: int, targets: int, per_class: int) -> None:
    """Enough source classes to give each target m of its own."""
    check_sizes(sources, targets)
    if per_class < 1:
        raise ConfigError(say("per_class", "must be 1 or more", per_class))
    if per_class * targets > sources:
        need = f"must be at most {sources}, the number of source classes, because each serves one target"
        name = "targets" if per_class == 1 else "per_class * targets"
        raise ConfigError(say(name, need, per_class * targets, "A Bayesian or linear output takes any number."))


def check_above(name: str, value: float) -> None:
    """Above 0 and finite."""
    if not 0 < value < math.inf:
        raise ConfigError(say(name, "must be a finite number above 0", value))


def check_at_least(name: str, value: float, least: float) -> None:
    """At the least, and finite."""
    if not least <= value < math.inf:
        raise ConfigError(say(name, f"must be a finite number, {least:g} or more", value))


def not_finite(values: Tensor, name: str = "logits") -> DataError:
    """The error for source outputs that cannot be counted or measured."""
    some = [float(v) for v in values[~values.isfinite()][:4]]
    return DataError(say(name, "must be finite numbers", some, "Check the source's inputs and its precision."))
