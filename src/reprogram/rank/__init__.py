"""Which source for a task: diagnoses, transferability scores, short probes, and how far any of them can be trusted."""

from reprogram.rank.diagnose import TargetSample, diagnose, target_sample
from reprogram.rank.options import RankOptions
from reprogram.rank.ranking import Ranking, rank

__all__ = ["RankOptions", "Ranking", "TargetSample", "diagnose", "rank", "target_sample"]
