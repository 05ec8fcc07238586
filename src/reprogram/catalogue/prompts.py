"""Arithmetic with learned prompts of one source, and a look at the words that are nearest to them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from math import inf
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, FingerprintError, say
from reprogram.core.inserting import Compacting, Inserting
from reprogram.core.program import Edit, Program
from reprogram.core.source import TextSource, text_source
from reprogram.inputs import Prefix, SoftPrompt

How = Literal["concatenate", "average", "interpolate"]

_ROWS = 8192  # of the vocabulary at a time


@final
@dataclass(frozen=True, slots=True)
class NearToken:
    """A token of the vocabulary and how near it is.

    Attributes:
        id: of the token.
        text: its text; its number where the source has no tokenizer.
        cosine: of the angle between its embedding and the learned one.
    """

    id: int
    text: str
    cosine: float


@torch.no_grad()
def combine(programs: Sequence[Program], how: How = "concatenate", weights: Sequence[float] | None = None) -> Program:
    """One program from the prompts, or the prefixes, of several on the same source.

    The first program says how texts are put, how answers are read and which task it is for; of the others only the
    prompt is taken. Networks that make a prompt are left out: it is the prompts themselves that are combined.

    Args:
        programs: two or more, each with one soft prompt at the same place, or each with one prefix. Not compiled ones,
            whose keys carry positions already: combine first, then compile.
        how: "concatenate" puts them one after another, in the order given, and sums their lengths; "average" takes the
            mean, weighted or not; "interpolate" takes `(1 - t) * first + t * second` of two, where t below 0 or above
            1 goes beyond them.
        weights: for "average" one of 0 or more for each, divided by their sum, None for equal ones; for "interpolate"
            `(1 - t, t)`, None for the middle; None for "concatenate".

    Raises:
        ConfigError: fewer than two programs, weights that do not fit, lengths or places that differ, or a program that
            no method made.
        CapabilityError: a program has no soft prompt or prefix, several, or a compiled one.
        FingerprintError: the programs are not on the same source.

    Example:
        both = combine([sentiment, formal], "interpolate", weights=[0.7, 0.3])
    """
    if len(programs) < 2:
        raise ConfigError(say("programs", "must be two or more to be combined", len(programs)))
    _check_source(programs)
    first, edits = programs[0], [_prompt(program) for program in programs]
    _check_alike(edits, how)
    values: list[Tensor] = [edit.values.detach().to(first.source.device) for edit in edits]
    if how == "concatenate":
        if weights is not None:
            raise ConfigError(say("weights", "must not be given to concatenate", list(weights)))
        made = torch.cat(values)
    else:
        shares = _shares(how, weights, len(programs))
        made = torch.stack([share * value.double() for share, value in zip(shares, values, strict=True)]).sum(0).float()
    return _like(first, edits[0], made)


@torch.no_grad()
def nearest_tokens(program: Program, k: int = 5) -> list[list[NearToken]]:
    """For each learned token the k tokens of the vocabulary whose embeddings point most nearly the same way.

    A hint, not a translation: a learned token need not mean any word, small cosines are common, what the program does
    is often not what the words say, and prompts that do the same may be near to quite different words.

    Args:
        program: whose soft prompt is looked at (of a source that reads text).
        k: tokens of the vocabulary for each learned one; fewer where the vocabulary is smaller.

    Returns:
        One list for each learned token, the nearest first.

    Raises:
        CapabilityError: the program has no soft prompt, or several; a prefix is no embedding of tokens.
        ConfigError: k is below 1.
    """
    if k < 1:
        raise ConfigError(say("k", "must be 1 or more", k))
    model = text_source(program.source)
    found = [e for e in program.input if isinstance(e, Inserting)]
    tokens = found[0].tokens() if len(found) == 1 else None
    if tokens is None or tokens.ndim != 2:
        need = "must have one soft prompt to be compared with the vocabulary; keys and values of a prefix are no tokens"
        raise CapabilityError(say("program", need, [type(e).__name__ for e in program.input]))
    cosines, ids = nearest(tokens, model.embeddings, k)
    return [
        [NearToken(i, _text(model, i), c) for i, c in zip(row, near, strict=True)]
        for row, near in zip(ids.tolist(), cosines.tolist(), strict=True)
    ]


def nearest(
    rows: Float[Tensor, " n d"], table: Float[Tensor, " vocabulary d"], k: int
) -> tuple[Float[Tensor, " n k"], Int[Tensor, " n k"]]:
    """The k rows of a table with the largest cosine to each of some rows; a part of the table at a time.

    Takes memory for n numbers a row of that part, never for the whole table's; rows of zeros have cosine 0.

    >>> nearest(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 3.0], [-1.0, 0.0]]), 2)[1].tolist()
    [[1, 0]]
    """
    mine = F.normalize(rows.detach().float(), dim=1)
    best = mine.new_empty(len(mine), 0)
    ids = torch.empty(len(mine), 0, dtype=torch.int64, device=mine.device)
    for start in range(0, len(table), _ROWS):
        part = F.normalize(table.detach()[start : start + _ROWS].to(mine), dim=1)
        numbers = torch.arange(start, start + len(part), device=mine.device).expand(len(mine), -1)
        best, ids = torch.cat([best, mine @ part.T], 1), torch.cat([ids, numbers], 1)
        best, chosen = best.topk(min(k, best.shape[1]), dim=1)
        ids = ids.gather(1, chosen)
    return best.clamp(-1, 1), ids


def _check_source(programs: Sequence[Program]) -> None:
    first = programs[0].source
    for number, program in enumerate(programs[1:], 1):
        if program.source is not first and program.source.fingerprint() != first.fingerprint():
            need = f"must be on the first one's source, {first.spec.ref}, with the same weights"
            raise FingerprintError(say(f"programs[{number}]", need, program.source.spec.ref))


def _prompt(program: Program) -> SoftPrompt | Prefix:
    """The program's soft prompt or prefix, without a network that makes it."""
    if program.origin is None:
        raise ConfigError(say("program", "must come from a method to be combined", "parts put together by hand"))
    if program.origin.form == "compiled":
        remedy = "Combine the programs it was compiled from, then compile the result."
        raise CapabilityError(say("program", "must not be compiled to be combined", program.origin.method, remedy))
    plain = [e.compact() if isinstance(e, Compacting) else e for e in program.input]
    found = [e for e in plain if isinstance(e, (SoftPrompt, Prefix))]
    others = [e for e in plain if e.site != "input" and not isinstance(e, (SoftPrompt, Prefix))]
    if len(found) != 1 or others:
        kinds = [type(e).__name__ for e in program.input]
        raise CapabilityError(say("program", "must learn one soft prompt or one prefix to be combined", kinds))
    return found[0]


