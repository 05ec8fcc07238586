"""Verbalizers: label words whose scores in a language model are the classes' scores. Rules; nothing is learned."""

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput, TextSource
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import precise, source_scores
from reprogram.outputs.label_words import Words, tokenised_words

Combine = Literal["mean", "max", "sum"]


@final
class Verbalizer(Output):
    """``y_t = mean of z_v over the tokens v that stand for class t``, z the scores at the answer's place.

    Args:
        token_ids: the tokens of each class, one or more.
        vocabulary: V, the number of scores.
        combine: "mean" of the scores, their "max", or "sum" of the tokens' probabilities (the log of it).

    Raises:
        ConfigError: a class without tokens, ids that are none of the vocabulary's, or an unknown way to combine.

    >>> said = SourceOutput(torch.tensor([[1.0, 2.0, 6.0, 0.0]]))
    >>> Verbalizer([[0], [1, 2]], 4)(said).tolist(), Verbalizer([[0], [1, 2]], 4, "max")(said).tolist()
    ([[1.0, 4.0]], [[1.0, 6.0]])
    """

    alignment = Alignment.RULE_BASED
    index: Tensor
    present: Tensor

    def __init__(self, token_ids: Sequence[Sequence[int]], vocabulary: int, combine: Combine = "mean") -> None:
        super().__init__()
        _check_combine(combine)
        _check_ids(token_ids, vocabulary)
        self.vocabulary, self.targets = vocabulary, len(token_ids)
        self.combine: Combine = combine
        index, present = _padded(token_ids)
        # Known from the arguments, hence not saved.
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("present", present, persistent=False)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        scores = source_scores(output, self.vocabulary)
        taken = scores.index_select(1, self.index.flatten()).view(-1, *self.index.shape)
        return _combined(taken, self.present, self.combine)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"targets={self.targets}, combine={self.combine!r}"


@final
class ContinuationVerbalizer(Output):
    """``y_t = log-probability of class t's words after the prompt``, each divided by its number of tokens.

    For label words of several tokens, of models that write (causal and sequence to sequence).

    Args:
        continuations: token ids of each word of each class.
        combine: how several words of one class come together, see `Verbalizer`.
        normalise: divide by the number of tokens, without which long words have no chance.

    Raises:
        ConfigError: a class without words or a word without tokens, or an unknown way to combine.

    >>> words = ContinuationVerbalizer((((5,),), ((7, 8), (9,))))
    >>> words.reading.continuations
    ((5,), (7, 8), (9,))
    >>> words(SourceOutput(continuations=torch.tensor([[-1.0, -4.0, -3.0]]))).tolist()
    [[-1.0, -2.5]]
    """

    alignment = Alignment.RULE_BASED
    index: Tensor
    present: Tensor
    share: Tensor

    def __init__(
        self, continuations: Sequence[Sequence[Sequence[int]]], combine: Combine = "mean", *, normalise: bool = True
    ) -> None:
        super().__init__()
        _check_combine(combine)
        if not continuations or not all(words and all(words) for words in continuations):
            raise ConfigError(say("continuations", "must be words of one or more tokens for each class", continuations))
        self.targets, self.normalise = len(continuations), normalise
        self.combine: Combine = combine
        self._flat = tuple(tuple(word) for words in continuations for word in words)
        ends = torch.tensor([len(words) for words in continuations]).cumsum(0)
        numbers = [list(range(int(end) - len(words), int(end))) for end, words in zip(ends, continuations, strict=True)]
        index, present = _padded(numbers)
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("present", present, persistent=False)
        lengths = [len(word) if normalise else 1 for word in self._flat]
        self.register_buffer("share", 1 / torch.tensor(lengths), persistent=False)

    @property
    def reading(self) -> Reading:
        """All words of all classes."""
        return Reading(continuations=self._flat)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        said = output.continuations
        if said is None or said.shape[-1] != len(self._flat):
            got = None if said is None else list(said.shape)
            raise CapabilityError(say("output", f"must score {len(self._flat)} continuations", got))
        said = precise(said) * self.share
        return _combined(said[:, self.index], self.present, self.combine)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"targets={self.targets}, combine={self.combine!r}, normalise={self.normalise}"


def verbalizer(
    source: TextSource,
    task: TaskSpec,
    words: Words | None = None,
    *,
    after: str = "",
    combine: Combine = "mean",
    normalise: bool = True,
) -> Output:
    """The verbalizer that fits a source: one pass where every label word is one token, else continuations.

    A masked model has one place for the answer; of a word of several tokens it gets the mean of their scores there.

    Args:
        source: a language model.
        task: with classes.
        words: label words, see `label_words.words_of`; None for the class names.
        after: the text right before the answer, such as "Label:", which decides whether words start with a space.
        combine: how several words of one class come together.
        normalise: divide log-probabilities of words of several tokens by their number.

    Raises:
        CapabilityError: the source has no vocabulary to score (an encoder or a classifier).
        ConfigError: words that are missing, unknown, or the same for two classes.
    """
    found = tokenised_words(source, task, words, after=after)
    single = all(len(word) == 1 for several in found for word in several)
    if not single and source.kind != "masked":
        return ContinuationVerbalizer(found, combine, normalise=normalise)
    flat = [list(dict.fromkeys(token for word in several for token in word)) for several in found]
    alike = [name for name, ids in zip(task.classes, flat, strict=True) if [set(i) for i in flat].count(set(ids)) > 1]
    if alike:
        raise ConfigError(say("words", "must differ between classes in the source's tokens", alike))
    return Verbalizer(flat, source.spec.outputs, combine)


def _check_combine(combine: str) -> None:
    if combine not in ("mean", "max", "sum"):
        raise ConfigError(say("combine", "must be mean, max or sum", combine))


def _check_ids(token_ids: Sequence[Sequence[int]], vocabulary: int) -> None:
    for number, ids in enumerate(token_ids):
        if not ids or not all(0 <= i < vocabulary for i in ids) or len(set(ids)) < len(ids):
            need = f"must be one or more tokens from 0 to {vocabulary - 1}, each once"
            raise ConfigError(say(f"token_ids[{number}]", need, list(ids)))
    if not token_ids:
        raise ConfigError(say("token_ids", "must be for one class at least", list(token_ids)))


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """[T, most], filled up with 0, and where it is not filled up."""
    most = max(len(row) for row in rows)
    index = torch.tensor([[*row, *[0] * (most - len(row))] for row in rows])
    return index, torch.tensor([[i < len(row) for i in range(most)] for row in rows])


def _combined(taken: Tensor, present: Tensor, combine: Combine) -> Tensor:
    """[B, T, most] -> [B, T]."""
    if combine == "mean":
        share = present.to(taken.dtype) / present.sum(1, keepdim=True)
        return (taken * share).sum(-1)
    bare = taken.masked_fill(~present, float("-inf"))
    return bare.amax(-1) if combine == "max" else bare.logsumexp(-1)
