"""How a search is done, as opposed to what it searches."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from reprogram.core.errors import ConfigError, say
from reprogram.search.space import Stated

if TYPE_CHECKING:
    from reprogram.search.result import Trial

Pruner = Literal["hyperband", "median", "none"]
Heard = Callable[["Trial", int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Settings of a search.

    Attributes:
        space: what to try by setting, beside or in place of what is tried by itself; see `space_of`.
        pinned: settings that are the same in all trials.
        trials: in all, those of earlier runs included; ones that were cut off do not count.
        seconds: that trials of this run may take, loading apart; the one under way is then cut off, and tried again by
            a later run.
        storage: where trials are kept: the path of an SQLite file, or an address that SQLAlchemy knows. By default
            `search.db` in the run folder beside `out`, or memory without one. One search at a time uses a file.
        seed: of the programs' starts, their fits, and the choice of trials.
        pruner: ends trials that fall behind on validation: "hyperband", "median" (of the trials so far), "none".
        preset: of the method.
        out: the program file for the winner.
        device: to fit on.
        heard: is told of every trial that ends, how many have, and how many there shall be.
    """

    space: Mapping[str, Stated] = field(default_factory=lambda: {})
    pinned: Mapping[str, Any] = field(default_factory=lambda: {})
    trials: int = 50
    seconds: float | None = None
    storage: str | os.PathLike[str] | None = None
    seed: int = 0
    pruner: Pruner = "hyperband"
    preset: str = "auto"
    out: str | os.PathLike[str] | None = None
    device: str | None = None
    heard: Heard | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(say("trials", "must be 1 or more", self.trials))
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(say("seconds", "must be above 0", self.seconds))
        if self.pruner not in ("hyperband", "median", "none"):
            raise ConfigError(say("pruner", 'must be "hyperband", "median" or "none"', self.pruner))
