"""What controllers share: what happens when a model's text cannot be used.

It is told why and asked once more; after that the question is put as a plain chain of thought, and the reason is kept
in the result.
"""

from collections.abc import Callable, Generator
from typing import Any

from reprogram.core.conversation import Ask, Talk
from reprogram.core.writing import Writing, Written
from reprogram.inputs.reasoning import unmarked

Calls = Generator[Ask, Written, Any]
"""A part of a conversation that gives something of its own."""


class Unusable(Exception):
    """What a model wrote cannot be used; the message says why. Never leaves a conversation."""


class Stuck(Unusable):
    """It was told so once already."""


def fallen_back(prompt: str, writing: Writing, problem: str) -> Talk:
    """A plain chain of thought in place of what went wrong, with the reason."""
    said = yield Ask(prompt, writing)
    return Written(text=said.text, finish=said.finish, reason=f"fell back to a plain chain of thought: {problem}")


def again(prompt: str, text: str, problem: str) -> str:
    """The same prompt after an answer that could not be used, which it names."""
    last = prompt.rpartition("\n")[2]
    return f"{prompt} {text}\n(This cannot be used: {unmarked(problem)}. Once more.)\n{last}"


def bare(question: str) -> str:
    r"""A question without "Q: " and "A:".

    >>> bare("Q: How many?\nA:")
    'How many?'
    """
    return question.strip().removeprefix("Q:").removesuffix("A:").strip()


def retried(prompt: str, writing: Writing, read: Callable[[Written], list[str]]) -> Generator[Ask, Written, list[str]]:
    """What is read off an answer, asked for twice at most."""
    said = yield Ask(prompt, writing)
    try:
        return read(said)
    except Unusable as problem:
        said = yield Ask(again(prompt, unmarked(said.text.strip()), str(problem)), writing)
        return read(said)


def stuck(calls: Calls) -> Calls:
    """The same calls, after which there is no second attempt."""
    try:
        return (yield from calls)
    except Unusable as problem:
        raise Stuck(str(problem)) from problem


def given(text: str) -> list[str]:
    """A text as a part of a prompt, or nothing."""
    return [text.strip()] if text.strip() else []


def same(text: str) -> str:
    """Equal for texts that differ in space and capitals alone."""
    return " ".join(text.split()).casefold()
