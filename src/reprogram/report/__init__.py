"""Reports that say what a result is worth: controls beside every program, tables, self-contained HTML."""

from reprogram.report.controls import Control, controls
from reprogram.report.diagnosis import write_diagnosis
from reprogram.report.html import write_report
from reprogram.report.loaded import evaluate_result
from reprogram.report.table import comparison_table, write_comparison

__all__ = [
    "Control",
    "comparison_table",
    "controls",
    "evaluate_result",
    "write_comparison",
    "write_diagnosis",
    "write_report",
]
