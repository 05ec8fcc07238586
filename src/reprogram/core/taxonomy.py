"""The four axes of the taxonomy of Ye et al. 2025 (arXiv 2506.04650), as values that are read off built programs."""

from dataclasses import dataclass, fields
from enum import StrEnum


class Configuration(StrEnum):
    """lambda: is the manipulation of the input learned or fixed?"""

    LEARNABLE = "learnable"
    FIXED = "fixed"


class Location(StrEnum):
    """l: where in the source the manipulation sits. A property of the source's *site*, never of an edit."""

    INPUT = "input"
    EMBEDDING = "embedding"
    HIDDEN = "hidden"


class Operator(StrEnum):
    """tau: how the manipulation acts on the value at its site."""

    ADDITIVE = "additive"
    CONCATENATIVE = "concatenative"
    PARAMETRIC = "parametric"


class Alignment(StrEnum):
    """omega: how source outputs are read as target outputs."""

    IDENTITY = "identity"
    RULE_BASED = "rule-based"
    LINEAR = "linear"
    STATISTICAL = "statistical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taxonomy:
    """A set of values per axis, because a program may hold several edits. Empty where nothing is manipulated.

    >>> t = Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.ADDITIVE, Alignment.STATISTICAL)
    >>> str(t)
    '(learnable; input; additive; statistical)'
    >>> t.matches(location="input", operator="concatenative")
    False
    """

    configuration: frozenset[Configuration]
    location: frozenset[Location]
    operator: frozenset[Operator]
    alignment: frozenset[Alignment]

    @classmethod
    def of(cls, *values: Configuration | Location | Operator | Alignment) -> "Taxonomy":
        """Sort values to their axes."""
        return cls(
            configuration=frozenset(v for v in values if isinstance(v, Configuration)),
            location=frozenset(v for v in values if isinstance(v, Location)),
            operator=frozenset(v for v in values if isinstance(v, Operator)),
            alignment=frozenset(v for v in values if isinstance(v, Alignment)),
        )

    def axes(self) -> dict[str, list[str]]:
        """Plain lists per axis, sorted: what goes into a program file's card."""
        return {f.name: sorted(str(v) for v in getattr(self, f.name)) for f in fields(self)}

    def matches(self, **axes: str) -> bool:
        """True if every axis named holds the value named."""
        mine = self.axes()
        return all(value in mine[axis] for axis, value in axes.items())

    def __str__(self) -> str:
        return "(" + "; ".join(" + ".join(values) or "–" for values in self.axes().values()) + ")"
