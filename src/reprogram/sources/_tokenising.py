"""From prompts to token ids: places for soft tokens and answers, the rule for texts that are too long, a cache."""

import itertools
import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from reprogram.core.errors import DataError, say
from reprogram.core.texts import MASK, SEP, SLOT, SLOTS, Spans, Texts, Tokens

CACHED = 200_000
"""Prompts whose tokens are remembered."""

_log = logging.getLogger("reprogram")
_MARKS = re.compile(f"([{MASK}{chr(SLOT)}-{chr(SLOT + SLOTS - 1)}])")


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt's tokens.

    Attributes:
        ids: token ids; 0 in the places of soft tokens.
        slots: their numbers, -1 elsewhere; empty without any.
        places: where the answers' scores are.
    """

    ids: tuple[int, ...]
    slots: tuple[int, ...] = ()
    places: tuple[int, ...] = ()


@final
class Tokeniser:
    """A tokenizer of transformers, with what prompts need of it.

    Args:
        tokenizer: of the model.
        kind: of the source; decides where an answer's scores are found: at a mask token, or at the token before.
        context: the longest sequence the model takes.

    Of a prompt that is too long the longest part that came from the data loses its last tokens (then the next longest);
    the template's own words, the learned prompt and the target stay. That is said once.
    """

    def __init__(self, tokenizer: Any, kind: str, context: int) -> None:
        self.tokenizer, self.kind, self.context = tokenizer, kind, context
        self.before, self.after = _around(tokenizer)
        names = ("bos", "eos", "pad", "cls", "sep", "mask", "unk")
        found = {name: getattr(tokenizer, f"{name}_token_id", None) for name in names}
        self.special = {name: int(number) for name, number in found.items() if number is not None}
        self._rows: OrderedDict[tuple[str, Spans, int], Row] = OrderedDict()
        self._warned = False
        self._last: tuple[str, list[int]] = ("", [])

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []

    def batch(self, texts: Texts, room: int, *, left: bool = False) -> Tokens:
        """Prompts, and the targets after them for sources that go on writing, as one padded batch.

        Args:
            texts: rendered by a template.
            room: tokens that something else takes (a learned prompt).
            left: pad on the left, as generation needs.

        Raises:
            DataError: a prompt is empty, or too long although all that came from the data was cut.
        """
        prompts = texts.prompts
        goals = [self._goal(t) for t in texts.targets] if texts.targets is not None else None
        rows: list[Row] = []
        for i, prompt in enumerate(prompts):
            spans = texts.spans[i] if texts.spans is not None else ((0, len(prompt)),)
            space = self.context - room - (len(goals[i]) if goals and self.kind == "causal" else 0)
            rows.append(self._row(prompt, spans, space))
        if goals is not None and self.kind == "causal":
            return _padded_with_goals(rows, goals, left)
        return _padded(rows, left)

    def fitted(self, prompt: str, spans: Spans, space: int) -> tuple[int, ...]:
        """Token ids of a prompt, special ones with it, the texts from the data cut so that it fits into `space`."""
        return self._row(prompt, spans, space).ids

    def remembered(self, text: str) -> list[int]:
        """`encode`, for a text that comes again and again, such as the demonstrations before every query."""
        if self._last[0] != text:
            self._last = (text, self.encode(text))
        return self._last[1]

    def goals(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of targets, each with the end token if there is one."""
        return [self._goal(text) for text in texts]

    def _goal(self, text: str) -> tuple[int, ...]:
        ids = self.encode(text)
        if not ids:
            raise DataError(say("target", "must have at least one token", text))
        return (*ids, *([self.special["eos"]] if "eos" in self.special else []))

    def _row(self, prompt: str, spans: Spans, space: int) -> Row:
        key = (prompt, spans, space)
        found = self._rows.get(key)
        if found is None:
            found = self._rows[key] = self._make(prompt, spans, space)
            if len(self._rows) > CACHED:
                self._rows.popitem(last=False)
        return found

    def _make(self, prompt: str, spans: Spans, space: int) -> Row:
        row = self._assembled(self._pieces(prompt))
        if len(row.ids) > space:
            row = self._assembled(self._cut(prompt, spans, space))
        if not row.ids:
            remedy = "Leave empty texts out, or give the template words of its own."
            raise DataError(say("text", "must have at least one token", prompt, remedy))
        return row

    def _pieces(self, prompt: str) -> list[str | list[int]]:
        """Texts, and marks between them."""
        separator = self.tokenizer.sep_token or "\n"
        prompt = prompt.replace(SEP, separator)
        return [piece for piece in _MARKS.split(prompt) if piece]

    def _cut(self, prompt: str, spans: Spans, space: int) -> list[str | list[int]]:
        """The same with the data's parts as token ids, cut so that all fits."""
        edges = sorted({0, len(prompt), *(edge for span in spans for edge in span)})
        parts: list[list[str | list[int]]] = []
        data: list[list[int]] = []
        fixed = len(self.before) + len(self.after)
        for start, end in itertools.pairwise(edges):
            if any(start >= s and end <= e for s, e in spans):
                data.append(self.encode(prompt[start:end]))
                parts.append([data[-1]])
            else:
                parts.append(self._pieces(prompt[start:end]))
                fixed += len(self._assembled(parts[-1]).ids) - len(self.before) - len(self.after)
        if fixed + min(1, len(data)) > space:
            remedy = "Shorten the template or the learned prompt."
            raise DataError(say("prompt", f"must leave room for a text in {space} tokens", f"{fixed} fixed", remedy))
        while fixed + sum(map(len, data)) > space:
            longest = max(data, key=len)
            rest = sorted(map(len, data))[-2] if len(data) > 1 else 0
            excess = fixed + sum(map(len, data)) - space
            del longest[max(1, rest, len(longest) - excess) if len(longest) > rest else len(longest) - 1 :]
        if not self._warned:
            self._warned = True
            _log.warning("A text is too long for the source's %d tokens: the end of the longest text is cut "
                         "(said once).", self.context)  # fmt: skip
        return [piece for part in parts for piece in part]

    def _assembled(self, pieces: Sequence[str | list[int]]) -> Row:
        ids, slots, places = list(self.before), [-1] * len(self.before), list[int]()
        for piece in pieces:
            if isinstance(piece, str) and _MARKS.fullmatch(piece):
                if piece != MASK:
                    ids.append(0)
                    slots.append(ord(piece) - SLOT)
                    continue
                if self.kind == "masked":
                    places.append(len(ids))
                    ids.append(self.special["mask"])
                    slots.append(-1)
                else:  # what the next token would be here
                    places.append(max(0, len(ids) - 1))
                continue
            more = self.encode(piece) if isinstance(piece, str) else piece
            ids += more
            slots += [-1] * len(more)
        ids += self.after
        slots += [-1] * len(self.after)
        return Row(tuple(ids), tuple(slots) if max(slots, default=-1) >= 0 else (), tuple(places))


