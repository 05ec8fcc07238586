"""Every score of a ranking by name: what people call it, which way is better, and where it comes from."""

from typing import NamedTuple


class Score(NamedTuple):
    """What is known of a score.

    Attributes:
        label: for people.
        higher: whether more of it means a better source.
        kind: "static", "transferability", "diagnosis", "probe" or "order".
    """

    label: str
    higher: bool
    kind: str


SCORES = {
    "source_accuracy": Score("source accuracy", True, "static"),
    "parameters": Score("parameters", True, "static"),
    "depth": Score("depth", True, "static"),
    "leep": Score("LEEP", True, "transferability"),
    "nce": Score("NCE", True, "transferability"),
    "h_score": Score("H-score", True, "transferability"),
    "logme": Score("LogME", True, "transferability"),
    "knn": Score("kNN", True, "transferability"),
    "source_lambda_min": Score("source λ_min", True, "diagnosis"),
    "program_lambda_min": Score("program λ_min", True, "diagnosis"),
    "program_rank": Score("program rank", True, "diagnosis"),
    "reachable": Score("reachable", True, "diagnosis"),
    "gf_loss": Score("gradient-flow loss", False, "diagnosis"),
    "gf_loss_relative": Score("relative gf loss", False, "diagnosis"),
    "ce_rate": Score("CE rate", True, "diagnosis"),
    "alignment": Score("alignment", True, "diagnosis"),
    "effective_rank": Score("effective rank", True, "diagnosis"),
    "condition": Score("condition", False, "diagnosis"),
    "trace": Score("trace", True, "diagnosis"),
    "logdet_reg": Score("log-determinant", True, "diagnosis"),
    "loo_accuracy": Score("leave-one-out", True, "diagnosis"),
    "probe_accuracy": Score("probe accuracy", True, "probe"),
    "probe_loss": Score("probe loss", False, "probe"),
    "recommended": Score("recommended order", True, "order"),
}
"""The scores that are compared with the truth, in the order in which tables show them."""

NOTED = {"canvas": "canvas", "source_classes": "source classes", "program_cap": "program rank cap"}
"""Numbers that stand in a row and order nothing."""


def label(name: str) -> str:
    """What people call a score or a number.

    >>> label("gf_loss"), label("canvas"), label("something_new")
    ('gradient-flow loss', 'canvas', 'something new')
    """
    known = SCORES[name].label if name in SCORES else NOTED.get(name)
    return known or name.replace("_", " ")
