"""What is read of a transformer after one pass, by kind of model; the head only ever sees the places that are read."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from reprogram.core.errors import CapabilityError, DataError, say
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.texts import Batch, Texts, Tokens
from reprogram.sources._sequence import Sequence, last

if TYPE_CHECKING:
    from reprogram.sources.language import LanguageSource

IGNORED = -100
"""The target of a token that is to predict nothing, as `torch.nn.functional.cross_entropy` has it."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """All that an answer depends on.

    Attributes:
        tokens: the batch's own tokens.
        sequence: what the model reads, with the learned tokens in it.
        arguments: the model is called with.
        call: bound during the pass.
        reading: what is wanted.
        x: the batch as it came, for sources that write their targets apart from the input.
    """

    tokens: Tokens
    sequence: Sequence
    arguments: dict[str, Any]
    call: Any
    reading: Reading
    x: Batch


def answer(source: "LanguageSource", q: Question) -> SourceOutput:
    """The source's output for a question, by its kind."""
    if source.kind == "encoder":
        return _vector(source, q)
    if source.kind == "classifier":
        return _classes(source, q)
    if source.kind == "seq2seq":
        return _written(source, q)
    return _next_tokens(source, q)


def _next_tokens(source: "LanguageSource", q: Question) -> SourceOutput:
    """Scores over the vocabulary, of causal and masked models."""
    if q.reading.continuations:
        return _continuations(source, q)
    if q.reading.tokens and q.tokens.targets is not None:
        wanted = q.tokens.targets != IGNORED
        flat = q.sequence.own + torch.arange(len(wanted), device=wanted.device)[:, None] * q.sequence.mask.shape[1]
        logits, features = _scored(source, q, flat[wanted])
        return SourceOutput(token_scores=logits[0], targets=q.tokens.targets[wanted], features=features)
    if q.reading.tokens:
        places = q.tokens.places if q.tokens.places is not None else _all_places(q.tokens)
        logits, features = _scored(source, q, q.sequence.own.gather(1, places))
        return SourceOutput(token_scores=logits, features=features)
    logits, features = _scored(source, q, _answer_place(source, q))
    return SourceOutput(scores=logits[:, 0], features=None if features is None else features[:, 0])


def _all_places(tokens: Tokens) -> Tensor:
    return torch.arange(tokens.ids.shape[1], device=tokens.ids.device).expand(len(tokens), -1)


def _answer_place(source: "LanguageSource", q: Question) -> Int[Tensor, " batch 1"]:
    """Where the answer's scores are, in the sequence."""
    if q.tokens.places is not None:
        return q.sequence.own.gather(1, q.tokens.places[:, :1])
    if source.kind == "masked":
        is_mask = (q.tokens.ids == source.special.get("mask", -1)) & q.tokens.mask
        if not bool(is_mask.any(1).all()):
            remedy = 'For example template="{text} It was {mask}."'
            raise DataError(say("template", "must have a {mask} for a masked language model", "a text without", remedy))
        return q.sequence.own.gather(1, is_mask.int().argmax(1)[:, None])
    return last(q.sequence.mask)[:, None]