def _around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the tokenizer puts before and after a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start]), tuple(full[start + len(bare) :])
    return (), ()


def _padded(rows: Sequence[Row], left: bool) -> Tokens:
    length = max((len(row.ids) for row in rows), default=0)
    start = [length - len(row.ids) if left else 0 for row in rows]
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    slots = torch.full((len(rows), length), -1) if any(row.slots for row in rows) else None
    for i, row in enumerate(rows):
        at = slice(start[i], start[i] + len(row.ids))
        ids[i, at] = torch.tensor(row.ids)
        mask[i, at] = True
        if slots is not None and row.slots:
            slots[i, at] = torch.tensor(row.slots)
    counts = {len(row.places) for row in rows}
    if len(counts) > 1:
        raise DataError(say("places", "must be as many in every prompt of a batch", sorted(counts)))
    places = None
    if rows and rows[0].places:
        places = torch.tensor([[p + at for p in row.places] for row, at in zip(rows, start, strict=True)])
    return Tokens(ids, mask, slots, places)


def _padded_with_goals(rows: Sequence[Row], goals: Sequence[tuple[int, ...]], left: bool) -> Tokens:
    """Each prompt with its target behind it; a token's target is the token after it."""
    whole = _padded(
        [Row((*r.ids, *g), (*r.slots, *[-1] * len(g)) if r.slots else ()) for r, g in zip(rows, goals, strict=True)],
        left,
    )
    targets = torch.full_like(whole.ids, -100)
    for i, (row, goal) in enumerate(zip(rows, goals, strict=True)):
        start = int(whole.mask[i].int().argmax()) + len(row.ids) - 1
        if start < 0:
            raise DataError(say("prompt", "must have a token before the target", "an empty one"))
        targets[i, start : start + len(goal)] = torch.tensor(goal)
    return Tokens(whole.ids, whole.mask, whole.slots, None, targets)
