"""Answers read off texts: of one text by rule, or of several by a vote. Nothing is learned.

Texts are parsed (`outputs.parsing`); one that cannot be is no vote and no right answer, and is counted. The vote is
that of Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models", 2022, arXiv:2203.11171
(section 2): the answer that most texts end with, or, with weights, that with the greatest sum of the texts' mean token
probabilities. Ties go to the answer whose texts are together likeliest, then to the earliest.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, DataError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.core.writing import Answer, Writing, Written
from reprogram.outputs.arithmetic import recomputed
from reprogram.outputs.parsing import Failure, Parser

Weights = Literal["votes", "probability"]

LITTLE = 1e-3
"""Added to each class's votes, so that their logarithms are finite."""


@final
@dataclass(frozen=True, slots=True)
class Ballot:
    """One text's vote.

    Attributes:
        value: its answer; None if it could not be read, which is no vote.
        weight: of the vote.
        logprob: of the text, nats; None where the source does not say. Decides ties.
    """

    value: str | None
    weight: float = 1.0
    logprob: float | None = None


@final
@dataclass(frozen=True, slots=True)
class Tally:
    """The outcome of a vote.

    Attributes:
        shares: of the votes' weight for each answer, the winner first, then in order of weight.
        unparsable: texts without a vote.
    """

    shares: tuple[tuple[str, float], ...]
    unparsable: int

    @property
    def winner(self) -> str | None:
        """The answer; None if nobody voted."""
        return self.shares[0][0] if self.shares else None

    @property
    def margin(self) -> float:
        """By how much of the votes the winner is ahead of the next; 0 if nobody voted."""
        first, second = (*(share for _, share in self.shares), 0.0, 0.0)[:2]
        return first - second

    @property
    def entropy(self) -> float:
        """Of the shares, nats: 0 if all agree."""
        return -sum(share * math.log(share) for _, share in self.shares if share > 0) + 0.0


def vote(ballots: Sequence[Ballot]) -> Tally:
    """Count the votes.

    >>> vote([Ballot("7"), Ballot(None), Ballot("8", logprob=-2.0), Ballot("7")])
    Tally(shares=(('7', 0.6666666666666666), ('8', 0.3333333333333333)), unparsable=1)
    >>> vote([Ballot("7", logprob=-3.0), Ballot("8", logprob=-2.0)]).winner, vote([Ballot("7"), Ballot("8")]).winner
    ('8', '7')
    """
    groups: dict[str, list[Ballot]] = {}
    for one in ballots:
        if one.value is not None:
            groups.setdefault(one.value, []).append(one)
    weights = {value: math.fsum(b.weight for b in group) for value, group in groups.items()}
    whole = math.fsum(weights.values())
    order = sorted(groups, key=lambda value: (-weights[value], -_log_probability(groups[value])))
    shares = tuple((value, weights[value] / whole if whole else 1 / len(groups)) for value in order)
    return Tally(shares, sum(b.value is None for b in ballots))


def decided(votes: Sequence[int], left: int) -> bool:
    """Whether the leader of a vote cannot be caught up with by `left` more votes, so that sampling may stop.

    A tie would be settled by probability, so the leader must stay ahead.

    >>> decided([5, 2], 2), decided([5, 2], 3), decided([3], 2), decided([], 1)
    (True, False, True, False)
    """
    first, second = (*sorted(votes, reverse=True), 0, 0)[:2]
    return first > second + left


def majority_at(votes: Sequence[int], right: int | None, abstained: int, k: int) -> float:
    """How likely the majority of k of the texts, drawn without replacement, is right: maj@k over all subsets.

    Of n texts at hand this is the mean over all ``C(n, k)`` subsets, where taking the first k would be one of them. A
    tie between m answers counts 1/m if the right one is among them.

    Args:
        votes: for each answer.
        right: index in `votes` of the right one; None if nobody gave it.
        abstained: texts without a vote.
        k: texts in a subset.

    Raises:
        ConfigError: there are not k texts, or there is no such answer.

    >>> majority_at([2, 1], right=0, abstained=0, k=1), majority_at([2, 1], 0, 0, 3), majority_at([2, 1], None, 0, 3)
    (0.6666666666666666, 1.0, 0.0)
    """
    n = sum(votes) + abstained
    if not 1 <= k <= n:
        raise ConfigError(say("k", f"must be from 1 to {n}, the texts there are", k))
    if right is None:
        return 0.0
    if not 0 <= right < len(votes):
        raise ConfigError(say("right", f"must be an index of the {len(votes)} answers, or None", right))
    others = [count for i, count in enumerate(votes) if i != right]
    total = Fraction(0)
    for mine in range(1, min(k, votes[right]) + 1):
        ways = _others(others, abstained, mine, k - mine)
        total += comb(votes[right], mine) * sum(Fraction(count, tied + 1) for tied, count in enumerate(ways))
    return float(total / comb(n, k))


