"""Label mappings by name, for methods and controls that leave the choice to the user."""

from collections.abc import Callable

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Output
from reprogram.outputs.rules import FirstClasses
from reprogram.outputs.statistical import BayesianMap, BayesianMapPlus, FrequencyMap, RandomMap

_MAPS: dict[str, Callable[[int, int], Output]] = {
    "first": FirstClasses,
    "random": lambda sources, targets: RandomMap(sources, targets, 0),
    "frequency": FrequencyMap,
    "many_to_one": lambda sources, targets: FrequencyMap(
        sources, targets, per_class=max(1, min(5, sources // targets))
    ),
    "blm": BayesianMap,
    "blm_plus": BayesianMapPlus,
}


def label_map(name: str, sources: int, targets: int) -> Output:
    """A label mapping from S source to T target classes.

    Args:
        name: "first", "random", "frequency" (one-to-one), "many_to_one" (5 sources a class, fewer if there are not
            enough), "blm" or "blm_plus".
        sources: S.
        targets: T.

    Raises:
        ConfigError: no such mapping, or it cannot serve T classes from S.
    """
    if name not in _MAPS:
        raise ConfigError(say("mapping", f"must be one of {list(_MAPS)}", name))
    return _MAPS[name](sources, targets)
