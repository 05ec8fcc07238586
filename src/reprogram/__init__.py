"""Make frozen pretrained models do new tasks by changing only what goes in and how the answer is read.

    y = O(f(I(x)))        f never changes

    import reprogram as rp
    source = rp.load_source("bundled/efficientnet-lite0")
    task = rp.load_task("./my_images")
    result = rp.fit(rp.build("blm", source, task, preset="auto"), task, out="my.safetensors")

Importing this package imports nothing heavy: each name below is fetched when it is first used.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reprogram._version import __version__

if TYPE_CHECKING:
    from reprogram.catalogue import build, compile_program, find, load, methods
    from reprogram.core.errors import (
        ArtifactError,
        BindingError,
        BusyError,
        CapabilityError,
        ConfigError,
        DataError,
        FingerprintError,
        FitError,
        MissingExtraError,
        ReprogramError,
        SourceError,
    )
    from reprogram.core.method import Method, Recipe
    from reprogram.core.mixed import Mixed
    from reprogram.core.program import Edit, Input, Output, Program
    from reprogram.fit import FitOptions, FitResult, Metrics, evaluate, find_rate, fit
    from reprogram.ntk import Diagnosis
    from reprogram.rank import Ranking, diagnose, rank
    from reprogram.report import Control, controls, write_report
    from reprogram.search import search
    from reprogram.sources import load_source, query_only, wrap
    from reprogram.store import from_hub, push_to_hub, save
    from reprogram.tasks import Split, Task, load_task

_HOMES = {
    "catalogue": ["build", "compile_program", "find", "load", "methods"],
    "core.errors": [
        "ArtifactError", "BindingError", "BusyError", "CapabilityError", "ConfigError", "DataError",
        "FingerprintError", "FitError", "MissingExtraError", "ReprogramError", "SourceError",
    ],
    "core.method": ["Method", "Recipe"],
    "core.mixed": ["Mixed"],
    "core.program": ["Edit", "Input", "Output", "Program"],
    "fit": ["FitOptions", "FitResult", "Metrics", "evaluate", "find_rate", "fit"],
    "ntk": ["Diagnosis"],
    "rank": ["Ranking", "diagnose", "rank"],
    "report": ["Control", "controls", "write_report"],
    "search": ["search"],
    "sources": ["load_source", "query_only", "wrap"],
    "store": ["from_hub", "push_to_hub", "save"],
    "tasks": ["Split", "Task", "load_task"],
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """Lets `fit`, `methods` and the like be functions here although rooms of these names exist.

    Python sets an attribute on a package when a submodule of it is imported; the public function keeps the name.
    `from reprogram.fit import engine` and the like work as ever.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'reprogram' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"reprogram.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "ArtifactError",
    "BindingError",
    "BusyError",
    "CapabilityError",
    "ConfigError",
    "Control",
    "DataError",
    "Diagnosis",
    "Edit",
    "FingerprintError",
    "FitError",
    "FitOptions",
    "FitResult",
    "Input",
    "Method",
    "Metrics",
    "MissingExtraError",
    "Mixed",
    "Output",
    "Program",
    "Ranking",
    "Recipe",
    "ReprogramError",
    "SourceError",
    "Split",
    "Task",
    "__version__",
    "build",
    "compile_program",
    "controls",
    "diagnose",
    "evaluate",
    "find",
    "find_rate",
    "fit",
    "from_hub",
    "load",
    "load_source",
    "load_task",
    "methods",
    "push_to_hub",
    "query_only",
    "rank",
    "save",
    "search",
    "wrap",
    "write_report",
]
