"""Answers of several parts: a class is a rule over the words at several places of a template (PTR)."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import precise


@final
class RuleVerbalizer(Output):
    """``y_t = sum over places m of log p_m(w_tm)``: class t is the words (w_t1, ..., w_tM), one a place.

    p_m is the softmax over the words that occur at place m in any class (Han et al. 2021, arXiv 2105.11259, section
    3.3), not over the vocabulary, so that a place at which all classes have one word does not count.

    Args:
        token_ids: M tokens for each of T classes.
        vocabulary: V, the number of scores.

    Raises:
        ConfigError: classes of different length, ids that are none of the vocabulary's, or two classes alike.

    >>> rules = RuleVerbalizer([(0, 2), (0, 3), (1, 3)], 4)
    >>> said = torch.zeros(1, 2, 4)
    >>> said[0, 1, 3] = 5.0
    >>> rules(SourceOutput(token_scores=said)).exp().tolist()
    [[0.0033..., 0.4966..., 0.4966...]]
    """

    alignment = Alignment.RULE_BASED
    words: Tensor
    allowed: Tensor

    def __init__(self, token_ids: Sequence[Sequence[int]], vocabulary: int) -> None:
        super().__init__()
        lengths = {len(ids) for ids in token_ids}
        if len(lengths) != 1 or 0 in lengths:
            raise ConfigError(say("token_ids", "must be as many words for every class, one or more", [*token_ids]))
        if len({tuple(ids) for ids in token_ids}) < len(token_ids):
            raise ConfigError(say("token_ids", "must differ between classes", [tuple(ids) for ids in token_ids]))
        if not all(0 <= i < vocabulary for ids in token_ids for i in ids):
            raise ConfigError(say("token_ids", f"must be tokens from 0 to {vocabulary - 1}", [*token_ids]))
        self.targets, self.places, self.vocabulary = len(token_ids), lengths.pop(), vocabulary
        by_place = [list(dict.fromkeys(ids[m] for ids in token_ids)) for m in range(self.places)]
        most = max(map(len, by_place))
        allowed = torch.tensor([[*found, *[-1] * (most - len(found))] for found in by_place])
        words = torch.tensor([[by_place[m].index(ids[m]) for m in range(self.places)] for ids in token_ids])
        # Known from the arguments, hence not saved: [M, most] tokens (-1 fills up), and [T, M] their numbers there.
        self.register_buffer("allowed", allowed, persistent=False)
        self.register_buffer("words", words, persistent=False)

    @property
    def reading(self) -> Reading:
        """Scores at all places of answers."""
        return Reading(tokens=True)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Log-probabilities of the rules."""
        said = output.token_scores
        if said is None or said.shape[1:] != (self.places, self.vocabulary):
            got = None if said is None else list(said.shape)
            remedy = f"The template must have {self.places} times {{mask}}."
            raise CapabilityError(say("output", f"must score {self.vocabulary} tokens at {self.places} places", got,
                                      remedy))  # fmt: skip
        index = self.allowed.clamp_min(0).expand(len(said), -1, -1)
        taken = precise(said).gather(2, index).masked_fill(self.allowed < 0, float("-inf"))
        chances = taken.log_softmax(-1)  # [B, M, most]
        each = chances.gather(2, self.words.T.expand(len(said), -1, -1))  # [B, M, T]
        return each.sum(1)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"targets={self.targets}, places={self.places}"