def _scored(source: "LanguageSource", q: Question, places: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits and features at places: [B, M], or [M] of all rows flattened (then they come as [1, M, ...])."""
    q.call.places = places
    logits = source.run(q.call, q.arguments).logits
    features = q.call.features
    if not source.gathers:
        logits = _picked(logits, places)
        features = None if features is None else _picked(features, places)
    return logits, features


def _picked(values: Tensor, places: Tensor) -> Tensor:
    if places.ndim == 1:
        return values.flatten(0, 1)[places][None]
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


# -- labels of several tokens ------------------------------------------------------------------------------------------


def _continuations(source: "LanguageSource", q: Question) -> SourceOutput:
    """Log-probability of each continuation, all in one pass: side by side behind the input, blind to each other."""
    words = q.reading.continuations
    rest = [w[:-1] for w in words]  # a word's last token predicts nothing that is asked for
    end = last(q.sequence.mask)
    if q.tokens.places is not None and bool((_answer_place(source, q)[:, 0] != end).any()):
        raise CapabilityError(
            say("template", "must end in its {mask} for labels of several tokens", "one before the end")
        )
    extra = sum(map(len, rest))
    if extra:
        q = replace(q, arguments=_branched(source, q, rest, end))
    rows = len(q.sequence.mask)
    behind = q.sequence.mask.shape[1] + torch.arange(extra, device=end.device).expand(rows, -1)
    logits, features = _scored(source, q, torch.cat([end[:, None], behind], 1))
    chances = logits.float().log_softmax(-1)
    total, at = list[Tensor](), 1
    for word in words:
        here = [0, *range(at, at + len(word) - 1)]
        index = torch.tensor(word, device=end.device).expand(rows, -1)[..., None]
        total.append(chances[:, here].gather(2, index).sum((1, 2)))
        at += len(word) - 1
    said = torch.stack(total, 1)
    return SourceOutput(scores=logits[:, 0], continuations=said, features=None if features is None else features[:, 0])


def _branched(source: "LanguageSource", q: Question, branches: list[tuple[int, ...]], end: Tensor) -> dict[str, Any]:
    """The arguments with all branches behind the sequence, and a mask in which each sees the sequence and itself."""
    ids = torch.tensor([i for b in branches for i in b], device=end.device)
    embeds = source.embedded(ids[None]).expand(len(end), -1, -1)
    depth = torch.tensor([d for b in branches for d in range(len(b))], device=end.device)
    found = {**q.arguments, "inputs_embeds": torch.cat([q.sequence.embeds, embeds], 1)}
    found["attention_mask"] = branch_mask(q.sequence.mask, [len(b) for b in branches])
    if "position_ids" not in found:
        raise CapabilityError(say("source", "must take positions to score labels of several tokens", source.spec.ref))
    own = found["position_ids"]
    found["position_ids"] = torch.cat([own, own.gather(1, end[:, None]) + 1 + depth], 1)
    return found


def branch_mask(mask: Bool[Tensor, " batch length"], sizes: list[int]) -> Bool[Tensor, " batch 1 whole whole"]:
    """Who sees whom: the sequence is causal; a branch sees all of the sequence, and itself up to where it is.

    >>> branch_mask(torch.tensor([[True, True]]), [1, 2])[0, 0].int().tolist()
    [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    """
    rows, length = mask.shape
    inner = torch.block_diag(*[torch.ones(n, n).tril() for n in sizes if n]).bool().to(mask.device)
    whole = torch.zeros(rows, length + len(inner), length + len(inner), dtype=torch.bool, device=mask.device)
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)  # a row of padding must see something
    whole[:, :length, :length] = (causal & mask[:, None]) | itself
    whole[:, length:, :length] = mask[:, None]
    whole[:, length:, length:] = inner
    return whole[:, None]


# -- the other kinds ---------------------------------------------------------------------------------------------------


def _classes(source: "LanguageSource", q: Question) -> SourceOutput:
    first = q.sequence.own.gather(1, q.tokens.mask.int().argmax(1)[:, None])
    q.call.places = last(q.sequence.mask)[:, None] if source.reads_left else first
    logits = source.run(q.call, q.arguments).logits
    features = q.call.features
    if features is not None and features.ndim == 3:
        features = features[:, 0]
    return SourceOutput(scores=logits, features=features)


def _vector(source: "LanguageSource", q: Question) -> SourceOutput:
    """The text's vector: over its own tokens only, whatever was added, or as the model says itself."""
    result = source.run(q.call, q.arguments)
    if source.pooling == "own":
        said = SourceOutput(scores=result.pooler_output, features=result.pooler_output)
        there = q.sequence.mask[..., None]
        return replace(said, token_scores=result.last_hidden_state * there) if q.reading.tokens else said
    hidden = result.last_hidden_state
    hidden = hidden.gather(1, q.sequence.own[..., None].expand(-1, -1, hidden.shape[-1]))
    if source.pooling == "first":
        pooled = hidden.gather(1, q.tokens.mask.int().argmax(1)[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]
    else:
        weight = q.tokens.mask[..., None].to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1)
    if source.pooling == "mean-unit":
        pooled = F.normalize(pooled, dim=-1)
    return SourceOutput(scores=pooled, features=pooled, token_scores=hidden if q.reading.tokens else None)


def _written(source: "LanguageSource", q: Question) -> SourceOutput:
    """Encoder-decoder models: what the decoder writes first, or the targets."""
    words = q.reading.continuations
    if words:
        return _written_words(source, q, words)
    texts = q.x.targets if isinstance(q.x, Texts) else None
    if q.reading.tokens and texts is not None:
        ids = _table(source.tokeniser.goals(texts)).to(source.device)
        logits = _decoded(source, q, ids)
        wanted = ids != IGNORED
        return SourceOutput(token_scores=logits[wanted], targets=ids[wanted])
    start = torch.zeros(len(q.sequence.mask), 1, dtype=torch.int64, device=source.device)
    logits = _decoded(source, q, start)
    features = q.call.features
    said = SourceOutput(scores=logits[:, 0], features=None if features is None else features[:, 0])
    return replace(said, token_scores=logits) if q.reading.tokens else said


def _written_words(source: "LanguageSource", q: Question, words: tuple[tuple[int, ...], ...]) -> SourceOutput:
    ids = _table(words).to(source.device)
    rows = len(q.sequence.mask)
    logits = _decoded(source, q, ids.repeat(rows, 1), copies=len(words))
    wanted = ids.repeat(rows, 1)
    chances = logits.float().log_softmax(-1).gather(2, wanted.clamp_min(0)[..., None])[..., 0]
    said = (chances * (wanted != IGNORED)).sum(1).view(rows, len(words))
    return SourceOutput(scores=logits[:: len(words), 0], continuations=said)


def _decoded(source: "LanguageSource", q: Question, goals: Tensor, copies: int = 1) -> Tensor:
    """The decoder's logits for goals [B * copies, tokens]; the encoder runs once an input."""
    model: Any = source.module
    start = model.config.decoder_start_token_id
    begun = torch.cat(
        [goals.new_full((len(goals), 1), start), goals[:, :-1].masked_fill(goals[:, :-1] == IGNORED, 0)], 1
    )
    arguments = {**q.arguments, "decoder_input_ids": begun}
    if copies > 1:
        encoder = model.get_encoder()
        known = {k: v for k, v in q.arguments.items() if k in ("inputs_embeds", "attention_mask", "return_dict")}
        with source.bound(q.call):
            read = encoder(**known)
        read["last_hidden_state"] = read["last_hidden_state"].repeat_interleave(copies, 0)
        mask = q.arguments["attention_mask"].repeat_interleave(copies, 0)
        arguments = {"encoder_outputs": read, "attention_mask": mask, "decoder_input_ids": begun, "use_cache": False}
    return source.run(q.call, arguments).logits


def _table(words: Any) -> Tensor:
    width = max(len(w) for w in words)
    return torch.tensor([[*w, *[IGNORED] * (width - len(w))] for w in words])
