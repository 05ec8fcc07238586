"""What edits that add tokens share: where tokens go in a plain tensor, and a layer that starts at given values."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.inserting import Where

_SMALLEST = 1e-3  # singular values below this share of the largest are noise, and dividing by them would blow it up


def inserted(
    value: Float[Tensor, " batch tokens d"], added: Float[Tensor, " batch n width"], where: Where
) -> Float[Tensor, " batch longer d"]:
    """The sequences with n tokens before the first token, after it, or after the last.

    Raises:
        ConfigError: the width differs, or the places are those of a template, which a plain tensor knows nothing of.
    """
    if value.shape[-1] != added.shape[-1]:
        raise ConfigError(say("value", f"must be tokens of width {added.shape[-1]}", value.shape[-1]))
    if where == "slots":
        raise ConfigError(say("where", "must be start, after_first or end outside a source of text", where))
    at = {"start": 0, "after_first": 1, "end": value.shape[1]}[where]
    return torch.cat([value[:, :at], added.to(value.dtype), value[:, at:]], dim=1)


def behind(
    value: Float[Tensor, " rows tokens d"], sets: Float[Tensor, " sets n width"], *, replaces: bool
) -> Float[Tensor, " more longer d"]:
    """Sequences with each of K sets of n tokens behind them, sequence 0 with all of them first.

    Args:
        value: sequences; where `replaces`, rows are in that order already, and end with n tokens that give way.
        sets: the tokens.
        replaces: see `value`.

    Raises:
        ConfigError: the width differs, or the sequences are too short or too few.
    """
    n = sets.shape[1]
    check_sequences(value, sets.shape[2], n if replaces else 0)
    kept = value[:, : value.shape[1] - n] if replaces else value.repeat_interleave(len(sets), 0)
    return torch.cat([kept, by_row(kept, sets)], dim=1)


def by_row(value: Float[Tensor, " rows tokens d"], sets: Float[Tensor, " sets n d"]) -> Float[Tensor, " rows n d"]:
    """The tokens of each row's set: set ``r mod K`` in row r.

    Raises:
        ConfigError: the rows cannot be divided among the sets.
    """
    if len(value) % len(sets):
        raise ConfigError(say("value", f"must have rows for each of {len(sets)} sets", len(value)))
    return sets.to(value.dtype).repeat(len(value) // len(sets), 1, 1)


def check_sequences(value: Tensor, width: int, least: int) -> None:
    """Sequences of vectors so wide, with at least so many tokens."""
    if value.ndim != 3 or value.shape[-1] != width or value.shape[1] < least:
        need = f"must be sequences of width {width} and at least {least} tokens"
        raise ConfigError(say("value", need, list(value.shape)))


def check_where(where: str) -> None:
    """One of the four places."""
    if where not in ("start", "after_first", "end", "slots"):
        raise ConfigError(say("where", "must be start, after_first, end or slots", where))


def check_start(start: Tensor, axes: str) -> None:
    """A finite tensor with such axes, none of them empty."""
    if start.ndim != len(axes.split()) or not start.numel():
        raise ConfigError(say("start", f"must be of shape [{axes}], with nothing empty", list(start.shape)))
    if not bool(start.isfinite().all()):
        raise ConfigError(say("start", "must be finite numbers", "NaN or infinity"))


@torch.no_grad()
def meet(last: nn.Linear, seen: Float[Tensor, " n h"], wanted: Float[Tensor, " n out"]) -> None:
    """Change a linear layer by as little as is needed for ``last(seen) == wanted``, in place.

    Its random start stays in all directions that do not matter, so that the network before it learns as it would. With
    more rows than h can tell apart, the nearest in the sense of least squares.
    """
    seen, wanted = seen.double(), wanted.double()
    middle = seen.mean(0)
    centred = seen - middle
    weight = last.weight.double()
    missing = wanted - wanted.mean(0) - centred @ weight.T
    inverse = cast("Tensor", torch.linalg.pinv(centred, rtol=_SMALLEST))  # pyright: ignore
    weight = weight + (inverse @ missing).T
    last.weight.copy_(weight)
    last.bias.copy_(wanted.mean(0) - weight @ middle)
