"""One forward pass of the bare source over the sample: what the transferability scores read, and static facts."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, ReprogramError, say
from reprogram.core.program import Input
from reprogram.core.source import Capability, Reading, Source, local_module
from reprogram.inputs import Place
from reprogram.rank import scores

BATCH = 32
NEEDS = {"leep": "probabilities", "nce": "probabilities", "h_score": "features", "logme": "features", "knn": "features"}
"""What each score is computed from."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Glance:
    """What the source says about N pictures, scaled to its canvas and otherwise left alone.

    Attributes:
        probabilities: of its own classes, [N, S], float64.
        features: what its last layer reads, [N, D], float64; None if it cannot tell.
        seconds: of the pass.
    """

    probabilities: Tensor
    features: Tensor | None
    seconds: float


@dataclass(slots=True)
class Found:
    """Scores by name, None with a reason in `missing`, and seconds."""

    scores: dict[str, float | None]
    seconds: dict[str, float]
    missing: dict[str, str]

    def card(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"scores": self.scores, "seconds": self.seconds, "missing": self.missing}


@torch.no_grad()
def glance(source: Source, x: Tensor, canvas: int | None = None) -> Glance:
    """Let the bare source look at the sample once.

    Args:
        source: a classifier of pictures.
        x: N pictures, [N, channel, height, width], as a split gives them.
        canvas: pixels of the square they are scaled to; None for what the source was trained on.

    Raises:
        CapabilityError: the source is no classifier of pictures, or cannot take that canvas.
    """
    start = time.perf_counter()
    size = source.spec.canvas(canvas)
    if source.spec.outputs < 1:
        raise CapabilityError(say("source", "must have classes of its own to be ranked", source.spec.ref))
    placed = Input(Place(size, size))
    tells = Capability.FEATURES in source.capabilities
    reading = Reading(features=tells)
    source.attach([], reading)
    scores, features = list[Tensor](), list[Tensor]()
    for rows in torch.arange(len(x)).split(BATCH):
        out = source(x[rows].to(source.device), placed, reading)
        scores.append(out.logits.double().cpu())
        if out.features is not None and out.features.ndim == 2:
            features.append(out.features.double().cpu())
    whole = torch.cat(features) if len(features) == len(scores) else None
    probabilities = torch.cat(scores).softmax(1)
    return Glance(probabilities=probabilities, features=whole, seconds=time.perf_counter() - start)


def transferability(seen: Glance, y: Tensor, classes: int) -> Found:
    """LEEP, NCE, H-score, LogME and kNN; the seconds of each hold the forward pass that it needs."""
    found = Found({}, {}, {})
    for name, needs in NEEDS.items():
        value = seen.probabilities if needs == "probabilities" else seen.features
        start = time.perf_counter()
        found.scores[name], found.missing[name] = _score(name, value, y, classes)
        found.seconds[name] = time.perf_counter() - start + seen.seconds
    found.missing = {name: reason for name, reason in found.missing.items() if reason}
    return found


def facts(source: Source, *, twin: bool = False) -> Found:
    """What is known of a source without running it: accuracy on its own data, size, depth, canvas, classes.

    Args:
        source: any.
        twin: it has random weights, so that its accuracy is not the one published.
    """
    spec = source.spec
    module = local_module(source)
    size = sum(p.numel() for p in module.parameters()) if module is not None else None
    found: dict[str, float | None] = {
        "source_accuracy": None if twin else spec.accuracy,
        "parameters": size,
        "depth": spec.depth or None,
        "canvas": spec.input_shape[-1] if spec.modality == "image" else None,
        "source_classes": spec.outputs,
    }
    why = {"source_accuracy": "random weights" if twin else "not published", "parameters": "no module to count",
           "depth": "not known", "canvas": "no image model", "source_classes": ""}  # fmt: skip
    missing = {name: why[name] for name, value in found.items() if value is None}
    return Found(found, dict.fromkeys(found, 0.0), missing)


def _score(name: str, value: Tensor | None, y: Tensor, classes: int) -> tuple[float | None, str]:
    if value is None:
        return None, "the source has no features: its scores do not come from a linear layer"
    try:
        return (scores.knn(value, y) if name == "knn" else getattr(scores, name)(value, y, classes)), ""
    except ReprogramError as problem:
        return None, str(problem)
