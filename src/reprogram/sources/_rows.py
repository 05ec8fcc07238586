"""Texts as users hand them over, as batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reprogram.core.errors import DataError, say
from reprogram.core.texts import Texts, Tokens


def as_texts(inputs: object, columns: tuple[str, ...]) -> Texts:
    if isinstance(inputs, Texts):
        return inputs
    given = [inputs] if isinstance(inputs, (str, Mapping)) else inputs
    if not isinstance(given, (list, tuple)) or not given:
        raise DataError(say("inputs", "must be a text, a list of texts, or rows with the task's columns", inputs))
    rows = [_row(one, columns, i) for i, one in enumerate(given)]
    return Texts({name: tuple(row[name] for row in rows) for name in columns})


def _row(one: object, columns: tuple[str, ...], number: int) -> dict[str, str]:
    where = f"inputs[{number}]"
    if isinstance(one, str) and len(columns) == 1:
        row: Mapping[Any, Any] = {columns[0]: one}
    elif isinstance(one, (list, tuple)) and len(one) == len(columns):
        row = dict(zip(columns, one, strict=True))
    elif isinstance(one, Mapping):
        row = one
    else:
        raise DataError(say(where, f"must be a text for each of {list(columns)}", one))
    bad = [name for name in columns if not isinstance(row.get(name), str)]
    if bad:
        raise DataError(say(where, f"must have text in {bad}", dict(row)))
    return {name: str(row[name]) for name in columns}


def joined_rows(parts: Sequence[tuple[int, Texts]]) -> Texts:
    """Prompts of several templates as one batch."""
    prompts = tuple(one.prompts[0] for _, one in parts)
    spans = tuple(one.spans[0] if one.spans is not None else ((0, len(one.prompts[0])),) for _, one in parts)
    return Texts({"prompt": prompts}, None, spans)


def repeated(tokens: Tokens, times: int) -> Tokens:
    """Each row so many times, one after another."""
    parts = (tokens.ids, tokens.mask, tokens.slots, tokens.places, tokens.targets, tokens.kinds)
    return Tokens(*(None if p is None else p.repeat_interleave(times, 0) for p in parts))  # type: ignore[arg-type]


def by_length(texts: Sequence[str], encode: Callable[[tuple[str, ...]], Tensor], at_once: int) -> Tensor:
    """A row for each text, in order; encoded with others of like length, so that little of a pass is padding.

    >>> by_length(["abc", "", "ab"], lambda some: torch.tensor([[len(t)] for t in some]), 2).flatten().tolist()
    [3, 0, 2]
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = [encode(tuple(texts[i] for i in order[at : at + at_once])) for at in range(0, len(order), at_once)]
    whole = torch.cat(parts)
    return whole[torch.tensor(order).argsort().to(whole.device)]
