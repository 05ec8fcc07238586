"""What a program of prompt instruction shows to its source, for one text: the prompt, or the conversation."""

from typing import NamedTuple

import torch

from reprogram.core.conversation import Conversing
from reprogram.core.errors import ReprogramError
from reprogram.core.program import Program
from reprogram.core.source import PromptSource
from reprogram.core.texts import Texts
from reprogram.core.writing import readable
from reprogram.inputs import demonstrated
from reprogram.report.pictures import shown_split
from reprogram.tasks import Task

LONGEST = 6000
"""Characters of a prompt that are shown; what is left out is in the middle."""


class Shown(NamedTuple):
    """A prompt or a conversation in words.

    Attributes:
        about: a sentence on it.
        steps: (question, answer); of a prompt that is asked once the answer is empty.
    """

    about: str
    steps: list[tuple[str, str]]


@torch.no_grad()
def shown(program: Program, task: Task) -> Shown | None:
    """The prompt of the first text of the test split (or of the next best); None where nothing is put around texts."""
    split, source = shown_split(task), program.source
    if task.spec.modality != "text" or not len(split) or not isinstance(source, PromptSource):
        return None
    x = split.fetch(torch.tensor([0]))
    assert isinstance(x, Texts)
    if any(isinstance(e, Conversing) for e in program.input):
        return _conversation(program, Texts(x.columns))
    rows = demonstrated(program.input, Texts(x.columns))
    if rows is None:
        return None
    prompt, some = program.input(Texts(x.columns), "input").prompts[0], rows[0]
    left = f" ({len(some.dropped)} more did not fit)" if some.dropped else ""
    about = f"{source.count(prompt):,} tokens with {len(some.examples)} examples{left}."
    return Shown(about, [(short(source.rendered(prompt)), "")])


def _conversation(program: Program, x: Texts) -> Shown | None:
    try:
        said = program.outputs(x).written
    except ReprogramError:
        return None
    if not said or not said[0][0].steps:
        return None
    steps = said[0][0].steps
    about = f"{len(steps)} questions, {said[0][0].tokens:,} tokens written. {said[0][0].reason}".strip()
    return Shown(about, [(short(readable(step.prompt)), short(step.text)) for step in steps])


def short(text: str) -> str:
    """A long text without its middle.

    >>> len(short("x" * 10_000)) < 6100, short("ab")
    (True, 'ab')
    """
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[… {len(text) - LONGEST:,} characters …]\n{text[-half:]}"