def _check_alike(edits: Sequence[SoftPrompt | Prefix], how: str) -> None:
    places = {(type(e).__name__, e.site, e.where if isinstance(e, SoftPrompt) else e.shift) for e in edits}
    if len(places) > 1:
        raise ConfigError(say("programs", "must have prompts of one kind at one place", sorted(map(str, places))))
    if how not in ("concatenate", "average", "interpolate"):
        raise ConfigError(say("how", "must be concatenate, average or interpolate", how))
    lengths = [e.length for e in edits]
    if how != "concatenate" and len(set(lengths)) > 1:
        raise ConfigError(say("programs", f"must have prompts of one length to {how} them", lengths))
    if how == "concatenate" and isinstance(edits[0], SoftPrompt) and edits[0].where == "slots":
        got = "a template with places for them"
        raise ConfigError(say("programs", "must have prompts before or after the text to concatenate them", got))


def _shares(how: str, weights: Sequence[float] | None, count: int) -> list[float]:
    shares = [1.0 / count] * count if weights is None else [float(w) for w in weights]
    if how == "interpolate":
        if count != 2 or len(shares) != 2 or not abs(sum(shares) - 1) < 1e-6:
            got = f"{count} programs, weights {weights}"
            raise ConfigError(say("weights", "must be two that sum to 1, for two programs, to interpolate", got))
        return shares
    if len(shares) != count or min(shares) < 0 or not 0 < sum(shares) < inf:
        got = f"{count} programs, weights {weights}"
        raise ConfigError(say("weights", "must be one of 0 or more for each program, not all 0", got))
    return [share / sum(shares) for share in shares]


def _like(program: Program, edit: SoftPrompt | Prefix, values: Tensor) -> Program:
    """The program with other numbers, and another number of tokens, in its prompt."""
    new = (SoftPrompt(values, where=edit.where, site=edit.site) if isinstance(edit, SoftPrompt)
           else Prefix(values, shift=edit.shift, site=edit.site))  # fmt: skip
    edits: list[Edit] = [copy.deepcopy(e) if e.site == "input" else new for e in program.input]
    origin: Any = program.origin
    form = "compact" if any(isinstance(e, Compacting) for e in program.input) else origin.form
    config = origin.config
    if len(values) != edit.length:
        if not is_dataclass(config) or "tokens" not in {f.name for f in fields(config)}:
            need = f"must be of a method whose number of tokens can be set, to have {len(values)}"
            raise ConfigError(say("program", need, origin.method))
        config = replace(config, tokens=len(values))  # type: ignore[arg-type]
    made = Program(
        edits, program.source, copy.deepcopy(program.output), origin=replace(origin, config=config, form=form)
    )
    return made.to(program.source.device).train(program.training)


def _text(model: TextSource, token: int) -> str:
    try:
        return model.decode([token])
    except CapabilityError:  # wrapped without a tokenizer
        return f"#{token}"
