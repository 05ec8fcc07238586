"""Decomposed prompting: a decomposer writes calls line by line, and a controller has each answered by its handler.

Khot et al., "Decomposed Prompting: A Modular Approach for Solving Complex Tasks", 2022, arXiv:2210.02406. Handlers are
prompts, tools, or decomposers themselves. Nothing a model wrote is run; calls, tokens, steps, levels and repetitions
are limited. The demonstrations are our own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from reprogram.core.conversation import Ask, Budget, Pictures, Talk
from reprogram.core.errors import ConfigError, ReprogramError, say
from reprogram.core.program import Edit
from reprogram.core.task import Example
from reprogram.core.taxonomy import Operator
from reprogram.core.texts import Texts
from reprogram.core.writing import Writing, Written
from reprogram.inputs.control import Calls, Stuck, Unusable, again, bare, fallen_back, given, same, stuck
from reprogram.inputs.json_answers import (
    AFTERWARDS,
    afterwards,
    as_json,
    filled,
    listed_in,
    merged,
    read_json,
    shown,
    sides,
    to_json,
)
from reprogram.inputs.reasoning import CUE, STOP, asked, chain_prompt, unmarked
from reprogram.inputs.template import Template

Tool = Callable[[str], object]

END = "[EOQ]"
"""What a decomposer writes when its last answer is the answer."""

OPERATIONS = ("select", "project", "projectValues", "projectKeys", "filter")

_CALL = re.compile(
    r"(?:\((?P<op>[A-Za-z_]{1,64})\)[ ]*+)?(?:\[(?P<handler>[\w-]{1,64})\][ ]*+)?(?P<text>.*)", re.DOTALL
)
_DONE = object()
_YES = ("yes", "true", "1")

ARITHMETIC = """\
QC: A baker fills 6 trays with 12 rolls each. He sells 45 rolls before noon. How many rolls are left?
QS: [calc] 6 * 12
A: 72
QS: [calc] #1 - 45
A: 27
QS: [EOQ]

QC: Nadia has 18 stamps. Her brother has 3 times as many. How many stamps do they have together?
QS: [calc] 3 * 18
A: 54
QS: [calc] 18 + #1
A: 72
QS: [EOQ]"""
"""Our own demonstrations of a decomposer for word problems."""

ANSWERING = """\
Q: How many legs do two dogs have?
A: 8

Q: Which of "Rome" and "Oslo" is the capital of Norway?
A: "Oslo\""""
"""Our own demonstrations of a handler that answers single questions in JSON."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """Who answers a decomposer's calls, by name.

    Attributes:
        decomposers: demonstrations of decomposers; "main" takes the input's question.
        prompts: demonstrations of handlers that answer a question at once.
        tools: functions of the call's text. What they give must be JSON: texts, numbers, lists. A tool says what it
            cannot do by an error of this library.
        chain: demonstrations of the plain chain of thought that is the last resort.

    Raises:
        ConfigError: a name is used twice, or there is no "main".
    """

    decomposers: Mapping[str, str] = field(default_factory=lambda: {"main": ARITHMETIC})
    prompts: Mapping[str, str] = field(default_factory=lambda: {"qa": ANSWERING})
    tools: Mapping[str, Tool] = field(default_factory=lambda: {})
    chain: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        names = [*self.decomposers, *self.prompts, *self.tools]
        if len(set(names)) < len(names) or "main" not in self.decomposers:
            raise ConfigError(say("handlers", 'must have names of their own, and a decomposer "main"', names))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a controller may go, beside its budget.

    Attributes:
        steps: calls on one level (the authors' code: 10).
        depth: levels of decomposers within one another.
        items: of a list that a call is repeated for.
    """

    steps: int = 10
    depth: int = 4
    items: int = 64

    def __post_init__(self) -> None:
        if min(self.steps, self.depth, self.items) < 1:
            raise ConfigError(say("limits", "must be 1 or more", (self.steps, self.depth, self.items)))


_Stack = tuple[tuple[str, str], ...]


