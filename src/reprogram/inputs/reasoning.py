r"""Prompts that ask for the steps before the answer: questions, demonstrations with their rationales, two passes.

A task's columns become a question of the form "Q: ...\nA:"; classes are offered as choices under letters.
Demonstrations are this library's own or come from the training split, where its targets hold rationales. The methods:

- chain of thought: Wei et al. 2022, arXiv:2201.11903; its demonstrations are not used here, these are our own;
- zero-shot, in two passes: Kojima et al. 2022, arXiv:2205.11916.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

from reprogram.core.conversation import Ask, Budget, Pictures, Talk
from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.program import Edit
from reprogram.core.source import PromptSource
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Operator
from reprogram.core.texts import MASK, Texts
from reprogram.core.writing import ASSISTANT, USER, Writing, Written
from reprogram.inputs.demonstrations import Demonstrations
from reprogram.inputs.template import Template

Origin = Literal["own", "train"]

CUE = "The answer is"
"""Before the answer in every demonstration; the parsers of `reprogram.outputs` look for it."""

TRIGGER = "Let's think step by step."
"""Kojima et al. 2022, table 4: the best of the phrases tried."""

STOP = ("\nQ:", "\n\n")
"""Where a text that follows demonstrations ends: the next would begin."""

_LAST = re.compile(r"\n?[ \t]*####[ \t]*([^\n]+?)[ \t]*\Z")
_NOTE = re.compile(r"<<[^<>\n]{0,200}>>")
_PLAIN = Template("{text}")
_FEWEST_WORDS = 3


def _chain(question: str, steps: str, answer: str) -> Example:
    return Example((f"Q: {question}\nA:",), f"{steps} {CUE} {answer}.")


ARITHMETIC = (
    _chain("A baker fills 6 trays with 12 rolls each. He sells 45 rolls before noon. How many rolls are left?",
           "6 trays with 12 rolls each are 6 * 12 = 72 rolls. He sold 45 of them. 72 - 45 = 27 rolls are left.", "27"),
    _chain("Nadia has 18 stamps. Her brother has 3 times as many. How many stamps do they have together?",
           "Her brother has 3 * 18 = 54 stamps. Together they have 18 + 54 = 72 stamps.", "72"),
    _chain("A train has 9 cars with 40 seats each. 287 seats are taken. How many seats are free?",
           "The train has 9 * 40 = 360 seats. 360 - 287 = 73 seats are free.", "73"),
    _chain("Four friends share the cost of a tent for $150 and of a stove for $42. How much does each of them pay?",
           "The cost is 150 + 42 = 192 dollars. Shared by four, that is 192 / 4 = 48 dollars for each.", "48"),
    _chain("A well is 30 feet deep. A bucket is let down 8 feet, then 7 feet more, and then pulled up 3 feet. How many "
           "feet is it above the bottom?",
           "The bucket hangs 8 + 7 - 3 = 12 feet down. It is 30 - 12 = 18 feet above the bottom.", "18"),
    _chain("Omar's book has 310 pages. He has read 25 pages a day for 6 days. How many pages are left to read?",
           "He has read 25 * 6 = 150 pages. 310 - 150 = 160 pages are left.", "160"),
    _chain("A ticket costs $8 for an adult and $5 for a child. How many dollars do 2 adults and 3 children pay?",
           "The adults pay 2 * 8 = 16 dollars. The children pay 3 * 5 = 15 dollars. In all, 16 + 15 = 31 dollars.",
           "31"),
    _chain("A garden had 14 rose bushes. 5 were dug out, and then twice as many as that were planted. How many rose "
           "bushes are there now?",
           "After 5 were dug out, 14 - 5 = 9 were there. 2 * 5 = 10 were planted. Now there are 9 + 10 = 19.", "19"),
)  # fmt: skip
"""Eight word problems with their steps. A test holds their digest, for program files rely on them."""

CHOICES = (
    _chain("A car goes 180 miles in 3 hours. How far does it go in 5 hours at the same speed?\n"
           "Answer choices: (A) 240 miles (B) 300 miles (C) 320 miles (D) 360 miles (E) 900 miles",
           "The car goes 180 / 3 = 60 miles in an hour. In 5 hours it goes 5 * 60 = 300 miles.", "(B)"),
    _chain("A number is doubled and then 9 is added, which gives 31. What is the number?\n"
           "Answer choices: (A) 9 (B) 10 (C) 11 (D) 13 (E) 20",
           "Before 9 was added it was 31 - 9 = 22. Before it was doubled it was 22 / 2 = 11.", "(C)"),
    _chain("The mean of three numbers is 12. Two of them are 10 and 15. What is the third?\n"
           "Answer choices: (A) 8 (B) 9 (C) 10 (D) 11 (E) 12",
           "The three come to 3 * 12 = 36. The two come to 10 + 15 = 25. The third is 36 - 25 = 11.", "(D)"),
    _chain("A coat costs $40 and is sold at 15 percent less. What does it cost then?\n"
           "Answer choices: (A) $34 (B) $35 (C) $36 (D) $25 (E) $46",
           "15 percent of 40 dollars are 40 * 15 / 100 = 6 dollars. The coat costs 40 - 6 = 34 dollars.", "(A)"),
)  # fmt: skip
"""Four problems with choices; see `ARITHMETIC`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Which demonstrations with rationales a prompt shows.

    Attributes:
        demonstrations: "own" for those of this library, "train" for examples whose targets hold their rationale.
        shots: how many; None for all of our own, and for 8 from the training split.
        template: how the columns become a question; None for `question_layout`.
        instruction: before everything.
        chat: as turns of a chat.

    Raises:
        ConfigError: a number below 1.
    """

    demonstrations: Origin = "own"
    shots: int | None = None
    template: str | None = None
    instruction: str = ""
    chat: bool = False

    def __post_init__(self) -> None:
        if self.shots is not None and self.shots < 1:
            raise ConfigError(say("shots", "must be 1 or more", self.shots))


def stops(chat: bool) -> tuple[str, ...]:
    r"""Where a text ends: at the next question; without turns of a chat also at a blank line.

    >>> stops(False), stops(True)
    (('\nQ:', '\n\n'), ('\nQ:',))
    """
    return STOP[:1] if chat else STOP


def question_layout(task: TaskSpec) -> str:
    r"""The layout of a task's question: its columns, its choices if it has classes, and where the answer goes.

    Classes that are capital letters are taken to be explained by the columns themselves.

    >>> from reprogram.core.task import Sample
    >>> question_layout(TaskSpec(name="t", classes=("bad", "good"), sample=Sample(shape=(), columns=("text",))))
    'Q: {text}\nAnswer choices: (A) bad (B) good\nA:'
    """
    question = "Q: " + "\n".join(f"{{{name}}}" for name in task.sample.columns or ("text",))
    return f"{question}{_offered(task.classes)}\nA:"


def own_examples(task: TaskSpec) -> tuple[Example, ...]:
    """Our own demonstrations: with choices for a task that has classes, else with numbers."""
    return CHOICES if task.classes else ARITHMETIC


def question(task: TaskSpec, template: str | None = None) -> Template:
    """The edit that makes a task's question of its columns.

    Raises:
        ConfigError: the template has places for soft tokens, or a {mask}.
    """
    made = Template(question_layout(task) if template is None else template, task.sample.columns or ("text",))
    if made.slots or made.answers:
        raise ConfigError(say("template", "must end where the answer begins, with no {mask} or {soft:N}", made.layout))
    return made


def chain_edits(source: PromptSource, task: TaskSpec, chains: Chains, tokens: int) -> list[Edit]:
    """``I = question, demonstrations with rationales``.

    Args:
        source: whose context limits how many demonstrations are shown.
        task: with `context`, where demonstrations come from the training split.
        chains: which.
        tokens: kept free for the answer.

    Raises:
        ConfigError: demonstrations from the training split without a task's data, or a layout that does not fit.
    """
    asked = question(task, chains.template)
    if chains.demonstrations == "own":
        shown = own_examples(task)[: chains.shots]
    else:
        shown = tuple(_rendered(asked, task.sample.columns or ("text",), one) for one in task.context)
        if not shown:
            remedy = "Build it with the task, not its description alone."
            raise ConfigError(say("demonstrations", "must be given by the task's training split", "none", remedy))
    room = None if source.context is None else max(1, source.context - tokens)
    show = Demonstrations(Template("{prompt}"), shown, columns=("prompt",), instruction=chains.instruction,
                          chat=chains.chat, count=source.count, room=room)  # fmt: skip
    return [asked, show]


def choose_chains(chains: Chains, task: TaskSpec, pool: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The examples of the training split that a program is to show; none where it shows our own.

    Drawn at random; examples whose target holds no rationale are passed over.

    Raises:
        ConfigError: a task with classes, whose targets hold none.
        DataError: too few targets hold one.
    """
    if chains.demonstrations == "own":
        return ()
    if not task.generates:
        remedy = 'Use demonstrations="own".'
        raise ConfigError(say("demonstrations", "must be own for a task with classes", "train", remedy))
    wanted, found = chains.shots or len(ARITHMETIC), list[Example]()
    for number in random.Random(seed).sample(range(len(pool)), len(pool)):
        chain = rationale(pool[number].answer)
        if chain is not None:
            found.append(Example(pool[number].texts, chain))
        if len(found) == wanted:
            return tuple(found)
    remedy = 'A target ends with "#### " or "The answer is", and its answer. Or use demonstrations="own".'
    raise DataError(say("train", f"must have {wanted} targets with a rationale to be shown", len(found), remedy))


