"""O: how the source's outputs are read as the target's, one alignment a file.

Every output has `fold()` [S, T] and `offset()` [T] with ``forward == scores @ fold() + offset()``, for export and for
checks; those that count or measure have `observe`, `refresh`, `forget`, `statistics` and `load_statistics`.
"""

from reprogram.outputs.choose import label_map
from reprogram.outputs.identity import Identity
from reprogram.outputs.linear import Linear
from reprogram.outputs.rules import FirstClasses, NamedClasses
from reprogram.outputs.statistical import BayesianMap, BayesianMapPlus, FrequencyMap, RandomMap

__all__ = [
    "BayesianMap",
    "BayesianMapPlus",
    "FirstClasses",
    "FrequencyMap",
    "Identity",
    "Linear",
    "NamedClasses",
    "RandomMap",
    "label_map",
]
