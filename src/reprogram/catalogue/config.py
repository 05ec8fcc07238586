"""A method's settings: the paper's values, then a preset, then what the user says; checked before anything is built."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method
from reprogram.core.source import SourceSpec


def make_config(
    method: Method,
    settings: Mapping[str, object] | None = None,
    *,
    preset: str = "paper",
    source: SourceSpec | None = None,
) -> Any:
    """An instance of `method.config`.

    Args:
        method: whose settings.
        settings: names to values; nested ones as "recipe.lr", or just "lr" where no field of the method has that name.
        preset: "paper", a name from `method.presets`, or "auto": "cpu" on a machine without a GPU, if there is one.
        source: with a source of one fixed size, a preset's canvas and image size do not apply.

    Raises:
        ConfigError: an unknown name (the nearest is given), a value of the wrong kind or out of range.

    >>> from reprogram.catalogue.find import find
    >>> make_config(find("blm"), {"lr": 0.5}).recipe.lr
    0.5
    """
    values = asdict(method.config())
    for name, value in _preset(method, preset, source).items():
        _put(values, name, value, method)
    for name, value in (settings or {}).items():
        _put(values, name, value, method)
    try:
        return TypeAdapter(method.config).validate_python(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or method.name
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(say(where, f"is a setting of {method.name}: {first['msg']}", first["input"])) from None


def setting_names(method: Method) -> list[str]:
    """All names that `settings` may hold, nested ones with their dot."""
    return [name for f in fields(method.config) for name in _names(f.name, getattr(method.config(), f.name))]


def _names(name: str, value: object) -> list[str]:
    if is_dataclass(value) and not isinstance(value, type):
        return [n for f in fields(value) for n in _names(f"{name}.{f.name}", getattr(value, f.name))]
    return [name]


def _preset(method: Method, preset: str, source: SourceSpec | None) -> Mapping[str, object]:
    if preset == "auto":
        preset = "cpu" if "cpu" in method.presets and not torch.cuda.is_available() else "paper"
    if preset == "paper":
        return {}
    if preset not in method.presets:
        known = ["auto", "paper", *method.presets]
        raise ConfigError(say("preset", f"of {method.name} must be one of {known}", preset))
    sized = source is not None and not source.resizable
    return {k: v for k, v in method.presets[preset].items() if not (sized and k in ("canvas", "inner", "width"))}


def _put(values: dict[str, Any], name: str, value: object, method: Method) -> None:
    """Set one value by its full or short name; a mapping for a group of settings sets what it names."""
    known = setting_names(method)
    groups = {k[:i] for k in known for i, letter in enumerate(k) if letter == "."}
    full = name if name in known or name in groups or name in values else f"recipe.{name}"
    if full not in known and full not in groups and full not in values:
        short = [k.removeprefix("recipe.") for k in known]
        near = get_close_matches(name, [*known, *short], 1)
        remedy = f"Did you mean {near[0]}?" if near else f"Settings: {', '.join(short)}."
        raise ConfigError(say(name, f"must be a setting of {method.name}", value, remedy))
    if is_dataclass(value) and not isinstance(value, type) and full in groups:
        value = asdict(value)
    if full in groups and isinstance(value, Mapping):
        for key, inner in value.items():
            _put(values, f"{full}.{key}", inner, method)
        return
    *heads, last = full.split(".")
    for head in heads:
        values = values[head]
    values[last] = value