def rationale(target: str) -> str | None:
    r"""A target's rationale and answer in the form of our demonstrations; None if it holds no rationale.

    Notes for a calculator ("<<48/2=24>>") are left out, and lines are joined.

    >>> rationale("Half of 48 is 48/2 = <<48/2=24>>24 clips.\n#### 24")
    'Half of 48 is 48/2 = 24 clips. The answer is 24.'
    >>> rationale("24") is None
    True
    """
    found = _LAST.search(target)
    if found:
        steps, answer = target[: found.start()], found[1]
    else:
        steps, cue, answer = target.rpartition(CUE)
        if not cue:
            return None
    steps = " ".join(_NOTE.sub("", steps).split())
    if len(steps.split()) < _FEWEST_WORDS:
        return None
    return f"{steps}{'' if steps[-1] in '.!?' else '.'} {CUE} {answer.strip().rstrip('.')}."


def unmarked(text: str) -> str:
    """A text that a model wrote, fit to be part of a prompt: no character of it opens a turn or a place."""
    return _PLAIN(Texts({"text": (text,)})).prompts[0]


def chain_prompt(asked: str, examples: Sequence[Example]) -> str:
    """A question after demonstrations, for controllers that fall back on a plain chain of thought."""
    return "\n\n".join([*(f"{one.texts[0]} {one.answer}" for one in examples), asked])


