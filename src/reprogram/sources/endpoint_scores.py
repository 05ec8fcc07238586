"""Scores of choices by what a server gives: a ladder whose rungs are tried from the best one that it can stand on.

    echo     the log-probabilities of the tokens of prompt and choice: exact, one request for each choice
    steps    the likeliest next tokens: one request for a prompt, and more only where choices begin alike; exact for
             choices that are one token and among the likeliest
    writing  no probabilities: how often the source writes each choice when it is made or asked to; never exact

With "auto", a prompt is first asked for its next tokens; where that does not give exact scores and the server can echo,
it is asked for these. Both are exact, so that a prompt's scores do not depend on which one it was.

A server's tokens are its own business: they are found by the bytes that it says they have.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, DataError, say
from reprogram.core.writing import Grammar, Writing, Written
from reprogram.sources.endpoint_asking import Asker, Question, Reply
from reprogram.sources.endpoint_client import Route
from reprogram.sources.endpoint_messages import Prompt, first_step
from reprogram.sources.endpoint_probe import Facts, echo_fault, echoed, step_fault

Rung = Literal["echo", "steps", "writing"]
Scoring = Literal["auto", "echo", "steps", "writing"]
SAMPLES = 16
"""Texts that are written for a prompt where nothing better is to be had."""

DEEPEST = 16
_FEW = 5
_log = logging.getLogger("reprogram")


@final
@dataclass(frozen=True, slots=True)
class Score:
    """Of one choice: log-probability in nats, how many tokens it was, and whether it is no stand-in."""

    value: float
    tokens: int
    exact: bool = True


Row = list[Score]
Write = Callable[[Sequence[Prompt], Writing], list[tuple[Written, ...]]]


@final
class Scorer:
    """Scores choices by the ladder.

    Args:
        asker: of the model.
        facts: what it can do.
        scoring: the rung to stand on; "auto" for the best one.
        write: has it write, under a grammar or freely.
        grammar: it can be made to write one of some choices.
    """

    def __init__(
        self, asker: Asker, facts: Facts, scoring: Scoring, write: Write, grammar: Callable[[Route], bool]
    ) -> None:
        self.asker, self.facts = asker, facts
        self.scoring: Scoring = scoring
        self.used: list[Rung] = []
        self._write, self._grammar = write, grammar
        self._long: set[tuple[str, ...]] = set()
        self._complained = False

    def __call__(self, prompts: Sequence[Prompt], choices: tuple[str, ...]) -> list[Row]:
        """A row of scores for each prompt.

        Raises:
            CapabilityError: they cannot be had.
            DataError: a choice is empty, or a token lies across the end of the prompt.
        """
        if not all(choices):
            raise DataError(say("choices", "must be texts that are not empty", list(choices)))
        found: list[Row | None] = [None] * len(prompts)
        for route in ("completions", "chat"):
            rows = [i for i, prompt in enumerate(prompts) if prompt.route == route]
            if rows:
                for i, row in zip(rows, self._scored(route, [prompts[i] for i in rows], choices), strict=True):
                    found[i] = row
        return [row for row in found if row is not None]

    @property
    def gives_probabilities(self) -> bool:
        """Scores are log-probabilities, on one route at least."""
        facts = self.facts
        return self.scoring != "writing" and (facts.echo or facts.top_completions + facts.top_chat > 0)

    def rungs(self, route: Route) -> list[Rung]:
        """Those that can be stood on for prompts of a route, the cheapest exact one first."""
        can: list[Rung] = []
        if self.facts.top(route):
            can.append("steps")
        if self.facts.echo and route == "completions":
            can.append("echo")
        if self.scoring == "auto":
            return can or ["writing"]
        rung: Rung = self.scoring
        if rung != "writing" and rung not in can:
            remedy = f"It has {', '.join(can) or 'no log-probabilities'} here; scoring=auto takes what there is."
            raise CapabilityError(say("scoring", f"must be one that the server can do on its {route} route",
                                      rung, remedy))  # fmt: skip
        return [rung]

    def _scored(self, route: Route, prompts: list[Prompt], choices: tuple[str, ...]) -> list[Row]:
        rungs = self.rungs(route)
        if rungs == ["steps", "echo"]:
            return self._steps_then_echo(prompts, choices)
        self._note(rungs[0])
        if rungs[0] == "echo":
            return by_echo(self.asker, prompts, choices)
        if rungs[0] == "steps":
            return by_steps(self.asker, prompts, self._spaced(route, choices), self.facts)
        return self._by_writing(route, prompts, choices)

    def _note(self, rung: Rung) -> None:
        if rung not in self.used:
            self.used.append(rung)

    def _spaced(self, route: Route, choices: tuple[str, ...]) -> tuple[str, ...]:
        """An answer in a chat begins without the space that a choice has after a text."""
        return tuple(choice.lstrip() or choice for choice in choices) if route == "chat" else choices

    def _steps_then_echo(self, prompts: list[Prompt], choices: tuple[str, ...]) -> list[Row]:
        rows: list[Row | None] = [None] * len(prompts)
        if choices not in self._long:
            self._note("steps")
            rows = [row if all(s.exact for s in row) else None
                    for row in by_steps(self.asker, prompts, choices, self.facts, first_only=True)]  # fmt: skip
        left = [i for i, row in enumerate(rows) if row is None]
        if 2 * len(left) > len(prompts):
            self._long.add(choices)  # of several tokens, most likely: later prompts need no first question
        if left:
            self._note("echo")
            for i, row in zip(left, by_echo(self.asker, [prompts[i] for i in left], choices), strict=True):
                rows[i] = row
        return [row for row in rows if row is not None]

    def _by_writing(self, route: Route, prompts: list[Prompt], choices: tuple[str, ...]) -> list[Row]:
        bare = tuple(choice.strip() for choice in choices)
        longest = max(len(choice.encode()) for choice in bare) + 4
        if self._grammar(route) and not any("\n" in choice for choice in bare):
            grammar = Grammar(kind="choice", text="\n".join(bare))
            texts = self._write(prompts, Writing(tokens=longest + 16, grammar=grammar))
        else:
            texts = self._write(prompts, Writing(tokens=longest, samples=SAMPLES, temperature=1.0))
        rows = [frequencies([one.text for one in row], bare) for row in texts]
        self._complain(sum(len({score.value for score in row}) == 1 for row in rows), len(rows))
        return rows

    def _complain(self, undecided: int, prompts: int) -> None:
        if undecided and not self._complained and prompts:
            self._complained = True
            _log.warning("After %d of %d prompts the source wrote none of the choices, or all alike; their scores are "
                         "equal. Say in the prompt what to answer with.", undecided, prompts)  # fmt: skip


def by_echo(asker: Asker, prompts: Sequence[Prompt], choices: Sequence[str]) -> list[Row]:
    """Rung "echo": the sum over the tokens of each choice, tokenised together with the prompt.

    Raises:
        CapabilityError: the numbers in a reply cannot be believed.
        DataError: a token lies across the end of a prompt.
    """
    asked = {"max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
    pairs = [(prompt, choice) for prompt in prompts for choice in choices]
    questions = [
        Question(prompt.route, prompt.body(choice) | asked, check=_Echo(prompt.text + choice).check)
        for prompt, choice in pairs
    ]
    scores = [
        tail_score(echoed(reply, prompt.text + choice), prompt.text, choice)
        for (prompt, choice), reply in zip(pairs, asker.ask(questions), strict=True)
    ]
    width = len(choices)
    return [scores[start : start + width] for start in range(0, len(scores), width)]


@final
@dataclass(frozen=True, slots=True)
class _Echo:
    """Tells whether the echo of a text can be believed."""

    text: str

    def check(self, reply: Reply) -> None:
        fault = echo_fault(reply, self.text)
        tokens = echoed(reply, self.text)
        if fault is not None and len(tokens) < _FEW and fault.startswith("all"):
            fault = None  # few tokens may well be certain, or equally likely
        if fault is not None:
            remedy = "Set scoring=steps or scoring=writing."
            raise CapabilityError(say("endpoint", "must echo a prompt with its log-probabilities", fault, remedy))


def tail_score(tokens: Sequence[tuple[bytes, float | None]], prompt: str, choice: str) -> Score:
    """The score of the tokens at the end that make up a choice.

    Raises:
        DataError: a token begins before it and ends in it.

    >>> tail_score([(b"It", None), (b" was", -2.0), (b" go", -1.0), (b"od", -0.5)], "It was", " good")
    Score(value=-1.5, tokens=2, exact=True)
    """
    wanted = len(choice.encode())
    total, count = 0.0, 0
    for token, value in reversed(tokens):
        if wanted <= 0:
            break
        wanted -= len(token)
        total, count = total + (value or 0.0), count + 1
    if wanted != 0:
        remedy = "End the prompt without a space and begin the choices with one, as tokens mostly do."
        raise DataError(say("choice", f"must begin where a token does after the prompt {prompt[-20:]!r}",
                            choice, remedy))  # fmt: skip
    return Score(total, count)


@final
@dataclass(slots=True)
class _Node:
    """Choices of one prompt that have begun alike so far."""

    row: int
    said: bytes
    value: float
    depth: int
    choices: list[int] = field(default_factory=list[int])


def by_steps(
    asker: Asker, prompts: Sequence[Prompt], choices: Sequence[str], facts: Facts, *, first_only: bool = False
) -> list[Row]:
    """Rung "steps": the likeliest next tokens, and on where choices begin with the same one.

    A choice that no other begins alike has the log-probability of its first token or tokens, which is exact if they are
    all of it. A choice that is not among the likeliest has at most the probability of the least likely of them, and at
    most what they leave over: it gets that as a stand-in, which keeps the order right.

    Args:
        asker: of the model.
        prompts: all of one route.
        choices: as they follow a prompt.
        facts: what the server gives.
        first_only: take no second step; scores that would need it are not exact.

    Raises:
        CapabilityError: choices cannot be told apart, or none of them is among the likeliest.
    """
    data = [choice.encode() for choice in choices]
    rows: list[list[Score | None]] = [[None] * len(data) for _ in prompts]
    nodes = [_Node(i, b"", 0.0, 0, list(range(len(data)))) for i in range(len(prompts))]
    while nodes:
        asked = [Question(prompts[n.row].route, _step(prompts[n.row], n.said, facts)) for n in nodes]
        later: list[_Node] = []
        for node, reply in zip(nodes, asker.ask(asked), strict=True):
            step = first_step(reply["choices"][0])
            fault = step_fault(reply) if len(step) > 1 else None
            if not step or fault:
                raise CapabilityError(say("endpoint", "must give the likeliest tokens", fault or "none"))
            groups, missing = _sorted(node, step, data)
            if not groups and not first_only:
                raise CapabilityError(_none_likely(choices, node, len(step)))
            for i in missing:
                rows[node.row][i] = Score(node.value + _bound(step), node.depth + 1, exact=False)
            for token, members in groups.items():
                later += _grown(node, token, step[token], members, data, rows[node.row])
        if later and (first_only or prompts[0].route == "chat"):
            _stop_here(later, rows, first_only, choices)
            break
        nodes = later
    return [[score if score is not None else Score(-math.inf, 1, exact=False) for score in row] for row in rows]


def _step(prompt: Prompt, said: bytes, facts: Facts) -> dict[str, Any]:
    try:
        body = prompt.body(said.decode())
    except UnicodeDecodeError as problem:
        msg = say("choices", "must differ before a token ends within a character, which cannot be sent", said)
        raise CapabilityError(msg) from problem
    if prompt.route == "chat":
        return body | {facts.limit: 1, "temperature": 0.0, "logprobs": True, "top_logprobs": facts.top_chat}
    return body | {"max_tokens": 1, "temperature": 0.0, "logprobs": facts.top_completions}


def _sorted(node: _Node, step: dict[bytes, float], data: Sequence[bytes]) -> tuple[dict[bytes, list[int]], list[int]]:
    """The choices by the longest of the likeliest tokens that they go on with; and those without any.

    Single spaces are no beginning: all choices have one, and no tokenizer would split it off.
    """
    groups: dict[bytes, list[int]] = {}
    missing: list[int] = []
    for i in node.choices:
        rest = data[i][len(node.said) :]
        fitting = [token for token in step if token and rest.startswith(token) and (token.strip() or token == rest)]
        if fitting:
            groups.setdefault(max(fitting, key=len), []).append(i)
        else:
            missing.append(i)
    return groups, missing


def _bound(step: dict[bytes, float]) -> float:
    """The most that a token which is not among the likeliest can have."""
    left = 1.0 - sum(math.exp(v) for v in step.values())
    return min(*step.values(), math.log(max(left, 1e-12)))


def _grown(
    node: _Node, token: bytes, value: float, members: list[int], data: Sequence[bytes], row: list[Score | None]
) -> list[_Node]:
    """Score the choices that are decided by this token; the others go on."""
    said, total, depth = node.said + token, node.value + value, node.depth + 1
    open_ones = [i for i in members if len(data[i]) > len(said)]
    for i in members:
        if i not in open_ones:
            row[i] = Score(total, depth)
    if not open_ones:
        return []
    if len(members) == 1:
        row[open_ones[0]] = Score(total, depth, exact=False)
        return []
    if depth >= DEEPEST:
        raise CapabilityError(say("choices", f"must differ within {DEEPEST} tokens", said))
    return [_Node(node.row, said, total, depth, open_ones)]


def _stop_here(
    nodes: Sequence[_Node], rows: list[list[Score | None]], first_only: bool, choices: Sequence[str]
) -> None:  # fmt: skip
    """Where no second step is to be had."""
    for node in nodes:
        if not first_only:
            remedy = "Choose words that begin differently, such as A and B."
            alike = [choices[i] for i in node.choices]
            raise CapabilityError(say("choices", "must differ in their first token on a chat route", alike, remedy))
        for i in node.choices:
            rows[node.row][i] = Score(node.value, node.depth, exact=False)


def _none_likely(choices: Sequence[str], node: _Node, count: int) -> str:
    got = [choices[i] for i in node.choices]
    remedy = "Show the source examples, choose words that it would write, or set scoring=writing."
    return say("choices", f"must be among the {count} likeliest tokens, one of them at least", got, remedy)


def frequencies(texts: Sequence[str], choices: Sequence[str]) -> Row:
    """Rung "writing": logarithms of how often each choice begins a text, half a time added to each.

    >>> [round(s.value, 3) for s in frequencies(["Yes.", "yes", "Maybe"], ["yes", "no"])]
    [-0.182, -1.792]
    """
    counts = [0.5] * len(choices)
    longest_first = sorted(range(len(choices)), key=lambda i: -len(choices[i]))
    for text in texts:
        said = text.strip().casefold()
        found = next((i for i in longest_first if _begins(said, choices[i].casefold())), None)
        if found is not None:
            counts[found] += 1
    return [Score(math.log(count / sum(counts)), 1, exact=False) for count in counts]


def _begins(text: str, word: str) -> bool:
    """Not with the beginning of a longer word."""
    return text.startswith(word) and not (word[-1:].isalnum() and text[len(word) :][:1].isalnum())


def tensors(rows: Sequence[Row], choices: int) -> tuple[Tensor, Tensor, bool]:
    """Scores and numbers of tokens, [rows, choices], and whether all are exact."""
    values = torch.tensor([[s.value for s in row] for row in rows], dtype=torch.float32).reshape(-1, choices)
    counts = torch.tensor([[s.tokens for s in row] for row in rows], dtype=torch.int64).reshape(-1, choices)
    return values, counts, all(s.exact for row in rows for s in row)
