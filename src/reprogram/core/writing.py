"""What a source that writes is asked for, and what it wrote. Holds no model and no parser."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from reprogram.core.errors import ConfigError, say

SYSTEM, USER, ASSISTANT = "\ue002", "\ue003", "\ue004"
"""In a prompt, each begins a turn of a chat. A prompt without them is plain text that the source goes on writing."""

PICTURE = "\ue005"
"""In a prompt, the place of the row's next picture."""

Finish = Literal["stop", "length", "budget", "error"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What a text must look like, for constrained writing.

    Attributes:
        kind: "choice", "regex" or "json".
        text: the pattern or the JSON schema; for "choice" the choices, one a line.
    """

    kind: Literal["choice", "regex", "json"]
    text: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How a source is to write.

    Attributes:
        tokens: to write at most.
        stop: texts before which writing ends; they are not part of what was written.
        samples: texts for each prompt, drawn independently.
        temperature: 0 takes the likeliest token each time.
        top_p: draw from the likeliest tokens that have this probability together.
        top_k: draw from this many likeliest tokens; 0 for all.
        seed: of the draws. Sample i of a prompt depends on the seed, the prompt and i alone, not on its batch.
        grammar: what the text must look like; None for anything.

    Raises:
        ConfigError: a number out of range, or several samples that would all be the same.
    """

    tokens: int = 256
    stop: tuple[str, ...] = ()
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        for name, least in (("tokens", 1), ("samples", 1), ("top_k", 0)):
            if getattr(self, name) < least:
                raise ConfigError(say(f"writing.{name}", f"must be {least} or more", getattr(self, name)))
        if not 0 <= self.temperature < float("inf") or not 0 < self.top_p <= 1:
            got = (self.temperature, self.top_p)
            raise ConfigError(say("temperature, top_p", "must be 0 or more, and above 0 up to 1", got))
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(say("samples", "must be 1 at temperature 0, where all are the same", self.samples))
        if any(not text for text in self.stop):
            raise ConfigError(say("stop", "must be texts that are not empty", self.stop))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One question to the source within a conversation, and its answer."""

    prompt: str
    text: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One text that a source wrote.

    Attributes:
        text: without the stop text.
        tokens: it took.
        logprob: natural logarithm of its probability, summed over its tokens; None where the source does not say.
        finish: "stop" at a stop text or the end token, "length" when `Writing.tokens` were used up, "budget" when a
            conversation was cut short, "error" when it could not go on.
        steps: of a conversation: every question, in order, with its answer.
        reason: why it was cut short, in words.
    """

    text: str
    tokens: int = 0
    logprob: float | None = None
    finish: Finish = "stop"
    steps: tuple[Step, ...] = ()
    reason: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was read off one input's texts.

    Attributes:
        value: class name, number or text in its one canonical spelling; None if nothing could be read.
        reason: why not; empty if something could.
        share: of the texts that could be read, how many say so: 1 for one text.
        unparsable: how many texts could not be read.
    """

    value: str | None
    reason: str = ""
    share: float = 1.0
    unparsable: int = 0


def before_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """A text up to the first of some stop texts, and whether one was there.

    >>> before_stop("a. b! c.", ("!", ".")), before_stop("a", (".",))
    (('a', True), ('a', False))
    """
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def readable(prompt: str) -> str:
    r"""A prompt with its marks in words, for people.

    >>> readable(USER + "Which mark?" + PICTURE + ASSISTANT)
    '[user] Which mark?[picture]\n[assistant] '
    """
    said = "\n".join(f"[{role}] {text}" if role else text for role, text in turns(prompt))
    return said.replace(PICTURE, "[picture]")


def turns(prompt: str) -> list[tuple[str, str]]:
    r"""The turns of a chat prompt: (role, text); a plain prompt is one turn with the role "".

    >>> turns(SYSTEM + "Be brief." + USER + "Hi" + ASSISTANT)
    [('system', 'Be brief.'), ('user', 'Hi'), ('assistant', '')]
    >>> turns("Hi")
    [('', 'Hi')]
    """
    roles = {SYSTEM: "system", USER: "user", ASSISTANT: "assistant"}
    found: list[tuple[str, str]] = []
    start, role = 0, ""
    for place, letter in enumerate(prompt):
        if letter in roles:
            if place > start or role:
                found.append((role, prompt[start:place]))
            start, role = place + 1, roles[letter]
    return [*found, (role, prompt[start:])]
