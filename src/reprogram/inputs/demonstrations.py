"""Demonstrations: examples with their answers before the text that is asked about (in-context learning).

Brown et al., "Language Models are Few-Shot Learners", 2020, arXiv:2005.14165.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from reprogram.core.conversation import Conversing
from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit, Input
from reprogram.core.task import Example
from reprogram.core.taxonomy import Operator
from reprogram.core.texts import MASK, Texts
from reprogram.core.writing import ASSISTANT, SYSTEM, USER
from reprogram.inputs.jinja import JinjaLayout
from reprogram.inputs.selection import within
from reprogram.inputs.selection_query import Selector
from reprogram.inputs.template import Template, without_marks

_log = logging.getLogger("reprogram")


@final
@dataclass(frozen=True, slots=True)
class Shown:
    """One prompt, and which examples it shows.

    Attributes:
        prompt: as the source reads it.
        examples: numbers of the examples, in order.
        dropped: numbers of those that did not fit into the source's context.
        span: (start, end) of all that came from the query.
    """

    prompt: str
    examples: tuple[int, ...]
    dropped: tuple[int, ...]
    span: tuple[int, int]


@final
class Demonstrations(Edit):
    r"""``x -> [instruction; x_1 y_1; ...; x_k y_k; x]``, all as text.

    No prompt ends in white space unless the layout itself does; an answer then owns its leading space (`join`). Of
    demonstrations that do not fit into the source's context, the first go first: with the most similar ones last,
    these are the least alike. Which were dropped is logged once, and `show` says it of any text.

    Args:
        template: the layout of a query; with a {mask} the place of the answer, else the answer comes at the end.
        examples: the demonstrations, or what `select` chooses from.
        words: how each answer is written, by answer; None as it is.
        separator: between demonstrations.
        instruction: before everything; empty for none.
        chat: as turns of a chat, the instruction as the system's.
        count: tokens of a text; None if they cannot be counted, then nothing is dropped.
        room: tokens that a prompt may take; None for any number.
        select: chooses examples for each query; None shows all of them to all.
        jinja: lays the whole prompt out in place of layout, separator and chat; the answer comes at its end.

    Raises:
        ConfigError: an example with another number of texts than the layout's task has columns, or soft tokens.

    >>> template = Template("Review: {text}\nMood:", ["text"])
    >>> edit = Demonstrations(template, [Example(("fine",), "good"), Example(("dull",), "bad")], columns=("text",))
    >>> edit(Texts({"text": ("great",)})).prompts[0]
    'Review: fine\nMood: good\n\nReview: dull\nMood: bad\n\nReview: great\nMood:'
    >>> edit.join, edit.show({"text": "great"}).examples
    (' ', (0, 1))
    """

    site = "input"
    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(  # noqa: PLR0913 - each is one part of a prompt
        self,
        template: Template,
        examples: Sequence[Example],
        *,
        columns: Sequence[str] = ("text",),
        words: Mapping[str, str] | None = None,
        separator: str = "\n\n",
        instruction: str = "",
        chat: bool = False,
        count: Callable[[str], int] | None = None,
        room: int | None = None,
        select: Selector | None = None,
        jinja: JinjaLayout | None = None,
    ) -> None:
        super().__init__()
        if template.slots or template.answers > 1:
            got = (template.slots, template.answers)
            raise ConfigError(say("template", "must have no soft tokens and one answer to show demonstrations", got))
        wrong = [one for one in examples if len(one.texts) != len(columns)]
        if wrong:
            raise ConfigError(say("examples", f"must have a text for each of {list(columns)}", wrong[0]))
        self.template, self.columns, self.separator, self.instruction = template, tuple(columns), separator, instruction
        self.examples, self.chat, self.room = tuple(examples), chat, room
        self.select = select if isinstance(select, nn.Module) else None  # its state is the program's
        self._choose, self._count, self._words = (select,), count, dict(words or {})
        self._blocks = [self._block(one) for one in self.examples]
        self._sizes: dict[int, int] = {}
        self._jinja = jinja
        self._said = False

    @property
    def join(self) -> str:
        """What stands between a prompt and its answer, and belongs to the answer: a space, or nothing."""
        if self.chat and self._jinja is None:
            return ""
        tail = self.show(dict.fromkeys(self.columns, "x")).prompt
        return " " if tail == tail.rstrip() else ""

    def forward(self, value: Texts) -> Texts:
        """One column "prompt" with the query's own span, and the targets as they were.

        Raises:
            DataError: the batch is no batch of texts, or lacks a column.
        """
        rows = self.shown(value)
        return Texts({"prompt": tuple(row.prompt for row in rows)}, value.targets, tuple((row.span,) for row in rows))

    def shown(self, value: Texts) -> list[Shown]:
        """The prompt of every row, and what it shows."""
        queries = self.template(value)
        chosen = self._chosen(value)
        return [
            self._shown(self._head(query), mine, value.row(i))
            for i, (query, mine) in enumerate(zip(queries.prompts, chosen, strict=True))
        ]

    def show(self, row: Mapping[str, str]) -> Shown:
        """The prompt of one text."""
        return self.shown(Texts({name: (text,) for name, text in row.items()}))[0]

    def extra_repr(self) -> str:
        """What `print(program)` shows; it tells programs with different demonstrations apart."""
        own = None if self._jinja is None else self._jinja.text
        parts = (self.template.layout, self.separator, self.instruction, self.chat, self.room, self.examples, own)
        return ", ".join(map(repr, (*parts, sorted(self._words.items()), type(self._choose[0]).__name__)))

    def _chosen(self, value: Texts) -> list[list[int]]:
        select = self._choose[0]
        if select is None:
            return [list(range(len(self.examples)))] * len(value)
        return select.choose(value)

    def _shown(self, query: str, chosen: Sequence[int], row: Mapping[str, str]) -> Shown:
        kept = list(chosen)
        if self.room is not None and self._count is not None:
            free = self.room - self._count(self._start() + self._asked(query))
            best = kept[::-1]
            kept = within(best, [self._size(i) for i in best], free)[::-1]
        dropped = list(chosen[: len(chosen) - len(kept)])
        if dropped and not self._said:
            self._said = True
            _log.warning("The demonstrations do not fit into %d tokens: %d of %d are left out, the first ones "
                         "(numbers %s; said once).", self.room, len(dropped), len(chosen), dropped)  # fmt: skip
        if self._jinja is not None:
            prompt = self._rendered(kept, row)
            return Shown(prompt, tuple(kept), tuple(dropped), (0, len(prompt)))
        before = self._start() + "".join(self._blocks[i] for i in kept)
        prompt = before + self._asked(query)
        start = len(before) + (len(USER) if self.chat else 0)
        return Shown(prompt, tuple(kept), tuple(dropped), (start, start + len(query)))

    def _rendered(self, kept: Sequence[int], row: Mapping[str, str]) -> str:
        assert self._jinja is not None
        shown = [
            {**dict(zip(self.columns, self.examples[i].texts, strict=True)),
             "answer": self._words.get(self.examples[i].answer, self.examples[i].answer)}
            for i in kept
        ]  # fmt: skip
        clean = [{name: without_marks(text) for name, text in one.items()} for one in (*shown, row)]
        return self._jinja.render(clean[:-1], clean[-1], self.instruction)

    def _size(self, number: int) -> int:
        if number not in self._sizes and self._count is not None:
            self._sizes[number] = self._count(self._blocks[number]) + 1  # tokens may join otherwise in a whole prompt
        return self._sizes[number]

    def _start(self) -> str:
        if not self.instruction:
            return ""
        return SYSTEM + self.instruction if self.chat else self.instruction + self.separator

    def _asked(self, query: str) -> str:
        return USER + query + ASSISTANT if self.chat else query

    def _block(self, one: Example) -> str:
        """One demonstration, with what separates it from the next."""
        row = Texts({name: (text,) for name, text in zip(self.columns, one.texts, strict=True)})
        prompt = self.template(row).prompts[0]
        answer = self._words.get(one.answer, one.answer)
        if self.chat:
            return USER + self._head(prompt) + ASSISTANT + answer
        head, mask, tail = prompt.partition(MASK)
        spaced = " " if head == head.rstrip() else ""
        return head + spaced + answer + (tail if mask else "") + self.separator

    @staticmethod
    def _head(prompt: str) -> str:
        """What comes before the answer."""
        return prompt.split(MASK, maxsplit=1)[0]


def demonstrated(input: Input, x: Texts) -> list[Shown] | None:
    """What an input's demonstrations show for each row, the edits before them applied; None if it has none.

    Args:
        input: of a program.
        x: rows with the task's columns.
    """
    for edit in input.at("input"):
        if isinstance(edit, Demonstrations):
            return edit.shown(x)
        if isinstance(edit, Conversing):
            return None
        x = edit(x)
    return None
