"""How a ranking is made."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reprogram.core.errors import ConfigError, say


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOptions:
    """Settings of `rank`.

    Attributes:
        n: training pictures for the diagnosis and the transferability scores; the same ones for all sources.
        source_n: of these, how many the source kernel is taken on; 0 for none of it.
        probe_epochs: passes of the short probe.
        probe_samples: training pictures of the probe, and at most as many of validation.
        validate: also reprogram every source in full and compare the scores with the outcome.
        validate_epochs: passes of the full fit; None for the recipe's.
        seeds: of the full fits; the outcome is the mean of their test accuracies.
        twins: also rank each source's architecture with random weights, a control that must not win.
        preset: of the method's settings.
        config: settings of the method by name, over the preset.
        out: folder for finished parts; what is there already is taken, so that a ranking that was cut short goes on.
        seed: of the sample, the program's start, the probe and the twins' weights.
        device: "cpu", "cuda", ...; None takes a GPU if there is one.
        progress: called with a line about every part that is done, and the time left.
    """

    n: int = 100
    source_n: int = 20
    probe_epochs: int = 3
    probe_samples: int = 500
    validate: bool = False
    validate_epochs: int | None = None
    seeds: tuple[int, ...] = (0,)
    twins: bool = False
    preset: str = "auto"
    config: Mapping[str, Any] = field(default_factory=lambda: {})
    out: str | os.PathLike[str] | None = None
    seed: int = 0
    device: str | None = None
    progress: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        least = {"n": 2, "source_n": 0, "probe_epochs": 1, "probe_samples": 2, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(say(name, f"must be {low} or more", getattr(self, name)))
        if self.validate_epochs is not None and self.validate_epochs < 1:
            raise ConfigError(say("validate_epochs", "must be 1 or more, or none", self.validate_epochs))
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(say("seeds", "must be different numbers of 0 or more", self.seeds))
