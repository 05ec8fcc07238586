"""Fitting programs: one gradient engine, closed forms riding along, exact resumption."""

from reprogram.fit.engine import fit
from reprogram.fit.feed import OutputCache
from reprogram.fit.metrics import Metrics, evaluate, measure
from reprogram.fit.options import FitOptions
from reprogram.fit.rate import RateCurve, find_rate
from reprogram.fit.result import FitResult
from reprogram.fit.workspace import run_folder

__all__ = [
    "FitOptions", "FitResult", "Metrics", "OutputCache", "RateCurve", "evaluate", "find_rate", "fit", "measure",
    "run_folder",
]  # fmt: skip