@final
class TwoPasses(Edit):
    r"""First ask for the steps, then, with the steps in the prompt, for the answer alone.

    ``z = f(q + trigger)``, ``y = f(q + trigger + z + cue)``. The conversation ends with the cue and the answer.

    Args:
        question: makes the prompt of a row.
        trigger: after the question.
        cue: after the steps.
        writing: of the steps.
        answer: how to write the answer.
        chat: both as turns of a chat.
        budget: of an input.

    Raises:
        ConfigError: the trigger or cue is empty.
    """

    site = "input"
    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(  # noqa: PLR0913 - each is one part of the two prompts
        self,
        question: Template,
        *,
        trigger: str = TRIGGER,
        cue: str = f"Therefore, {CUE.lower()}",
        writing: Writing = Writing(tokens=128),  # noqa: B008 - a frozen value
        answer: Writing = Writing(tokens=32),  # noqa: B008 - a frozen value
        chat: bool = False,
        budget: Budget = Budget(calls=2),  # noqa: B008 - a frozen value
    ) -> None:
        super().__init__()
        if not trigger.strip() or not cue.strip():
            raise ConfigError(say("trigger, cue", "must be texts that are not empty", (trigger, cue)))
        self.question, self.trigger, self.cue = question, trigger, cue
        self.writing, self.answer, self.chat, self.budget = writing, answer, chat, budget

    def forward(self, value: Texts) -> Texts:
        """The prompts of the first pass."""
        asked = self.question(value).prompts
        return Texts({"prompt": tuple(self._first(one) for one in asked)}, value.targets)

    def talk(self, row: Mapping[str, str], pictures: Pictures) -> Talk:
        """The two passes for one input."""
        prompt = self._first(asked(self.question, row))
        steps = yield Ask(prompt, self.writing, pictures)
        thought = unmarked(steps.text.strip())
        then = f"{USER}{self.cue}{ASSISTANT}" if self.chat else f"\n{self.cue}"
        said = yield Ask(f"{prompt}{'' if self.chat else ' '}{thought}{then}", self.answer, pictures)
        return Written(text=f"{self.cue} {said.text.strip()}", finish=said.finish)

    def extra_repr(self) -> str:
        """What `print(program)` shows; it tells programs with different prompts apart."""
        return f"{self.trigger!r}, {self.cue!r}, {self.writing}, {self.answer}, {self.chat}, {self.budget}"

    def _first(self, prompt: str) -> str:
        return f"{USER}{prompt}\n{self.trigger}{ASSISTANT}" if self.chat else f"{prompt} {self.trigger}"


def cue_for(task: TaskSpec, kind: str) -> str:
    """The cue of the second pass for a kind of answer (Kojima et al. 2022, appendix A.5).

    >>> from reprogram.core.task import Sample
    >>> cue_for(TaskSpec(name="t", classes=("A", "B", "C"), sample=Sample(shape=())), "choice")
    'Therefore, among A through C, the answer is'
    """
    if task.classes:
        return f"Therefore, among A through {chr(64 + min(26, len(task.classes)))}, the answer is"
    kinds = {"number": " (arabic numerals)", "yes_no": " (Yes or No)"}
    return f"Therefore, the answer{kinds.get(kind, '')} is"


def asked(question: Template, row: Mapping[str, str]) -> str:
    """The question of one row."""
    return question(Texts({name: (text,) for name, text in row.items()})).prompts[0].split(MASK, maxsplit=1)[0]


def _offered(classes: Sequence[str]) -> str:
    if not classes or all(len(name) == 1 and "A" <= name <= "Z" for name in classes):
        return ""
    if len(classes) > 26:
        names = ", ".join(classes)
    else:
        names = " ".join(f"({chr(65 + i)}) {name}" for i, name in enumerate(classes))
    return "\nAnswer choices: " + names.replace("{", "{{").replace("}", "}}")


def _rendered(question: Template, columns: Sequence[str], one: Example) -> Example:
    return Example((asked(question, dict(zip(columns, one.texts, strict=True))),), one.answer)
