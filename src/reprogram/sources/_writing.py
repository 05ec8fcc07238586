"""Going on after prompts with a causal model: what prompts share is run once, samples share all of their prompt.

The loop is our own and not the library's `generate`, because draws depend on the seed, the prompt and the number of the
sample alone (never on the batch), log-probabilities are kept, texts that have ended leave the batch, and the keys and
values of a prompt are made once for all of its samples.
"""

import hashlib
import importlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, DataError, say
from reprogram.core.inserting import Continued
from reprogram.core.program import Input
from reprogram.core.texts import Texts
from reprogram.core.writing import Finish, Writing, Written, before_stop
from reprogram.sources._before import Before
from reprogram.sources._grammar import Constraint, constraint
from reprogram.sources._prompts import Asked, asked
from reprogram.sources._shared import Branch, plan

if TYPE_CHECKING:
    from reprogram.sources.language import LanguageSource

TAIL = 24
"""Tokens at the end of a text among which a stop text is looked for, and more if it is long."""

ROWS = 64
"""Texts that are written at a time."""


@final
@dataclass(slots=True, eq=False)
class _Text:
    """One text under way."""

    asked: int
    sample: int
    draw: random.Random
    constraint: Constraint | None
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finish: Finish | None = None
    text: str | None = None


def write(source: "LanguageSource", x: Texts, input: Input, writing: Writing) -> tuple[tuple[Written, ...], ...]:
    """What a source writes after rendered prompts, `writing.samples` texts each.

    Raises:
        CapabilityError: the source does not write, or an edit does not stand before the text.
        DataError: a prompt is too long for what is to be written after it.
    """
    if source.kind == "seq2seq":
        return _by_library(source, x, input, writing)
    before = source.before_text(input)
    room = source.room(input) + writing.tokens
    if source.context is not None and room >= source.context:
        raise DataError(say("writing.tokens", f"must leave room in the source's {source.context} tokens", room))
    begin = not any(isinstance(e, Continued) for e in input)
    prompts = asked(source.tokeniser, x, [()] * len(x), room, source.context, begin=begin)
    same: dict[tuple[int, ...], list[int]] = {}  # equal prompts have equal texts
    for number, one in enumerate(prompts):
        same.setdefault(one.ids, []).append(number)
    found: dict[int, tuple[Written, ...]] = {}
    distinct = [prompts[numbers[0]] for numbers in same.values()]
    with torch.no_grad():
        if distinct:
            whole = plan([one.ids for one in distinct], [one.shared for one in distinct])
            _branches(_Job(source, distinct, writing, input), whole, before, found)
    back = {number: k for k, numbers in enumerate(same.values()) for number in numbers}
    return tuple(found[back[i]] for i in range(len(prompts)))


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    source: "LanguageSource"
    prompts: Sequence[Asked]
    writing: Writing
    input: Input


