"""What a search tries: for each setting either some values or a range, stated by the user, the method, or neither."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from reprogram.catalogue import make_config, setting_names
from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method

LEFT_ALONE = frozenset({"canvas", "inner", "seed", "new_tokens", "tokens_most", "samples", "workers"})
"""Settings that no search tries unless it is told to: they change what a trial costs, or are not worth a try."""

_WORDS: dict[str, object] = {"true": True, "false": False, "null": None, "none": None}


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values.

    >>> str(Choices((16, 30, None)))
    '16,30,null'
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values or len({_label(v) for v in self.values}) < len(self.values):
            raise ConfigError(say("space", "must have one or more values, each once", self.values))

    def __str__(self) -> str:
        return ",".join(_label(value) for value in self.values)

    def ends(self) -> tuple[Any, ...]:
        """What is checked before a search: all of them."""
        return self.values

    def by_label(self) -> dict[str, Any]:
        """Values by what they are called."""
        return {_label(value): value for value in self.values}


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; `log` tries factors evenly, `whole` whole numbers only.

    >>> str(Range(1e-4, 0.1, log=True))
    '0.0001:0.1:log'
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(say("space", "must be a range from a number to a larger one", (self.low, self.high)))
        if self.log and self.low <= 0:
            raise ConfigError(say("space", "must begin above 0 to be logarithmic", self.low))

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}{':log' if self.log else ''}"

    def ends(self) -> tuple[Any, ...]:
        """What is checked before a search: the two ends."""
        return (self.low, self.high)


Axis = Choices | Range
Stated = str | Axis | Sequence[Any]
"""How a user says it: "1e-4:1e-1:log", "16,30,56", an axis, or a list of values."""


def parse_axis(stated: Stated) -> Axis:
    """An axis from what the user says.

    Args:
        stated: "low:high", "low:high:log" (whole numbers if both ends are), or values with commas between; an axis, or
            a list of values.

    Raises:
        ConfigError: it is none of these.

    >>> parse_axis("1e-4:1e-1:log"), parse_axis("16:64"), parse_axis("freq,iter"), parse_axis([0.5, 1.0])
    (Range(low=0.0001, high=0.1, log=True, whole=False), Range(low=16, high=64, log=False, whole=True),
     Choices(values=('freq', 'iter')), Choices(values=(0.5, 1.0)))
    """
    if isinstance(stated, Choices | Range):
        return stated
    if not isinstance(stated, str):
        return Choices(tuple(stated))
    parts = [part.strip() for part in stated.split(":")]
    numbers = [_value(part) for part in parts[:2]]
    ranged = len(parts) == 2 or (len(parts) == 3 and parts[2] == "log")
    if ranged and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        low, high = numbers
        return Range(low, high, log=len(parts) == 3, whole=isinstance(low, int) and isinstance(high, int))
    if len(parts) > 1 or not stated.strip():
        need = "must be like 1e-4:1e-1:log, 16:64 or 16,30,56"
        raise ConfigError(say("space", need, stated))
    return Choices(tuple(_value(part.strip()) for part in stated.split(",")))


def space_of(
    method: Method,
    config: Any,
    *,
    stated: Mapping[str, Stated] | None = None,
    pinned: Sequence[str] = (),
    learns: bool = True,
) -> dict[str, Axis]:
    """What is tried of a method's settings.

    What the method's card states (`Method.space`); else, of every field: the values of a `Literal`, both of a bool,
    numbers from a half of the default to twice it (whole) or from a quarter to four times (others, logarithmically; not
    above 1 if the default is below), and of the recipe the rate, from a tenth to ten times its value. Epochs, batch
    size and all else stay as they are, unless `stated` says otherwise.

    Args:
        method: the card.
        config: its settings that are searched around.
        stated: axes by setting; these win.
        pinned: settings that stay as they are.
        learns: whether anything is learned by gradient, so that the recipe's rate means something.

    Returns:
        Axes by full name ("recipe.lr").

    Raises:
        ConfigError: a setting is unknown or not of the right kind, or both stated and pinned.

    >>> from reprogram.catalogue import find
    >>> vp = find("vp")
    >>> {name: str(axis) for name, axis in space_of(vp, vp.config(), stated={"width": "16,30"}).items()}
    {'prompt': 'frame,fixed_patch,random_patch', 'width': '16,30', 'recipe.lr': '4:400:log'}
    """
    fixed = {full_name(method, name) for name in pinned}
    mine = {full_name(method, name): parse_axis(axis) for name, axis in (stated or {}).items()}
    both = sorted(fixed & mine.keys())
    if both:
        raise ConfigError(say("space", "must leave out what is pinned", both))
    for name, axis in mine.items():
        for value in axis.ends():
            make_config(method, {name: value})
    made = {name: parse_axis(axis) for name, axis in method.space.items()} or _automatic(method, config)
    if not learns:
        made = {name: axis for name, axis in made.items() if not name.startswith("recipe.")}
    return {name: axis for name, axis in (made | mine).items() if name not in fixed}


def full_name(method: Method, name: str) -> str:
    """The setting a name stands for: "recipe.lr" for "lr", where no field of the method has that name.

    Raises:
        ConfigError: there is no such setting.
    """
    known = setting_names(method)
    if name in known:
        return name
    if f"recipe.{name}" in known:
        return f"recipe.{name}"
    make_config(method, {name: None})  # says what is known
    raise ConfigError(say(name, f"must be a setting of {method.name} without parts of its own", name))


def _automatic(method: Method, config: Any) -> dict[str, Axis]:
    hints, made = get_type_hints(method.config), dict[str, Axis]()
    for name in (f.name for f in fields(method.config) if f.name != "recipe" and f.name not in LEFT_ALONE):
        axis = _around(hints[name], getattr(config, name))
        if axis is not None:
            made[name] = axis
    recipe = getattr(config, "recipe", None)
    if recipe is not None:
        made["recipe.lr"] = Range(recipe.lr / 10, recipe.lr * 10, log=True)
    return made


def _around(hint: Any, value: object) -> Axis | None:
    """An axis around a default; None where nothing can be known of what is sensible."""
    if get_origin(hint) is Literal:
        return Choices(tuple(get_args(hint)))
    if hint is bool:
        return Choices((False, True))
    if hint is int and isinstance(value, int) and value > 0:
        return Range(max(1, value // 2), 2 * value, whole=True)
    if hint is float and isinstance(value, int | float) and value > 0:
        high = 4.0 * value
        return Range(value / 4, min(1.0, high) if value < 1 else high, log=True)
    return None


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return _WORDS.get(text.lower(), text)


def _label(value: object) -> str:
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
