"""Label words: which texts stand for which class, and how a source's tokenizer writes them after a prompt."""

import difflib
from collections.abc import Mapping, Sequence

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.source import TextSource
from reprogram.core.task import TaskSpec

Words = Mapping[str, str | tuple[str, ...]] | tuple[str | tuple[str, ...], ...]
"""A word or several for each class: by class name, or in the order of the task's classes."""

Tokenised = tuple[tuple[int, ...], ...]
"""Token ids of each of a class's words."""


def words_of(task: TaskSpec, words: Words | None = None) -> list[tuple[str, ...]]:
    """The label words of each class, in the task's order; the class names themselves where none are given.

    Raises:
        ConfigError: a class without a word, a word without letters, or words for a class that the task has not.

    >>> from reprogram.core.task import Sample
    >>> task = TaskSpec(name="t", classes=("bad", "good"), sample=Sample(shape=()), modality="text")
    >>> words_of(task), words_of(task, {"good": ("great", "fine"), "bad": "awful"})
    ([('bad',), ('good',)], [('awful',), ('great', 'fine')])
    """
    if words is None:
        found = {name: (name,) for name in task.classes}
    elif isinstance(words, Mapping):
        for name in words:
            if name not in task.classes:
                near = difflib.get_close_matches(name, task.classes, 1)
                remedy = f"Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(say("words", f"must be for the classes {list(task.classes)}", name, remedy))
        found = {name: _several(words.get(name, ())) for name in task.classes}
    else:
        if len(words) != len(task.classes):
            raise ConfigError(say("words", f"must be one entry for each of {len(task.classes)} classes", len(words)))
        found = dict(zip(task.classes, map(_several, words), strict=True))
    for name, several in found.items():
        if not several or not all(word.strip() for word in several):
            raise ConfigError(say(f"words[{name!r}]", "must be a word or several", list(several)))
    return list(found.values())


def tokenised_words(
    source: TextSource, task: TaskSpec, words: Words | None = None, *, after: str = ""
) -> list[Tokenised]:
    """Token ids of the label words of each class, as the source would write them after a prompt.

    Where the source's tokenizer holds a space to be part of the word that follows (GPT-2 and its kin), the words get
    one, unless the prompt ends in white space itself.

    Args:
        source: whose tokenizer is used.
        task: whose classes they stand for.
        words: see `words_of`.
        after: the text right before the answer.

    Raises:
        CapabilityError: the source has no vocabulary to score (an encoder or a classifier).
        ConfigError: see `words_of`; also a word that has no tokens or unknown ones, and words of two classes that are
            the same tokens.
    """
    if source.kind not in ("causal", "masked", "seq2seq"):
        remedy = "Read its features with a linear output instead."
        got = f"{source.spec.ref} ({source.kind})"
        raise CapabilityError(say("source", "must score a vocabulary for label words", got, remedy))
    spaced = space_belongs_to_word(source) and after == after.rstrip()
    found: list[Tokenised] = []
    owner: dict[tuple[int, ...], tuple[str, str]] = {}
    for name, several in zip(task.classes, words_of(task, words), strict=True):
        mine: list[tuple[int, ...]] = []
        for word in several:
            ids = tuple(source.encode(f" {word.strip()}" if spaced else word.strip()))
            _check_known(source, name, word, ids)
            other = owner.setdefault(ids, (name, word))
            if other[0] != name:
                remedy = "Choose other words: the source cannot tell these apart."
                need = "must differ between classes in the source's tokens"
                raise ConfigError(say("words", need, [other, (name, word)], remedy))
            mine.append(ids)
        found.append(tuple(dict.fromkeys(mine)))
    return found


def space_belongs_to_word(source: TextSource) -> bool:
    """Whether "x y" is other tokens than "x" and "y": then a word after another one is written with its space."""
    return source.encode("x y") != source.encode("x") + source.encode("y")


def _several(words: str | Sequence[str]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)


def _check_known(source: TextSource, name: str, word: str, ids: tuple[int, ...]) -> None:
    if not ids:
        raise ConfigError(say(f"words[{name!r}]", "must be words that the source's tokenizer knows", word,
                              "It makes no token of it."))  # fmt: skip
    if source.special.get("unk") in ids:
        raise ConfigError(say(f"words[{name!r}]", "must be words that the source's tokenizer knows", word,
                              "It has an unknown token in it; give other label words (`words`)."))  # fmt: skip
