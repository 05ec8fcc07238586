"""Rule-based alignments: which source classes stand for which target is written down, not learned or counted."""

import difflib
from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._checks import check_one_to_one
from reprogram.outputs._scores import source_scores


@final
class FirstClasses(Output):
    """Source class t stands for target t: ``y_t = z_t`` for the first T of S source classes.

    The rule of adversarial reprogramming (Elsayed et al. 2019, arXiv 1806.11146) and of visual prompting on
    classifiers (Bahng et al. 2022, arXiv 2203.17274). Any other rule about what classes mean: `NamedClasses`.

    Args:
        sources: S.
        targets: T, at most S.
        log_probabilities: give ``log softmax(z)_t`` with the softmax over all S classes, so that a loss on these
            numbers (Elsayed's) also counts the probability that goes to none of the targets.

    Raises:
        ConfigError: S or T is below 1, or T is above S.

    >>> FirstClasses(3, 2)(SourceOutput(torch.tensor([[1.0, 2.0, 3.0]]))).tolist()
    [[1.0, 2.0]]
    """

    alignment = Alignment.RULE_BASED

    def __init__(self, sources: int, targets: int, log_probabilities: bool = False) -> None:
        super().__init__()
        check_one_to_one(sources, targets, 1)
        self.sources, self.targets, self.log_probabilities = sources, targets, log_probabilities

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """The first T scores, or log-probabilities."""
        return _scores(output, self.sources, self.log_probabilities)[:, : self.targets]

    def fold(self) -> Float[Tensor, " source target"]:
        """[S, T], ones on the diagonal; for log-probabilities it is to be multiplied with ``log_softmax(scores)``."""
        return torch.eye(self.sources, self.targets)

    def offset(self) -> Float[Tensor, " target"]:
        """Zeros [T], what is to be added to ``scores @ fold()``."""
        return torch.zeros(self.targets)


@final
class NamedClasses(Output):
    """Target t is the mean of the source classes that are named for it: ``y_t = mean of z_s over s named for t``.

    Args:
        source_labels: the source's class names, S of them, in its order.
        mapping: for each target, in the order of the task's classes, a source class name or several. A name that
            the source has twice (ImageNet has two cranes) is said by number: "#134".
        log_probabilities: means of ``log softmax(z)`` over all S classes instead.

    Raises:
        ConfigError: a name is not among the source's, or not alone there, or twice or not at all for one target.

    >>> pets = NamedClasses(["tabby", "beagle", "boxer"], {"cat": "tabby", "dog": ["beagle", "boxer"]})
    >>> pets(SourceOutput(torch.tensor([[5.0, 1.0, 2.0]]))).tolist()
    [[5.0, 1.5]]
    """

    alignment = Alignment.RULE_BASED
    index: Tensor
    share: Tensor

    def __init__(
        self,
        source_labels: Sequence[str],
        mapping: Mapping[str, str | Sequence[str]],
        log_probabilities: bool = False,
    ) -> None:
        super().__init__()
        if not mapping:
            raise ConfigError(say("mapping", "must name source classes for at least one target", dict(mapping)))
        rows = [_find(source_labels, target, names) for target, names in mapping.items()]
        self.sources, self.targets, self.log_probabilities = len(source_labels), len(rows), log_probabilities
        most = max(len(row) for row in rows)
        # Known from the arguments, hence not saved. Short rows are filled up with class 0 at a share of 0.
        index = torch.tensor([row + [0] * (most - len(row)) for row in rows])
        share = torch.tensor([[1 / len(row)] * len(row) + [0.0] * (most - len(row)) for row in rows])
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("share", share, persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Means of scores, or of log-probabilities."""
        scores = _scores(output, self.sources, self.log_probabilities)
        taken = scores.index_select(1, self.index.flatten()).view(-1, *self.index.shape)
        return (taken * self.share.to(scores.dtype)).sum(-1)

    def fold(self) -> Float[Tensor, " source target"]:
        """[S, T], a column of shares for each target; for log-probabilities see `FirstClasses.fold`."""
        matrix = self.share.new_zeros(self.sources, self.targets)
        return matrix.scatter_add_(0, self.index.T, self.share.T)

    def offset(self) -> Float[Tensor, " target"]:
        """Zeros [T], what is to be added to ``scores @ fold()``."""
        return self.share.new_zeros(self.targets)


def _scores(output: SourceOutput, sources: int, log_probabilities: bool) -> Tensor:
    scores = source_scores(output, sources)
    return scores.log_softmax(-1) if log_probabilities else scores


def _find(labels: Sequence[str], target: str, names: str | Sequence[str]) -> list[int]:
    """The numbers of the source classes named for one target."""
    several = [names] if isinstance(names, str) else list(names)
    found = [_number(labels, name, target) for name in several]
    if not found or len(set(found)) < len(found):
        raise ConfigError(say(f"mapping[{target!r}]", "must name one or more source classes, each once", several))
    return found


def _number(labels: Sequence[str], name: str, target: str) -> int:
    places = [i for i, label in enumerate(labels) if label == name]
    if len(places) == 1:
        return places[0]
    if len(places) > 1:
        remedy = f"Write one of {[f'#{i}' for i in places]}."
        raise ConfigError(say(f"mapping[{target!r}]", "must be a name that one source class has alone", name, remedy))
    if name.startswith("#") and name[1:].isdecimal() and int(name[1:]) < len(labels):
        return int(name[1:])
    known = {label.lower(): label for label in labels}
    near = [known[n] for n in difflib.get_close_matches(name.lower(), list(known), n=3)]
    remedy = f"Nearest: {near}." if near else f"There are {len(labels)}, the first are {list(labels[:3])}."
    raise ConfigError(say(f"mapping[{target!r}]", "must be a class name of the source", name, remedy))
