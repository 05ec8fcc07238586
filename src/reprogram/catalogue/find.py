"""Finds methods: every file of `reprogram.methods` with a `METHOD`, and every plug-in of the entry point group.

A plug-in is an ordinary package with

    [project.entry-points."reprogram.methods"]
    my_method = "my_package.my_method:METHOD"
"""

import importlib
import logging
import pkgutil
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import entry_points

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator

AXES = {"configuration": Configuration, "location": Location, "operator": Operator, "alignment": Alignment}

log = logging.getLogger("reprogram")


@lru_cache
def _all() -> dict[str, Method]:
    found: dict[str, Method] = {}
    folder = importlib.import_module("reprogram.methods")
    for module in pkgutil.iter_modules(folder.__path__):
        card = getattr(importlib.import_module(f"reprogram.methods.{module.name}"), "METHOD", None)
        if isinstance(card, Method):
            _add(found, card, f"methods/{module.name}.py")
    for entry in entry_points(group="reprogram.methods"):
        try:
            card = entry.load()
        except Exception as problem:  # a broken plug-in must not take the library down
            log.warning("plug-in %s could not be loaded: %s: %s", entry.name, type(problem).__name__, problem)
            continue
        if isinstance(card, Method):
            _add(found, card, f"plug-in {entry.value}")
        else:
            log.warning("plug-in %s is not a reprogram Method but %s", entry.name, type(card).__name__)
    return dict(sorted(found.items()))


def _add(found: dict[str, Method], card: Method, where: str) -> None:
    if card.name in found:
        raise ConfigError(say("METHOD.name", "must be given to one method only", card.name, f"Rename it in {where}."))
    found[card.name] = card


def methods(**axes: str) -> list[Method]:
    """All methods, or those that have the given value on each axis named.

    Args:
        axes: any of configuration, location, operator, alignment.

    Raises:
        ConfigError: no such axis or value.

    >>> [m.name for m in methods(configuration="fixed", location="hidden")]
    ['structured_prompting']
    """
    for axis, value in axes.items():
        if axis not in AXES:
            raise ConfigError(say("axis", f"must be one of {list(AXES)}", axis))
        values = [str(v) for v in AXES[axis]]
        if value not in values:
            raise ConfigError(say(axis, f"must be one of {values}", value))
    return [m for m in _all().values() if m.taxonomy.matches(**axes)]


def find(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    known = _all()
    if name not in known:
        near = get_close_matches(name, known, 1)
        remedy = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(
            say("method", f"must be one of {list(known)}", name, f"{remedy}`reprogram methods` lists them.")
        )
    return known[name]
