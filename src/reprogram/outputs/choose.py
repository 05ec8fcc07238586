"""Label mappings by name, for methods and controls that leave the choice to the user."""

from collections.abc import Callable, Sequence

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import ImageTextSource, Source
from reprogram.outputs.class_scores import template_scores
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


def class_output(source: Source, classes: Sequence[str], mapping: str, template: str) -> Output:
    """What reads classes off a source of pictures: class texts on an image-text source, a label mapping on others.

    Args:
        source: of pictures.
        classes: T names.
        mapping: see `label_map`; of no meaning for an image-text source.
        template: with `{class}` or `{a class}`; of no meaning for others.

    Raises:
        ConfigError, DataError: see `label_map` and `texts_for`.
    """
    if isinstance(source, ImageTextSource):
        return template_scores(source, classes, [template])
    return label_map(mapping, source.spec.outputs, len(classes))