@final
class ParsedText(Output):
    """The answer in the one text that the source wrote, or that a conversation ended with.

    Args:
        parser: finds it.
        classes: T names; none for generation.
        writing: what the source is asked for; None where the input has a conversation with it.
        calculator: recompute the equations of the text first.

    Raises:
        ConfigError: several samples, of which one answer cannot be read by rule alone.

    >>> said = SourceOutput(written=((Written(text="The answer is B."),), (Written(text="Well."),)))
    >>> output = ParsedText(Parser(kind="choice", choices=(("A", "A"), ("B", "B"))), ("A", "B"))
    >>> [answer.value for answer in output.answers(said)], output(said).argmax(1).tolist()
    (['B', None], [1, 0])
    """

    alignment = Alignment.RULE_BASED

    def __init__(
        self, parser: Parser, classes: Sequence[str] = (), writing: Writing | None = None, *, calculator: bool = False
    ) -> None:
        super().__init__()
        if writing is not None and writing.samples > 1:
            raise ConfigError(say("samples", "must be 1 without a vote", writing.samples))
        self.parser, self.classes, self.writing, self.calculator = parser, tuple(classes), writing, calculator

    @property
    def reading(self) -> Reading:
        """One text."""
        return Reading(writing=self.writing)

    def answers(self, output: SourceOutput) -> tuple[Answer, ...]:
        """One for each input."""
        return tuple(self._answer(texts[0]) for texts in _written(output))

    def canonical(self, target: str) -> str:
        """See `Parser.canonical`."""
        return self.parser.canonical(target)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Logarithms of one vote and a little for the others; for generation, [B, 1], 1 where there is an answer."""
        rows = [((a.value, 1.0),) if a.value is not None else () for a in self.answers(output)]
        return _scores(rows, self.classes)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"kind={self.parser.kind!r}, classes={len(self.classes)}, calculator={self.calculator}"

    def _answer(self, text: Written) -> Answer:
        value, reason = read(text, self.parser, recomputed if self.calculator else None)
        return Answer(value=value, reason=reason, share=float(value is not None), unparsable=int(value is None))


@final
class Voted(Output):
    """The answer that most of the texts that the source wrote end with.

    Args:
        parser: finds each text's answer.
        classes: T names; none for generation.
        writing: what the source is asked for, with its number of samples.
        weights: "votes" count alike; "probability" weighs each by ``exp(mean log-probability of its tokens)``.
        calculator: recompute the equations of each text first.

    Raises:
        ConfigError: weights that are none.
        CapabilityError: when answers are read, weights by probability of a source that does not tell it.

    >>> texts = [Written(text=f"The answer is {n}.") for n in (7, 8, 7)] + [Written(text="Hm.")]
    >>> output = Voted(Parser(kind="number"))
    >>> output.answers(SourceOutput(written=(tuple(texts),)))
    (Answer(value='7', reason='', share=0.6666666666666666, unparsable=1),)
    """

    alignment = Alignment.STATISTICAL

    def __init__(
        self,
        parser: Parser,
        classes: Sequence[str] = (),
        writing: Writing | None = None,
        *,
        weights: Weights = "votes",
        calculator: bool = False,
    ) -> None:
        super().__init__()
        if weights not in ("votes", "probability"):
            raise ConfigError(say("weights", "must be votes or probability", weights))
        self.parser, self.classes, self.writing = parser, tuple(classes), writing
        self.weights: Weights = weights
        self.calculator = calculator

    @property
    def reading(self) -> Reading:
        """All samples."""
        return Reading(writing=self.writing)

    def ballots(self, output: SourceOutput) -> tuple[tuple[Ballot, ...], ...]:
        """Every text's vote, for `majority_at` and other counts."""
        return tuple(tuple(self._ballot(text) for text in texts) for texts in _written(output))

    def tallies(self, output: SourceOutput) -> tuple[Tally, ...]:
        """The outcome for each input, with its margin and entropy."""
        return tuple(vote(ballots) for ballots in self.ballots(output))

    def answers(self, output: SourceOutput) -> tuple[Answer, ...]:
        """One for each input; its share is of the votes' weight."""
        return tuple(_elected(tally) for tally in self.tallies(output))

    def canonical(self, target: str) -> str:
        """See `Parser.canonical`."""
        return self.parser.canonical(target)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Logarithms of the classes' shares of the votes and a little; for generation, [B, 1], the winner's share."""
        return _scores([tally.shares for tally in self.tallies(output)], self.classes)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        kind = f"kind={self.parser.kind!r}, classes={len(self.classes)}"
        return f"{kind}, weights={self.weights!r}, calculator={self.calculator}"

    def _ballot(self, text: Written) -> Ballot:
        value, _ = read(text, self.parser, recomputed if self.calculator else None)
        if self.weights == "votes":
            return Ballot(value, 1.0, text.logprob)
        if text.logprob is None:
            raise CapabilityError(say("source", "must tell the probability of its texts for weighted votes", None,
                                      'Use weights="votes".'))  # fmt: skip
        return Ballot(value, math.exp(text.logprob / max(1, text.tokens)), text.logprob)


def read(
    text: Written, parser: Parser, calculator: Callable[[str], str] | None = None
) -> tuple[str | None, str]:  # fmt: skip
    """(answer, "") of a text, or (None, why there is none); a conversation that was cut short says so itself."""
    found = parser.parse(calculator(text.text) if calculator is not None else text.text)
    if not isinstance(found, Failure):
        return found.value, ""
    return None, text.reason if text.finish in ("budget", "error") and text.reason else found.reason


def _elected(tally: Tally) -> Answer:
    if tally.winner is None:
        return Answer(value=None, reason=f"none of {tally.unparsable} texts could be read", share=0.0,
                      unparsable=tally.unparsable)  # fmt: skip
    return Answer(value=tally.winner, share=tally.shares[0][1], unparsable=tally.unparsable)


def _log_probability(group: Sequence[Ballot]) -> float:
    """Of all texts of an answer together, ``log sum of exp``; the lowest there is if any of them does not say."""
    known = [b.logprob for b in group if b.logprob is not None]
    if len(known) < len(group):
        return -math.inf
    top = max(known)
    return top + math.log(math.fsum(math.exp(one - top) for one in known))


def _written(output: SourceOutput) -> tuple[tuple[Written, ...], ...]:
    if output.written is None or not all(output.written):
        raise CapabilityError(say("output", "must come with a text for each input", None, "Use a source that writes."))
    return output.written


def _scores(rows: Sequence[Sequence[tuple[str, float]]], classes: Sequence[str]) -> Float[Tensor, " batch target"]:
    """[B, T] from (answer, share) pairs, the winner first: it has the highest score also where shares are equal."""
    if not classes:
        return torch.tensor([[row[0][1] if row else 0.0] for row in rows])
    index = {name: i for i, name in enumerate(classes)}
    made = torch.full((len(rows), len(classes)), LITTLE)
    for b, row in enumerate(rows):
        for place, (value, share) in enumerate(row):
            if value not in index:
                raise DataError(say("answer", f"must be one of the classes {list(classes)}", value))
            made[b, index[value]] += share + (0.0 if place else LITTLE)
    return made.log()


def _others(votes: Sequence[int], abstained: int, mine: int, rest: int) -> list[int]:
    """Ways to draw `rest` texts from the others with at most `mine` for each answer, by how many have just as many."""
    ways: dict[tuple[int, int], int] = {(i, 0): comb(abstained, i) for i in range(min(abstained, rest) + 1)}
    for count in votes:
        grown: dict[tuple[int, int], int] = {}
        for (drawn, tied), number in ways.items():
            for take in range(min(count, mine, rest - drawn) + 1):
                key = (drawn + take, tied + (take == mine))
                grown[key] = grown.get(key, 0) + number * comb(count, take)
        ways = grown
    most = max((tied for _, tied in ways), default=0)
    return [ways.get((rest, tied), 0) for tied in range(most + 1)]
