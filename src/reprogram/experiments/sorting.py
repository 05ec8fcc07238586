"""Putting numbers in order: a tiny transformer, the orders it is trained on, and what a prefix makes of it.

A sequence is ``x_1 .. x_M, SEP, y_1 .. y_M``: different numbers below 16, and the same numbers in some order. To write
y_t, attention must find the number that follows y_{t-1} in that order: each order is an attention pattern of its own,
and all of them are equally easy for the architecture.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from reprogram.core.program import Input, Program
from reprogram.core.source import Reading
from reprogram.inputs import Prefix
from reprogram.outputs import TokenScores
from reprogram.sources import LanguageSource, language_source
from reprogram.sources.transformers_load import transformers
from reprogram.sources.transformers_watch import watching

NUMBERS = 16
SEP = NUMBERS
HEADS = 4

ORDERS: dict[str, tuple[int, ...]] = {
    "ascending": tuple(range(NUMBERS)),
    "descending": tuple(range(NUMBERS))[::-1],
    "evens first": (*range(0, NUMBERS, 2), *range(1, NUMBERS, 2)),
}
"""Each a row of all numbers, first to last."""

NOTHING, FULL = "nothing", "all weights"
"""What may be changed to get an order, besides a prefix."""

Scores = Callable[[Tensor], Tensor]
"""Token ids [B, S] to scores [B, S, vocabulary]."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is done.

    Attributes:
        width: of the transformer.
        length: M, numbers in a sequence.
        steps: of training it, and of every fit, with `batch` new sequences each.
        batch: sequences.
        rate: of training and full fine-tuning (Adam, with a warm-up and linear decay).
        prefix_rate: of fitting a prefix, likewise.
        test: sequences to score on.
    """

    width: int = 64
    length: int = 6
    steps: int = 300
    batch: int = 32
    rate: float = 3e-3
    prefix_rate: float = 3e-2
    test: int = 500


def sequences(
    count: int, length: int, orders: Iterable[str], generator: torch.Generator
) -> Int[Tensor, " count all"]:  # fmt: skip
    """Sequences of 2M + 1 token ids, each in one of the orders, drawn evenly.

    >>> row = sequences(1, 3, ["descending"], torch.Generator().manual_seed(0))[0].tolist()
    >>> row[3] == SEP, row[4:] == sorted(row[:3], reverse=True)
    (True, True)
    """
    known = list(orders)
    place = torch.stack([torch.tensor(ORDERS[order]).argsort() for order in known])  # where each number stands
    x = torch.rand(count, NUMBERS, generator=generator).argsort(1)[:, :length]
    which = torch.randint(len(known), (count,), generator=generator)
    y = x.gather(1, place[which].gather(1, x).argsort(1))
    return torch.cat([x, torch.full((count, 1), SEP), y], 1)


def tiny_transformer(layers: int, plan: Plan, seed: int) -> Any:
    """A Llama of random weights.

    Raises:
        MissingExtraError: the extra "text" is not installed.
    """
    library = transformers()
    config = library.LlamaConfig(
        vocab_size=NUMBERS + 1, hidden_size=plan.width, intermediate_size=2 * plan.width, num_hidden_layers=layers,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=256, pad_token_id=None,
        bos_token_id=None, eos_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return library.LlamaForCausalLM(config)


def scores_of(model: Any) -> Scores:
    """The model's own scores."""
    return lambda ids: model(input_ids=ids, use_cache=False).logits


def answered(scores: Scores, ids: Tensor, length: int) -> tuple[Float[Tensor, ""], Tensor]:
    """Cross-entropy of y, and which y_t [B, M] are right.

    With the true y before each, so a row that is all right is one that greedy writing gets right.
    """
    found, y = scores(ids[:, :-1])[:, length:], ids[:, length + 1 :]
    return nn.functional.cross_entropy(found.flatten(0, 1), y.flatten()), found.argmax(-1) == y


def train(scores: Scores, learned: Iterable[nn.Parameter], orders: Iterable[str], plan: Plan, how: "How") -> None:
    """Adam on new sequences in every step.

    Args:
        scores: of the model, or of a program on it.
        learned: what is changed.
        orders: of the sequences.
        plan: how much.
        how: rate and seed.
    """
    weights, generator = list(learned), torch.Generator().manual_seed(how.seed)
    optimizer = torch.optim.Adam(weights, lr=how.rate)
    warm = max(1, plan.steps // 10)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 1 - step / plan.steps + 1 / plan.steps)
    )
    known = list(orders)
    for _ in range(plan.steps):
        loss, _ = answered(scores, sequences(plan.batch, plan.length, known, generator), plan.length)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        decay.step()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """Rate and seed of one training."""

    rate: float
    seed: int


@torch.no_grad()
def accuracy(scores: Scores, order: str, plan: Plan) -> dict[str, float]:
    """Shares of test sequences that are all right ("accuracy"), and of numbers ("numbers"), and the loss."""
    ids = sequences(plan.test, plan.length, [order], torch.Generator().manual_seed(10_000))
    loss, right = answered(scores, ids, plan.length)
    return {"accuracy": float(right.all(1).float().mean()), "numbers": float(right.float().mean()), "loss": float(loss)}


def as_source(model: Any) -> LanguageSource:
    """The trained model, frozen."""
    return language_source(model, None, ref="module:sorting")


def with_prefix(source: LanguageSource, tokens: int, plan: Plan, seed: int) -> Program:
    """A program with a prefix in every layer that starts at keys and values of numbers in real sequences.

    Args:
        source: the sorter.
        tokens: n.
        plan: of its sequences.
        seed: which numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = sequences(tokens, plan.length, ["ascending"], generator)
    with torch.no_grad(), watching(source) as seen:
        source(ids[:, : plan.length], Input(), Reading(tokens=True))
    at = torch.randint(plan.length, (tokens,), generator=generator)
    row = torch.arange(tokens)
    layers = [torch.stack([s.key[row, :, at], s.value[row, :, at]], 1) for _, s in sorted(seen.items())]
    return Program([Prefix(torch.stack(layers, 1), shift=False)], source, TokenScores())
