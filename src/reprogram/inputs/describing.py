"""What a language model writes about classes: asked again and again until there are enough sentences of use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.program import Input
from reprogram.core.source import PromptSource, Reading
from reprogram.core.texts import Texts
from reprogram.core.writing import ASSISTANT, USER, Writing, Written
from reprogram.inputs.descriptions import distinct

_BATCH = 16  # questions to a call of the writer


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Describing:
    """How a writer is asked, and what of its answers is kept.

    Attributes:
        count: m, sentences for each class (20 as in AttrVR and DVP).
        shortest: letters of a sentence at least (20 as in AttrVR's code).
        rounds: times that a class is asked about, while it has too few sentences.
        tokens: of an answer at most (50 as in CuPL's code).
        temperature: of the draws (0.7, with `top_p`: ours; CuPL's 0.99 is for a model a thousand times the size of
            those that run here, which at that temperature lose the thread).
        top_p: the likeliest words that have this probability together are drawn from (0.9, ours).
        seed: of the draws.
        chat: put the questions as turns of a chat; off for a writer that only goes on with a text.

    Raises:
        ConfigError: a number is out of range.
    """

    count: int = 20
    shortest: int = 20
    rounds: int = 8
    tokens: int = 50
    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0
    chat: bool = True

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("shortest", 0), ("rounds", 1), ("tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(say(name, f"must be {least} or more", getattr(self, name)))
        if not 0 < self.temperature < float("inf") or not 0 < self.top_p <= 1:
            got = (self.temperature, self.top_p)
            raise ConfigError(say("temperature, top_p", "must be above 0, for answers that differ, and up to 1", got))


def describe(writer: PromptSource, questions: Sequence[str], how: Describing) -> list[str]:
    """Sentences about one class: `how.count` distinct ones, or fewer if the writer has no more to say.

    Every round asks all questions, so often that one and a half times what is missing would come if every answer were
    kept. An answer is read up to its first full stop, as CuPL reads them, or to the end of its first line.

    Args:
        writer: is asked.
        questions: with the class's name in them.
        how: see `Describing`.

    Raises:
        ConfigError: there are no questions.
        DataError: the writer does not write.
    """
    if not questions:
        raise ConfigError(say("questions", "must be one or more", list(questions)))
    kept = list[str]()
    for number in range(how.rounds):
        samples = max(2, -(-3 * (how.count - len(kept)) // (2 * len(questions))))
        writing = Writing(tokens=how.tokens, stop=(".",), samples=samples, temperature=how.temperature,
                          top_p=how.top_p, seed=how.seed + 1_000_003 * number)  # fmt: skip
        answers = ask(writer, questions, writing, chat=how.chat)
        by_turns = [answer.partition("\n")[0] for several in zip(*answers, strict=True) for answer in several]
        kept = useful([*kept, *by_turns], how.shortest)
        if len(kept) >= how.count:
            break
    return kept[: how.count]


def useful(texts: Sequence[str], shortest: int) -> list[str]:
    """Distinct texts that are long enough, hold two words at least and announce nothing.

    >>> useful(["It has red petals.", "it has  red petals.", "Red.", "************ ********", "Some facts:"], 10)
    ['It has red petals.']
    """
    words = [(text, [w for w in text.split() if any(map(str.isalpha, w))]) for text in distinct(texts)]
    return [text for text, own in words if len(text) >= shortest and len(own) >= 2 and text[-1] != ":"]


def ask(writer: PromptSource, questions: Sequence[str], writing: Writing, *, chat: bool = True) -> list[list[str]]:
    """For each question, as many answers as `writing` has samples; a full stop that ended one is put back.

    Args:
        writer: is asked, some questions at a time.
        questions: each a prompt.
        writing: how it writes.
        chat: each question is a turn of a chat, instead of a text to go on with.

    Raises:
        DataError: the writer does not write.
    """
    found = list[list[str]]()
    for start in range(0, len(questions), _BATCH):
        part = questions[start : start + _BATCH]
        prompts = tuple(f"{USER}{text}{ASSISTANT}" if chat else text for text in part)
        several = writer(Texts({"prompt": prompts}), Input(), Reading(writing=writing)).written
        if several is None:
            raise DataError(say("writer", "must write", writer.spec.ref))
        found += [[_sentence(one) for one in answers] for answers in several]
    return found


def _sentence(one: Written) -> str:
    """Its full stop is what writing stopped at."""
    text = one.text.strip()
    return f"{text}." if text and one.finish == "stop" and text[-1] not in ".!?" else text
