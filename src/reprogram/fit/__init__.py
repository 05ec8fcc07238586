"""Fitting programs: one engine, by gradients or by losses alone, closed forms riding along, exact resumption."""

from reprogram.fit.engine import fit
from reprogram.fit.feed import OutputCache
from reprogram.fit.metrics import Metrics, evaluate, measure
from reprogram.fit.options import FitOptions
from reprogram.fit.rate import RateCurve, find_rate
from reprogram.fit.result import FitResult, Queries
from reprogram.fit.workspace import run_folder
from reprogram.fit.zeroth_order import AskTell, OneSided, SpsaGc
from reprogram.fit.zeroth_order_cma import CmaEs

__all__ = [
    "AskTell", "CmaEs", "FitOptions", "FitResult", "Metrics", "OneSided", "OutputCache", "Queries", "RateCurve",
    "SpsaGc", "evaluate", "find_rate", "fit", "measure", "run_folder",
]  # fmt: skip
