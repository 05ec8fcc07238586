"""Prompts and what may follow them as token ids: chats rendered, prompt and choice tokenised together, texts cut."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from reprogram.core.errors import CapabilityError, DataError, say
from reprogram.core.texts import MASK, SEP, Texts
from reprogram.core.writing import PICTURE, turns
from reprogram.sources._tokenising import Tokeniser

AT_ONCE = 32
"""Prompts that are tokenised at a time: what tokenizers make of a text takes far more memory than its numbers."""


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt, ready to be read.

    Attributes:
        ids: of the prompt, up to the first token of any choice.
        choices: token ids of each choice, behind `ids`.
        shared: tokens at the start that other prompts of the program are likely to share: all before the first text
            that came from the data.
    """

    ids: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...] = ()
    shared: int = 0


def asked(
    tokeniser: Tokeniser,
    texts: Texts,
    choices: Sequence[Sequence[str]],
    room: int,
    context: int | None,
    *,
    begin: bool = True,
) -> list[Asked]:
    """Prompts and their choices as token ids.

    A choice is what follows the tokens that prompt-with-choice has in common with the prompt alone, for all choices of
    the prompt alike; where the tokenizer joins the end of the prompt with the start of a choice, these letters count
    with every choice.

    Args:
        tokeniser: of the source.
        texts: rendered prompts.
        choices: for each prompt; empty for prompts that are gone on from.
        room: tokens that must stay free, for a learned prompt and what is to be written.
        context: the source's limit; None for none.
        begin: put the special tokens that start a text before each.

    Raises:
        DataError: a choice without tokens, or a prompt that is too long though all that came from the data was cut.
        CapabilityError: a prompt with an answer's place before its end, with pictures, or a chat for a tokenizer
            that has no template for it.
    """
    found: list[Asked] = []
    for start in range(0, len(texts), AT_ONCE):
        read = [rendered(tokeniser, prompt) for prompt in texts.prompts[start : start + AT_ONCE]]
        part = choices[start : start + AT_ONCE]
        own = _ids(tokeniser, [text for text, _ in read])
        joined = [text + choice for (text, _), several in zip(read, part, strict=True) for choice in several]
        wholes = iter(_ids(tokeniser, joined))
        for row, ((text, chat), ids, several) in enumerate(zip(read, own, part, strict=True), start):
            lead = () if chat or not begin else _lead(tokeniser, bool(ids))
            one = _asked(text, ids, [next(wholes) for _ in several], several, lead)
            space = None if context is None else context - room - max(map(len, one.choices), default=0)
            if space is not None and len(one.ids) > space:
                ends = tuple(tuple(tokeniser.encode(c)) for c in several)
                one = Asked(_cut(tokeniser, texts, row, space), ends)
            found.append(replace(one, shared=_shared(tokeniser, texts, row, one.ids, len(lead))))
    return found


def _ids(tokeniser: Tokeniser, texts: Sequence[str]) -> list[list[int]]:
    return tokeniser.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []


def _asked(
    text: str, ids: list[int], wholes: Sequence[list[int]], choices: Sequence[str], lead: tuple[int, ...]
) -> Asked:  # fmt: skip
    """A prompt and its choices from the tokens of the prompt alone and with each choice."""
    base = min((_alike(ids, whole) for whole in wholes), default=len(ids))
    if base + len(lead) == 0:
        raise DataError(say("prompt", "must have a token, or the source one that starts a text", text))
    ends = [tuple(whole[base:]) for whole in wholes]
    if not all(ends):
        empty = [c for c, end in zip(choices, ends, strict=True) if not end]
        raise DataError(say("choice", "must have at least one token of its own", empty))
    return Asked((*lead, *ids[:base]), tuple(ends))


def rendered(tokeniser: Tokeniser, prompt: str) -> tuple[str, bool]:
    """What the model reads, and whether its special tokens are in it already."""
    if PICTURE in prompt:
        raise CapabilityError(say("source", "must take pictures for a prompt with pictures", "a source of text"))
    if MASK in prompt:
        head, _, tail = prompt.partition(MASK)
        if tail.strip():
            remedy = "Move {mask} to the end."
            raise CapabilityError(say("template", "must end in its {mask} for a source that writes", prompt, remedy))
        prompt = head
    prompt = prompt.replace(SEP, tokeniser.tokenizer.sep_token or "\n")
    said = turns(prompt)
    if said[0][0] == "":
        return prompt, False
    return _chat(tokeniser.tokenizer, said), True


def _chat(tokenizer: Any, said: list[tuple[str, str]]) -> str:
    """A chat in the tokenizer's own form, open for the assistant's answer."""
    if not getattr(tokenizer, "chat_template", None):
        remedy = "Leave `chat` off for this source."
        raise CapabilityError(say("tokenizer", "must have a chat template", type(tokenizer).__name__, remedy))
    begun = said[-1][1] if said[-1][0] == "assistant" else ""
    past = said[:-1] if said[-1][0] == "assistant" else said
    messages = [{"role": role, "content": text} for role, text in past]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + begun


def _lead(tokeniser: Tokeniser, any_ids: bool) -> tuple[int, ...]:
    """Special tokens before a text; before an empty one, something that the first token can follow."""
    if any_ids or tokeniser.before:
        return tokeniser.before
    start = tokeniser.special.get("bos", tokeniser.special.get("eos"))
    return () if start is None else (start,)


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common start."""
    if list(other[: len(one)]) == list(one):
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _cut(tokeniser: Tokeniser, texts: Texts, row: int, space: int) -> tuple[int, ...]:
    """The prompt with the texts from the data cut so that it fits."""
    prompt = texts.prompts[row].split(MASK)[0]
    if turns(prompt)[0][0]:
        remedy = "Show fewer examples, or shorten the text."
        raise DataError(say("prompt", f"must fit into {space} tokens", "a longer chat", remedy))
    spans = texts.spans[row] if texts.spans is not None else ((0, len(prompt)),)
    return tokeniser.fitted(prompt, spans, space)


def _shared(tokeniser: Tokeniser, texts: Texts, row: int, ids: tuple[int, ...], lead: int) -> int:
    if texts.spans is None or not texts.spans[row]:
        return 0
    prompt, start = texts.prompts[row], texts.spans[row][0][0]
    if start == 0 or turns(prompt)[0][0]:
        return 0
    return min(lead + _alike(tokeniser.remembered(prompt[:start]), ids[lead:]), len(ids) - 1)
