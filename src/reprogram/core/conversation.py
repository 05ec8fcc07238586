"""Inputs that ask more than once: each question depends on the answers so far.

One input's conversation is a generator: it yields an `Ask`, is sent the `Written` answer, and returns what it ends
with. `converse` runs the conversations of a batch side by side, so that a round's questions are one batch for the
source, and holds each to its budget.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.texts import Texts
from reprogram.core.writing import Step, Writing, Written

Pictures = tuple[Tensor, ...]


@final
@dataclass(frozen=True, slots=True)
class Ask:
    """A question to the source.

    Attributes:
        prompt: as the source is to read it, see `reprogram.core.writing` for turns of a chat and pictures.
        writing: how to answer. One sample.
        pictures: [channel, height, width] uint8, as many as the prompt has places for.
    """

    prompt: str
    writing: Writing
    pictures: Pictures = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one input may cost.

    Attributes:
        calls: questions.
        tokens: written by the source, over all questions.
    """

    calls: int = 32
    tokens: int = 8192

    def __post_init__(self) -> None:
        if self.calls < 1 or self.tokens < 1:
            raise ConfigError(say("budget", "must allow a call and a token at least", (self.calls, self.tokens)))


Answered = tuple[tuple[Written, ...], ...]
"""For each prompt, the texts that the source wrote."""

Talk = Generator[Ask, Written, Written]


@runtime_checkable
class Conversing(Protocol):
    """An edit at "input" that asks more than once."""

    budget: Budget

    def talk(self, row: Mapping[str, str], pictures: Pictures) -> Talk:
        """The conversation about one input: its columns, and its pictures."""
        ...


@final
class _Running:
    """One conversation under way."""

    def __init__(self, talk: Talk, budget: Budget) -> None:
        self.talk, self.budget = talk, budget
        self.steps: list[Step] = []
        self.tokens = 0
        self.ask: Ask | None = None
        self.end: Written | None = None
        self._go(None)

    def hear(self, said: Written) -> None:
        """Take the answer to the question that is open, and go on."""
        assert self.ask is not None
        self.steps.append(Step(prompt=self.ask.prompt, text=said.text))
        self.tokens += said.tokens
        self._go(said)

    def _go(self, said: Written | None) -> None:
        try:
            self.ask = next(self.talk) if said is None else self.talk.send(said)
        except StopIteration as stop:
            self._finish(stop.value)
            return
        left = self.budget.tokens - self.tokens
        if len(self.steps) >= self.budget.calls or left < 1:
            self.talk.close()
            reason = f"the budget of {self.budget.calls} calls and {self.budget.tokens} tokens was used up"
            self._finish(Written(text="", finish="budget", reason=reason))
        elif self.ask.writing.tokens > left:
            self.ask = replace(self.ask, writing=replace(self.ask.writing, tokens=left))

    def _finish(self, end: Written) -> None:
        self.ask = None
        self.end = replace(end, tokens=self.tokens, steps=tuple(self.steps))


def converse(ask: Callable[[Texts, Writing], Answered], x: Texts, edit: Conversing) -> Answered:
    """What every row's conversation ends with; one text a row.

    Args:
        ask: lets the source go on after prompts. Questions of a round that are to be answered alike go together.
        x: the inputs.
        edit: with the conversation.
    """
    shown: Sequence[Pictures] = x.pictures if x.pictures is not None else [()] * len(x)
    running = [_Running(edit.talk(x.row(i), shown[i]), edit.budget) for i in range(len(x))]
    while any(r.ask is not None for r in running):
        groups: dict[Writing, list[_Running]] = {}
        for one in running:
            if one.ask is not None:
                groups.setdefault(one.ask.writing, []).append(one)
        for writing, members in groups.items():
            asks = [one.ask for one in members if one.ask is not None]
            pictures = tuple(a.pictures for a in asks) if any(a.pictures for a in asks) else None
            batch = Texts({"prompt": tuple(a.prompt for a in asks)}, pictures=pictures)
            for one, texts in zip(members, ask(batch, writing), strict=True):
                one.hear(texts[0])
    return tuple((one.end,) for one in running if one.end is not None)
