"""Least-to-most prompting: a list of simpler questions, then their answers in order, each after all earlier ones.

Zhou et al., "Least-to-Most Prompting Enables Complex Reasoning in Large Language Models", 2022, arXiv:2205.10625. The
demonstrations are our own.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from reprogram.core.conversation import Ask, Budget, Pictures, Talk
from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.task import Example
from reprogram.core.taxonomy import Operator
from reprogram.core.texts import Texts
from reprogram.core.writing import Writing, Written
from reprogram.inputs.control import Unusable, bare, fallen_back, given, retried, same
from reprogram.inputs.reasoning import STOP, asked, chain_prompt, unmarked
from reprogram.inputs.template import Template

_ITEM = re.compile(r"[ \t]*+(?:(?:[0-9]{1,3}[.)]|[-*•])[ \t]*+)*+(?P<text>[^\n]*+)")

DECOMPOSING = """\
Q: A baker fills 6 trays with 12 rolls each. He sells 45 rolls before noon. How many rolls are left?
To answer this, first answer:
1. How many rolls did the baker make?
2. How many rolls are left?

Q: Nadia has 18 stamps. Her brother has 3 times as many, and their cousin has 10 stamps fewer than the brother. How \
many stamps do the three have together?
To answer this, first answer:
1. How many stamps does the brother have?
2. How many stamps does the cousin have?
3. How many stamps do the three have together?"""
"""Our own demonstrations of taking a question apart."""

SOLVING = """\
A baker fills 6 trays with 12 rolls each. He sells 45 rolls before noon. How many rolls are left?

Q: How many rolls did the baker make?
A: 6 trays with 12 rolls each are 6 * 12 = 72 rolls. The answer is 72.

Q: How many rolls are left?
A: The baker made 72 rolls and sold 45. 72 - 45 = 27 rolls are left. The answer is 27."""
"""Our own demonstrations of answering the parts in order."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LadderPrompts:
    """The prompts of least-to-most.

    Attributes:
        decomposing: demonstrations of questions taken apart.
        solving: demonstrations of the parts answered in order.
        chain: demonstrations of the plain chain of thought that is the last resort.
    """

    decomposing: str = DECOMPOSING
    solving: str = SOLVING
    chain: tuple[Example, ...] = ()


@final
class LeastToMost(Edit):
    """Ask for simpler questions, then for their answers, each after all earlier ones.

    Args:
        question: makes "Q: ..." of a row; see `reasoning.question`.
        prompts: demonstrations.
        most: questions that one may be taken apart to; a longer list is unusable. Repeated questions are left out.
        writing: of an answer.
        budget: of an input.

    Raises:
        ConfigError: `most` is below 1.
    """

    site = "input"
    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(
        self,
        question: Template,
        prompts: LadderPrompts = LadderPrompts(),
        *,
        most: int = 8,
        writing: Writing = Writing(stop=STOP),  # noqa: B008 - a frozen value
        budget: Budget = Budget(),  # noqa: B008 - a frozen value
    ) -> None:
        super().__init__()
        if most < 1:
            raise ConfigError(say("most", "must be 1 or more", most))
        self.question, self.prompts, self.most = question, prompts, most
        self.writing, self.budget = writing, budget

    def forward(self, value: Texts) -> Texts:
        """The prompts of the first stage."""
        asked = self.question(value).prompts
        return Texts({"prompt": tuple(self._apart(bare(one)) for one in asked)}, value.targets)

    def talk(self, row: Mapping[str, str], pictures: Pictures) -> Talk:
        """Both stages for one input. Ends with the answer to the last question."""
        whole = asked(self.question, row)
        try:
            parts = yield from self._parts(bare(whole))
            said = yield from self._solve(bare(whole), parts)
        except Unusable as problem:
            return (yield from fallen_back(chain_prompt(whole, self.prompts.chain), self.writing, str(problem)))
        return said

    def extra_repr(self) -> str:
        """What `print(program)` shows; it tells programs with different prompts apart."""
        return f"{self.prompts}, most={self.most}, {self.writing}, {self.budget}"

    def _apart(self, whole: str) -> str:
        return "\n\n".join([*given(self.prompts.decomposing), f"Q: {whole}\nTo answer this, first answer:\n1."])

    def _parts(self, whole: str) -> Generator[Ask, Written, list[str]]:
        """The simpler questions, the whole one last."""
        found = yield from retried(self._apart(whole), self.writing, self._listed)
        last = _last_question(whole)
        rest = [part for part in found if same(part) not in (same(whole), same(last))]
        return [*rest, last]

    def _listed(self, said: Written) -> list[str]:
        """The questions of a list; without the last one, if that was cut off."""
        lines = [found["text"].strip() for line in f"1.{said.text}".split("\n") if (found := _ITEM.match(line))]
        lines = lines[:-1] if said.finish == "length" and len(lines) > 1 else lines
        parts = list({same(line): line for line in reversed(lines) if line}.values())[::-1]
        if not parts:
            raise Unusable("it lists no question")
        if len(parts) > self.most:
            raise Unusable(f"it lists {len(parts)} questions, more than {self.most}")
        return [unmarked(part) for part in parts]

    def _solve(self, whole: str, parts: Sequence[str]) -> Talk:
        prompt, said = "\n\n".join([*given(self.prompts.solving), whole]), Written(text="")
        for part in parts:
            prompt = f"{prompt}\n\nQ: {part}\nA:"
            said = yield Ask(prompt, self.writing)
            if not said.text.strip():
                raise Unusable(f"there is no answer to {part!r}")
            prompt = f"{prompt} {unmarked(said.text.strip())}"
        return said


def _last_question(text: str) -> str:
    """The sentence that asks, or the whole text."""
    sentences = re.split(r"(?<=[.?!])\s+", text)
    asks = [one for one in sentences if one.endswith("?")]
    return asks[-1] if asks else text