def _branches(job: _Job, branch: Branch, before: Before | None, found: dict[int, tuple[Written, ...]]) -> None:
    source = job.source
    first = branch
    while not first.rows:
        first = first.branches[0]
    ids = job.prompts[first.rows[0]].ids[: branch.end]
    can = source.shares
    here = source.starts.run(source, ids, before, branch.start, job.input) if can else before
    start = branch.end if can else 0
    each = max(1, ROWS // job.writing.samples)
    rows = sorted(branch.rows, key=lambda i: len(job.prompts[i].ids))
    for at in range(0, len(rows), each):
        _together(job, rows[at : at + each], start, here, found)
    for below in branch.branches:
        _branches(job, below, here, found)


def _together(
    job: _Job, numbers: Sequence[int], start: int, before: Before | None, found: dict[int, tuple[Written, ...]]
) -> None:
    """Write after some prompts: one pass over them, then a pass a token."""
    source, writing = job.source, job.writing
    cache, mask, logits = _read(source, [job.prompts[i].ids[start:] for i in numbers], before)
    if writing.samples > 1:
        cache.batch_repeat_interleave(writing.samples)
        mask, logits = (t.repeat_interleave(writing.samples, 0) for t in (mask, logits))
    texts = [_begin(job, i, sample) for i in numbers for sample in range(writing.samples)]
    open_ = list(texts)
    for step in range(writing.tokens):
        chosen = _choose(open_, logits, writing)
        for one, token in zip(open_, chosen, strict=True):
            _take(source, one, token, writing, last=step + 1 == writing.tokens)
        going = [k for k, one in enumerate(open_) if one.finish is None]
        if not going:
            break
        if len(going) < len(open_):
            keep = torch.tensor(going, device=mask.device)
            cache.batch_select_indices(keep)
            mask, open_ = mask[keep], [open_[k] for k in going]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        logits = _step(source, [one.ids[-1] for one in open_], mask, cache)
    for k, i in enumerate(numbers):
        found[i] = tuple(_written(source, t) for t in texts[k * writing.samples : (k + 1) * writing.samples])


def _begin(job: _Job, number: int, sample: int) -> _Text:
    ids = job.prompts[number].ids
    key = hashlib.sha256(repr((job.writing.seed, sample, ids)).encode()).digest()
    made = None if job.writing.grammar is None else constraint(job.source.tokeniser.tokenizer, job.writing.grammar)
    return _Text(number, sample, random.Random(key), made)


# -- passes of the model -----------------------------------------------------------------------------------------------


def _read(
    source: "LanguageSource", rows: Sequence[tuple[int, ...]], before: Before | None
) -> tuple[Any, Tensor, Tensor]:
    """Read prompts behind what stands before them: the cache, a mask over it, and logits of the next token."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):  # padded on the left, so that the last column is everybody's last token
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = True
    ids, mask = ids.to(source.device), mask.to(source.device)
    model: Any = source.module
    cache = importlib.import_module("transformers").DynamicCache(config=model.config)
    ahead = 0
    if before is not None:
        if before.shift != before.length or len(before.layers) != source.blocks:
            need = "must stand before all layers and move the text's positions for texts to be written"
            raise CapabilityError(say("prefix", need, f"{len(before.layers)} of {source.blocks} layers"))
        kind, ahead = source.embeddings.dtype, before.length
        for i in range(source.blocks):
            layer = before.layers[i]
            cache.update(*(t.to(kind).expand(len(rows), -1, -1, -1) for t in (layer.keys, layer.values)), i)
    whole = torch.cat([mask.new_ones(len(rows), ahead), mask], 1)
    logits = _pass(source, ids, whole, cache)
    return cache, whole, logits


def _step(source: "LanguageSource", tokens: Sequence[int], mask: Tensor, cache: Any) -> Tensor:
    return _pass(source, torch.tensor(tokens, device=source.device)[:, None], mask, cache)


def _pass(source: "LanguageSource", ids: Tensor, mask: Tensor, cache: Any) -> Tensor:
    """Logits [B, vocabulary] after the last column."""
    model: Any = source.module
    found: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long(), "past_key_values": cache,
                             "use_cache": True, "return_dict": True, "logits_to_keep": 1}  # fmt: skip
    if source.takes_positions:
        found["position_ids"] = (mask.long().cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :] + source.offset
    return model(**found).logits[:, -1].float()


# -- choosing tokens ---------------------------------------------------------------------------------------------------


def _choose(texts: Sequence[_Text], logits: Tensor, writing: Writing) -> list[int]:
    """The next token of each text, and its log-probability added up."""
    chances = logits.log_softmax(1)
    bent = logits
    if writing.grammar is not None:
        bent = torch.stack([_allowed(one, row) for one, row in zip(texts, logits, strict=True)])
    chosen = bent.argmax(1) if writing.temperature == 0 else drawn(bent, [t.draw.random() for t in texts], writing)
    for one, value in zip(texts, chances.gather(1, chosen[:, None])[:, 0].tolist(), strict=True):
        one.logprob += value
    return chosen.tolist()


def _allowed(one: _Text, row: Tensor) -> Tensor:
    return row if one.constraint is None else one.constraint.allowed(row)


def drawn(logits: Tensor, numbers: Sequence[float], writing: Writing) -> Tensor:
    """One token a row: the one at which the summed probability passes the row's number in [0, 1).

    Tokens are cut to the `top_k` likeliest first, then to those that have `top_p` together.

    >>> row = torch.tensor([[0.1, 0.6, 0.3]]).log()
    >>> [drawn(row, [u], Writing(temperature=1.0)).item() for u in (0.0, 0.59, 0.61, 0.99)]
    [1, 1, 2, 0]
    >>> drawn(row, [0.99], Writing(temperature=1.0, top_k=2)).item()
    2
    """
    chances, order = torch.sort((logits / writing.temperature).softmax(1), dim=1, descending=True, stable=True)
    if writing.top_k:
        chances = chances[:, : writing.top_k]
    total = chances.cumsum(1)
    if writing.top_p < 1:
        kept = (total - chances) < writing.top_p * total[:, -1:]
        chances = chances * kept
        total = chances.cumsum(1)
    level = torch.tensor(numbers, dtype=total.dtype, device=total.device)[:, None] * total[:, -1:]
    place = (total <= level).sum(1, keepdim=True).clamp_max((chances > 0).sum(1, keepdim=True) - 1)
    return order.gather(1, place)[:, 0]


def _take(source: "LanguageSource", one: _Text, token: int, writing: Writing, *, last: bool) -> None:
    """Add a token to a text, and see whether the text has ended."""
    one.ids.append(token)
    if token in source.ends:
        one.finish = "stop"
        return
    complete = one.constraint is not None and one.constraint.took(token)
    if complete or (writing.stop and _stopped(source, one, writing.stop)):
        one.finish = "stop"
    elif last:
        one.finish = "length"


def _stopped(source: "LanguageSource", one: _Text, stop: Sequence[str]) -> bool:
    """Whether a stop text is there; its tokens may end in the middle of it."""
    reach = TAIL + max(map(len, stop))
    tail = source.decode(one.ids[-reach:])
    if not any(text in tail for text in stop):
        return False
    kept, cut = before_stop(source.decode(one.ids), stop)
    if cut:
        one.text = kept
    return cut


def _written(source: "LanguageSource", one: _Text) -> Written:
    ids = one.ids[:-1] if one.ids and one.ids[-1] in source.ends else one.ids
    text = source.decode(ids) if one.text is None else one.text
    return Written(text=text, tokens=len(one.ids), logprob=one.logprob, finish=one.finish or "length")


def _by_library(source: "LanguageSource", x: Texts, input: Input, writing: Writing) -> tuple[tuple[Written, ...], ...]:
    """Encoder-decoder models write greedily through the library."""
    if writing.temperature > 0 or writing.grammar is not None:
        need = "must be causal to write several samples or by a grammar"
        raise CapabilityError(say("source", need, f"{source.spec.ref} ({source.kind})"))
    rest = Input(*(e for e in input if e.site != "input"))
    found: list[tuple[Written, ...]] = []
    for text in source.generate(x, rest, max_new_tokens=writing.tokens):
        kept, _ = before_stop(text, writing.stop)
        tokens = len(source.encode(kept))
        found.append((Written(text=kept, tokens=tokens, finish="length" if tokens >= writing.tokens else "stop"),))
    return tuple(found)
