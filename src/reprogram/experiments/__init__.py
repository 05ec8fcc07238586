"""Whole experiments, one command each: train sources, take kernels, reprogram, say in a note what holds."""

from reprogram.experiments.options import Options
from reprogram.experiments.run import EXPERIMENTS, run

__all__ = ["EXPERIMENTS", "Options", "run"]
