r"""Retrieval and reasoning in turns: what is found leads to the next sentence, which leads to what is found next.

Trivedi et al., "Interleaving Retrieval with Chain-of-Thought Reasoning for Knowledge-Intensive Multi-Step Questions",
2022, arXiv:2212.10509. Passages are only ever added at the end, so that a prompt's beginning stays as it was, for
sources that keep what they have read. The demonstrations are our own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

from reprogram.core.conversation import Ask, Budget, Pictures, Talk
from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.core.texts import Texts
from reprogram.core.writing import Writing, Written
from reprogram.inputs.control import given
from reprogram.inputs.reasoning import CUE, STOP, asked, unmarked
from reprogram.inputs.retrieval import Passage, Retriever, near_duplicate
from reprogram.inputs.template import Template

Reader = Literal["cot", "direct", "none"]

DEMONSTRATION = """\
Title: Danube
The Danube is a river in Europe. It rises in the Black Forest and flows through Vienna, Budapest and Belgrade to the \
Black Sea.

Title: Hungary
Hungary is a country in Central Europe. Its capital is Budapest.

Q: On which river is the capital of Hungary?
A: The capital of Hungary is Budapest. Budapest is on the Danube. The answer is: the Danube."""
"""Our own demonstration of sentences that each draw on one passage."""

DIRECT = DEMONSTRATION.replace(
    "The capital of Hungary is Budapest. Budapest is on the Danube. The answer is: the Danube.", "the Danube"
)
"""The same with the answer alone, for a direct reader."""

_END = re.compile(r"\banswer is:?[ \t]*(?P<answer>\S[^\n]*)", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])(?P<closing>[\"')\]]?)\s+(?=[A-Z0-9\"'(\[])")
_SHORT = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Mt|Gen|Col|Lt|Sgt|Jr|Sr|vs|etc|Inc|Ltd|Co|No|Fig|cf|(?:[A-Za-z]\.){1,4}[A-Za-z])\.$"
)
_REASONS = re.compile(
    r"\s*(?:thus|so|therefore|hence|that is,)\b|.*[0-9]\s*[-+*/]\s*[0-9.]+\s*=\s*[0-9]", re.IGNORECASE
)
_ASKING = re.compile(r"\b(?:who|whom|whose|what|when|where|which|why|how)\b", re.IGNORECASE)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How retrieval and reasoning take turns.

    Attributes:
        k: passages to find each time (the paper tunes it among 2, 4, 6 and 8).
        sentences: to reason at most (section 3.1; the authors' code: 10).
        most: passages in all (the authors' code: 15).
        shown_words: of a passage that are shown (the authors' code: 350).
        longest: words; longer passages are passed over (the authors' code: 600).
        reader: how the answer is read at the end: "cot" or "direct", by one more prompt with all passages; "none" takes
            it from the last sentence.
        reasoning: demonstrations with passages, for the sentences and the reader "cot".
        reading: demonstrations with passages, for the reader "direct".

    Raises:
        ConfigError: a number below 1.
    """

    k: int = 6
    sentences: int = 10
    most: int = 15
    shown_words: int = 350
    longest: int = 600
    reader: Reader = "cot"
    reasoning: str = DEMONSTRATION
    reading: str = DIRECT

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("k", "sentences", "most", "shown_words", "longest")}
        if min(numbers.values()) < 1:
            raise ConfigError(say("turns", "must have numbers of 1 or more", numbers))