@final
class Decomposed(Edit):
    """A decomposer writes calls one by one; a controller has them answered and puts the answers into the next.

    A line is ``[handler] text`` or ``(operation) [handler] text``; ``#2`` in it is the answer of the second line, as
    JSON. Operations: `select` (one call), `project` (a call for each item of the list that the text names; pairs of
    item and answer), `projectKeys` and `projectValues` (the same on one side of pairs, whose other side is kept),
    `filter` (items for which the answer is yes). `_flat`, `_unique`, `_keys` and `_values` at the end of an operation
    work on its result: lists in lists joined, repetitions left out, one side of pairs. A line without a handler merges
    answers: `join` (texts, with a separator as second argument), `count`, `reverse`, `sum`, `concat` (lists). ``[EOQ]``
    ends a level: its last answer is the answer.

    Args:
        question: makes "Q: ..." of a row; see `reasoning.question`.
        handlers: who answers.
        limits: steps, depth, items.
        writing: of a line or answer; it ends with the line.
        budget: of an input.
    """

    site = "input"
    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(
        self,
        question: Template,
        handlers: Handlers,
        *,
        limits: Limits = Limits(),
        writing: Writing = Writing(tokens=128, stop=("\n",)),  # noqa: B008 - a frozen value
        budget: Budget = Budget(calls=64),  # noqa: B008 - a frozen value
    ) -> None:
        super().__init__()
        self.question, self.handlers, self.limits = question, handlers, limits
        self.writing, self.budget = writing, budget

    def forward(self, value: Texts) -> Texts:
        """The first prompts of the decomposer "main"."""
        asked = self.question(value).prompts
        return Texts({"prompt": tuple(f"{self._head('main', bare(one))}QS:" for one in asked)}, value.targets)

    def talk(self, row: Mapping[str, str], pictures: Pictures) -> Talk:
        """All calls for one input. Ends with "The answer is" and the last answer."""
        whole = asked(self.question, row)
        try:
            value = yield from self._level("main", bare(whole), ())
        except Unusable as problem:
            writing = Writing(tokens=2 * self.writing.tokens, stop=STOP)
            return (yield from fallen_back(chain_prompt(whole, self.handlers.chain), writing, str(problem)))
        return Written(text=f"{CUE} {shown(value)}.")

    def extra_repr(self) -> str:
        """What `print(program)` shows; it tells programs with different prompts apart."""
        h = self.handlers
        parts = (dict(h.decomposers), dict(h.prompts), sorted(h.tools), h.chain)
        return f"{parts}, {self.limits}, {self.writing}, {self.budget}"

    def _head(self, name: str, question: str) -> str:
        return "\n\n".join([*given(self.handlers.decomposers[name]), f"QC: {question}\n"])

    def _level(self, name: str, question: str, stack: _Stack) -> Calls:
        """A decomposer's lines up to its end; its last answer."""
        stack = self._deeper(name, question, stack)
        head, answers = self._head(name, question), list[object]()
        for _ in range(self.limits.steps):
            prompt = f"{head}QS:"
            said = yield Ask(prompt, self.writing)
            line = _written(said)
            try:
                value = yield from self._line(line, answers, stack)
            except Stuck:
                raise
            except Unusable as problem:
                said = yield Ask(again(prompt, line, str(problem)), self.writing)
                line = _written(said)
                value = yield from stuck(self._line(line, answers, stack))
            if value is _DONE:
                return answers[-1]
            answers.append(value)
            head = f"{head}QS: {line}\nA: {to_json(value)}\n"
        raise Stuck(f"{name!r} was not done after {self.limits.steps} steps")

    def _deeper(self, name: str, question: str, stack: _Stack) -> _Stack:
        """The stack with one more call, unless it is there already or there are too many levels."""
        here = (name, same(question))
        if here in stack:
            raise Unusable(f"[{name}] asks itself the same again: {question}")
        levels = sum(one in self.handlers.decomposers for one, _ in stack)
        if name in self.handlers.decomposers and levels >= self.limits.depth:
            raise Unusable(f"[{name}] would be level {levels + 1} of decomposers, and {self.limits.depth} are allowed")
        return (*stack, here)

    def _line(self, line: str, answers: Sequence[object], stack: _Stack) -> Calls:
        """The answer to one line; `_DONE` if there are to be no more."""
        if line == END:
            if not answers:
                raise Unusable(f"{END} came before any answer")
            return _DONE
        found = _CALL.fullmatch(line)
        if found is None or not (found["op"] or found["handler"]):
            raise Unusable(f'it must be "[handler] text", "(operation) [handler] text" or "{END}"')
        base, *after = (found["op"] or "select").split("_")
        if [one for one in after if one not in AFTERWARDS]:
            raise Unusable(f"what follows an operation must be among {list(AFTERWARDS)}")
        if found["handler"] is None:
            value = merged(base, filled(found["text"], answers))
        else:
            value = yield from self._operation(base, found["handler"], found["text"], answers, stack)
        for one in after:
            value = afterwards(one, value)
        return value

    def _operation(self, base: str, handler: str, text: str, answers: Sequence[object], stack: _Stack) -> Calls:
        if base not in OPERATIONS:
            raise Unusable(f"the operation must be among {list(OPERATIONS)}")
        if base == "select":
            return (yield from self._call(handler, filled(text, answers), stack))
        number, items = listed_in(text, answers)
        if len(items) > self.limits.items:
            raise Unusable(f"#{number} has {len(items)} items, more than {self.limits.items}")
        made: list[object] = []
        for item in items:
            key, other = sides(item) if base.startswith("project") and base != "project" else (item, None)
            varied = other if base == "projectValues" else key
            this = [*answers[: number - 1], varied, *answers[number:]]
            said = yield from self._call(handler, filled(text, this), stack)
            if base == "filter":
                made += [item] if shown(said).strip().casefold().rstrip(".") in _YES else []
            else:
                made.append({"project": [item, said], "projectKeys": [said, other], "projectValues": [key, said]}[base])
        return made

    def _call(self, name: str, text: str, stack: _Stack) -> Calls:
        """One handler's answer."""
        handlers = self.handlers
        if name in handlers.decomposers:
            return (yield from self._level(name, text, stack))
        if name in handlers.tools:
            try:
                return as_json(handlers.tools[name](text))
            except ReprogramError as problem:
                raise Unusable(f"[{name}] {problem}") from problem
        if name not in handlers.prompts:
            known = [*handlers.decomposers, *handlers.prompts, *handlers.tools]
            raise Unusable(f"there is no handler {name!r} among {known}")
        said = yield Ask("\n\n".join([*given(handlers.prompts[name]), f"Q: {text}\nA:"]), self.writing)
        answer = unmarked(said.text).rpartition(CUE)[2].strip()
        if not answer:
            raise Unusable(f"[{name}] gave no answer")
        return read_json(answer.rstrip(".") if CUE in said.text else answer)


def _written(said: Written) -> str:
    """What was written, without the name of the line that the prompt gave already."""
    return unmarked(said.text.strip().removeprefix("QS:").strip())
