"""Some texts of a task with what the program makes of them, for classification and for generation."""

from typing import NamedTuple

import torch

from reprogram.core.errors import ReprogramError
from reprogram.core.program import Answering, Program
from reprogram.core.source import Capability
from reprogram.core.texts import Texts
from reprogram.report.pictures import shown_split
from reprogram.tasks import Split, Task

LONGEST = 600
"""Characters of a text that are shown; the rest of it is cut."""

MOST_TOKENS = 48
"""To write at most for one text of a report."""


class TextSample(NamedTuple):
    """One text and its answer.

    Attributes:
        name: of the example.
        parts: (column, text), in order; one without a column's name if there is one only.
        truth: the class, or what is to be written.
        answer: the class that the program says, or what it writes; None where it cannot write.
        confidence: probability of the class; None for generation.
        right: the answer is the truth, spaces around it aside.
    """

    name: str
    parts: list[tuple[str, str]]
    truth: str
    answer: str | None
    confidence: float | None
    right: bool


@torch.no_grad()
def text_samples(program: Program, task: Task, count: int = 8) -> list[TextSample]:
    """Texts of the test split (or of the next best), drawn at random, with the program's answers.

    Args:
        program: in eval mode.
        task: whose texts; nothing is shown for pictures.
        count: how many; for generation half as many, because each has to be written.
    """
    split = shown_split(task)
    if task.spec.modality != "text" or not len(split):
        return []
    rows = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    rows = rows[: max(1, count // 2) if task.spec.generates else count]
    batch = split.fetch(rows)
    assert isinstance(batch, Texts)
    if isinstance(program.output, Answering):
        return _answered(program, program.output, task, split, rows)
    if task.spec.generates:
        return _written(program, split, rows, batch)
    scores = program(Texts(batch.columns).to(program.source.device)).float().softmax(-1).cpu()
    confidence, guess = scores.max(-1)
    return [
        _classified(split, row, task.classes, _parts(batch, i), int(guess[i]), float(confidence[i]))
        for i, row in enumerate(_numbers(rows))
    ]


def _classified(
    split: Split, row: int, classes: tuple[str, ...], parts: list[tuple[str, str]], guess: int, confidence: float
) -> TextSample:
    truth = int(split.labels[row])
    return TextSample(split.names[row], parts, classes[truth], classes[guess], confidence, truth == guess)


def _answered(
    program: Program, output: Answering, task: Task, split: Split, rows: torch.Tensor
) -> list[TextSample]:  # fmt: skip
    """Answers read off texts; a dash, and why, where none could be read."""
    batch = split.fetch(rows)
    assert isinstance(batch, Texts)
    try:
        answers = output.answers(program.outputs(Texts(batch.columns)))
    except ReprogramError:
        return []
    found: list[TextSample] = []
    for i, (row, answer) in enumerate(zip(_numbers(rows), answers, strict=True)):
        truth = task.classes[int(split.labels[row])] if batch.targets is None else batch.targets[i]
        right = answer.value == (truth if batch.targets is None else output.canonical(truth))
        said = f"– ({answer.reason})" if answer.value is None else answer.value
        share = None if answer.value is None else answer.share
        found.append(TextSample(split.names[row], _parts(batch, i), short(truth), short(said), share, right))
    return found


def _written(program: Program, split: Split, rows: torch.Tensor, batch: Texts) -> list[TextSample]:
    targets, made = batch.targets or (), _generated(program, batch)
    found: list[TextSample] = []
    for i, row in enumerate(_numbers(rows)):
        answer = None if made is None else made[i]
        right = answer is not None and answer.strip() == targets[i].strip()
        shown = None if answer is None else short(answer)
        found.append(TextSample(split.names[row], _parts(batch, i), short(targets[i]), shown, None, right))
    return found


def _numbers(rows: torch.Tensor) -> list[int]:
    return rows.tolist()


def _generated(program: Program, batch: Texts) -> list[str] | None:
    """What the program writes, greedily; None if it cannot. A report does not fail for want of samples."""
    if Capability.GENERATION not in program.source.capabilities:
        return None
    try:
        inputs = [batch.row(i) for i in range(len(batch))]
        return program.generate(inputs, max_new_tokens=MOST_TOKENS)
    except ReprogramError:
        return None


def _parts(batch: Texts, row: int) -> list[tuple[str, str]]:
    cells = batch.row(row)
    return [(name if len(cells) > 1 else "", short(text)) for name, text in cells.items()]


def short(text: str) -> str:
    """The beginning of a long text.

    >>> len(short("x" * 1000)), short("a text")
    (601, 'a text')
    """
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