@final
class Interleaved(Edit):
    """Find passages, reason by one sentence, find more by it, until a sentence gives the answer; then read it.

    Args:
        question: makes "Q: ..." and "A:" of a row; see `reasoning.question`.
        retriever: finds passages.
        turns: numbers and demonstrations.
        writing: of a sentence and of the reader's answer.
        budget: of an input.
    """

    site = "input"
    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(
        self,
        question: Template,
        retriever: Retriever,
        turns: Turns = Turns(),
        *,
        writing: Writing = Writing(stop=STOP),  # noqa: B008 - a frozen value
        budget: Budget = Budget(),  # noqa: B008 - a frozen value
    ) -> None:
        super().__init__()
        self.question, self.retriever, self.turns = question, retriever, turns
        self.writing, self.budget = writing, budget

    def forward(self, value: Texts) -> Texts:
        """The first prompts, with what is found by the questions alone."""
        rows = [value.row(i) for i in range(len(value))]
        prompts = [
            self._prompt(self.turns.reasoning, self._more([], _plain(row)), asked(self.question, row)) for row in rows
        ]
        return Texts({"prompt": tuple(prompts)}, value.targets)

    def talk(self, row: Mapping[str, str], pictures: Pictures) -> Talk:
        """All turns for one input. Ends with the reader's text, or with "The answer is" and the answer."""
        whole = asked(self.question, row)
        found, said = self._more([], _plain(row)), list[str]()
        for _ in range(self.turns.sentences):
            prompt = self._prompt(self.turns.reasoning, found, whole)
            text = yield Ask(" ".join([prompt, *said]), self.writing)
            sentence = unmarked(first_sentence(text.text))
            if sentence:
                said.append(sentence)
            if not sentence or _END.search(sentence):
                break
            found = self._more(found, search_words(said, _plain(row)))
        if self.turns.reader == "none":
            return Written(text=_last_word(said))
        demonstrations = self.turns.reasoning if self.turns.reader == "cot" else self.turns.reading
        answer = yield Ask(self._prompt(demonstrations, found, whole), self.writing)
        direct = self.turns.reader == "direct"
        return Written(text=f"{CUE} {answer.text.strip()}" if direct else answer.text, finish=answer.finish)

    def extra_repr(self) -> str:
        """What `print(program)` shows; it tells programs with different passages apart."""
        return f"{self.turns}, {self.retriever.digest()[:16]}, {self.writing}, {self.budget}"

    def _more(self, found: Sequence[Passage], query: str) -> list[Passage]:
        """What was found so far and, after it, what a query adds; no near duplicates, up to the most there may be."""
        made = list(found)
        for passage in self.retriever.retrieve(query, self.turns.k):
            known = any(near_duplicate(passage, one) for one in made)
            if len(made) < self.turns.most and not known and len(passage.text.split()) <= self.turns.longest:
                made.append(passage)
        return made

    def _prompt(self, demonstrations: str, found: Sequence[Passage], whole: str) -> str:
        shown = [f"Title: {unmarked(one.title)}\n{unmarked(_cut(one.text, self.turns.shown_words))}" for one in found]
        return "\n\n".join([*given(demonstrations), *shown, whole])


def first_sentence(text: str) -> str:
    """The first sentence of a text; a stop after an initial or a common abbreviation does not end it.

    >>> first_sentence("Dr. A. Smith was born in St. Ives. He moved."), first_sentence(" 3.5 is more. So")
    ('Dr. A. Smith was born in St. Ives.', '3.5 is more.')
    """
    line = text.strip().partition("\n")[0]
    for found in _SENTENCE.finditer(line):
        if not _SHORT.search(line[max(0, found.start() - 16) : found.start()]):
            return line[: found.end("closing")].strip()
    return line.strip()


def search_words(sentences: Sequence[str], question: str) -> str:
    """What to search for after some sentences: the last that brings something new, else the question.

    Sentences that only conclude or calculate bring nothing new; question words are left out.

    >>> search_words(["Budapest is its capital.", "So it lies on a river."], "Which river?")
    'Budapest is its capital.'
    >>> search_words(["Thus 3 + 4 = 7."], "Which river is it?")
    'river is it?'
    """
    new = [one for one in sentences if not _REASONS.match(one)]
    return " ".join(_ASKING.sub(" ", new[-1] if new else question).split())


def _last_word(sentences: Sequence[str]) -> str:
    """The answer that the last sentence gives, behind the cue; the whole chain if it gives none."""
    found = _END.search(sentences[-1]) if sentences else None
    return f"{CUE} {found['answer'].removesuffix('.')}." if found else " ".join(sentences)


def _plain(row: Mapping[str, str]) -> str:
    return " ".join(row.values())


def _cut(text: str, most: int) -> str:
    return " ".join(text.split()[:most])
