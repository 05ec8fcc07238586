"""How source classes are read as target classes, as rows for a table: the label map of an output."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError
from reprogram.core.program import Answering, Output, Program
from reprogram.core.source import SourceSpec, TextSource
from reprogram.outputs import Calibrated, ContinuationVerbalizer, Likelihood, Linear, TokenScores, Verbalizer

MOST_ROWS = 60
MOST_CELLS = 8


@runtime_checkable
class Folding(Protocol):
    """An output that can say its label map as a matrix."""

    def fold(self) -> Tensor:
        """[S, T]."""
        ...


class Cell(NamedTuple):
    """A source class in a target's row; `tint` is 0 to 1, below 0 for votes against."""

    label: str
    weight: str
    tint: float


class Row(NamedTuple):
    """A target class, its strongest source classes, and the share of all weight that they hold."""

    target: str
    cells: list[Cell]
    share: str


@dataclass(frozen=True, slots=True)
class LabelMap:
    """What a report shows of an output.

    Attributes:
        kind: "one-to-one", "shares" (weights of a target sum to 1), "weights" (signed), "words", or "none".
        text: a sentence on what it is.
        rows: of the first targets, in the task's order.
        left_out: targets without a row.
    """

    kind: str
    text: str
    rows: list[Row]
    left_out: int = 0

    @property
    def columns(self) -> int:
        """Cells of the fullest row."""
        return max((len(row.cells) for row in self.rows), default=0) or 1


@torch.no_grad()
def label_map(program: Program, classes: tuple[str, ...]) -> LabelMap:
    """Read a program's label map."""
    output, spec = program.output, program.source.spec
    found = _of_texts(output, program, classes)
    if found is not None:
        return found
    if output.reads_features:
        text = "The output reads the network's features, not its class scores, so there are no source classes to show."
        return LabelMap("none", text, [])
    matrix = _matrix(output)
    if matrix is None or tuple(matrix.shape) != (spec.outputs, len(classes)):
        return LabelMap("none", f"The output ({type(output).__name__}) is no table of source classes.", [])
    kind = _kind(matrix)
    chosen = matrix.T[:MOST_ROWS]
    scale = float(matrix.abs().max()) or 1.0
    rows = [_row(name, weights, spec, kind, scale) for name, weights in zip(classes, chosen, strict=False)]
    return LabelMap(kind, _TEXTS[kind], rows, max(0, len(classes) - MOST_ROWS))


def _of_texts(output: Output, program: Program, classes: tuple[str, ...]) -> LabelMap | None:
    """How answers are read off texts and scores of texts; None for other outputs."""
    if isinstance(output, Answering):
        told = f"{type(output).__name__}({output.extra_repr()})"
        return LabelMap("none", f"The answer is read by rule off what the source writes: {told}.", [])
    if isinstance(output, TokenScores):
        told = "The answer is what the source writes: its own scores of the next token, as they are."
        return LabelMap("none", told, [])
    likely = output.inner if isinstance(output, Calibrated) else output
    kind, words = "", list[list[str]]()
    if isinstance(likely, Likelihood):
        kind, owner = "likelihood", likely.owner.tolist()
        words = [
            [c for c, t in zip(likely.reading.choices, owner, strict=True) if t == k] for k in range(likely.targets)
        ]
    elif isinstance(output, (Verbalizer, ContinuationVerbalizer)) and isinstance(program.source, TextSource):
        kind, words = "words", _label_words(output, program.source)
    if not kind:
        return None
    rows = [
        Row(name, [Cell(w, "", 0.0) for w in mine[:MOST_CELLS]], "") for name, mine in zip(classes, words, strict=True)
    ]
    return LabelMap("words", _TEXTS[kind], rows[:MOST_ROWS], max(0, len(classes) - MOST_ROWS))


_TEXTS = {
    "one-to-one": "Each target class is read from one source class: the score of the source class is the target's.",
    "shares": "Each target's score is a weighted mean of source scores. The source classes with the most weight are "
    "shown, the heaviest first; a deeper tint is more weight.",
    "words": "Each class is read from label words: its score is what the source gives them where the answer goes.",
    "likelihood": "Each class is read from label words: its score is the log-probability that the source gives them "
    "after the prompt, less what calibration found they get anyway.",
    "weights": "Each target's score is a weighted sum of source scores, in standard deviations of each source score "
    "where the layer standardises them. The largest weights are shown: blue speaks for the target, orange against it.",
}


def _label_words(output: Verbalizer | ContinuationVerbalizer, source: TextSource) -> list[list[str]]:
    """The words of each class, in the source's tokens."""
    if isinstance(output, Verbalizer):
        return [
            [source.decode([int(token)]) for token in ids[there]]
            for ids, there in zip(output.index.cpu(), output.present.cpu(), strict=True)
        ]
    flat = [source.decode(word) for word in output.reading.continuations]
    return [
        [flat[int(place)] for place in places[there]]
        for places, there in zip(output.index.cpu(), output.present.cpu(), strict=True)
    ]


def _matrix(output: Output) -> Tensor | None:
    if isinstance(output, Linear):
        return output.weight.detach().T.cpu()
    try:
        return output.fold().detach().cpu() if isinstance(output, Folding) else None
    except ConfigError:  # an identity of unknown size
        return None


def _kind(matrix: Tensor) -> str:
    used = (matrix != 0).sum(0)
    if bool((used == 1).all()) and bool((matrix.max(0).values == 1).all()):
        return "one-to-one"
    sums = matrix.sum(0)
    mean = (matrix >= 0).all() and ((sums - 1).abs() < 1e-3).logical_or(sums == 0).all()
    return "shares" if bool(mean) else "weights"


def _row(target: str, weights: Tensor, spec: SourceSpec, kind: str, scale: float) -> Row:
    found = weights.abs().topk(1 if kind == "one-to-one" else min(MOST_CELLS, len(weights))).indices.tolist()
    used = [place for place in found if weights[place] != 0]
    cells = [Cell(spec.label(p), _weight(float(weights[p]), kind), float(weights[p]) / scale) for p in used]
    share = f"{100 * float(weights[used].sum()):.0f} %" if kind == "shares" and used else ""
    return Row(target, cells, share)


def _weight(value: float, kind: str) -> str:
    return f"{100 * value:.1f} %" if kind == "shares" else f"{value:+.3f}".replace("-", "−")
