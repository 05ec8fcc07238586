"""Where learned prompts start. What is worth most in prompt tuning beside the learning rate: a scale-matched start.

Every function gives fresh float32 numbers on the CPU, never a view of the source's table, drawn from torch's global
generator where anything is random (`build` seeds it). No start holds a token of exact zeros: on some language models
that gives NaN gradients.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.source import TextSource
from reprogram.core.task import TaskSpec

Start = Literal["random", "vocabulary", "text", "labels"]

_ROWS = 8192  # of the table at a time, so that a big table in half precision is never copied as a whole
_SAMPLE = 64  # tokens of random text that keys and values are measured on


def random_start(table: Float[Tensor, " vocabulary d"], n: int) -> Float[Tensor, " n d"]:
    """Normal, each dimension with the table's own mean and standard deviation.

    A standard normal, the usual start of an embedding layer, is many times larger than most models' embeddings.
    """
    mean, std = moments(table)
    return torch.randn(_at_least_one(n), table.shape[1]) * std + mean


def vocabulary_start(table: Float[Tensor, " vocabulary d"], n: int) -> Float[Tensor, " n d"]:
    """The embeddings of n tokens drawn without repetition (with, once all are drawn) (Lester et al. 2021, section 3.2).

    Rows of exact zeros, such as a padding token's, are not drawn.
    """
    present = torch.cat([part.any(1) for part in _blocks(table)]).nonzero().squeeze(1)
    if not len(present):
        raise ConfigError(say("start", "must find tokens in the source's table that are not zero", "none"))
    turns = -(-_at_least_one(n) // len(present))
    ids = torch.cat([present[torch.randperm(len(present))] for _ in range(turns)])[:n]
    return _rows(table, ids)


def text_start(table: Float[Tensor, " vocabulary d"], ids: Sequence[int], n: int) -> Float[Tensor, " n d"]:
    """The embeddings of a text's tokens, cut or repeated to n.

    Raises:
        ConfigError: there are none.
    """
    if not ids:
        raise ConfigError(say("text", "must have at least one token to start from", list(ids)))
    return _rows(table, torch.tensor([ids[i % len(ids)] for i in range(_at_least_one(n))]))


def label_start(table: Float[Tensor, " vocabulary d"], names: Sequence[Sequence[int]], n: int) -> Float[Tensor, " n d"]:
    """One token a class, the mean embedding of its name's tokens; the rest as `vocabulary_start`.

    The class-label start of Lester et al. 2021, section 3.2. With fewer tokens than classes, the first ones' names.

    Args:
        table: of the source.
        names: token ids of each class name.
        n: tokens wanted.
    """
    if not all(names):
        raise ConfigError(say("classes", "must have names of at least one token to start from", [*map(list, names)]))
    known = [_rows(table, torch.tensor(ids)).mean(0) for ids in names[: _at_least_one(n)]]
    rest = n - len(known)
    return torch.cat([torch.stack(known), *([vocabulary_start(table, rest)] if rest else [])])


def prompt_start(
    source: TextSource, task: TaskSpec | None, n: int, start: Start = "vocabulary", text: str | None = None
) -> Float[Tensor, " n d"]:
    """A soft prompt of n tokens to start from.

    Args:
        source: whose embeddings are taken.
        task: whose class names are taken for "labels"; also named in the text, if none is given.
        n: tokens.
        start: "random" (scale-matched), "vocabulary" (tokens drawn at random), "text", or "labels" (class names first;
            as "vocabulary" where there are no classes).
        text: for "text"; None for `instruction(task)`.

    Raises:
        ConfigError: an unknown start, or a text without tokens.
    """
    table = source.embeddings
    if start == "text":
        return text_start(table, source.encode(instruction(task) if text is None else text), n)
    if start == "labels" and task is not None and task.classes:
        return label_start(table, [source.encode(name) for name in task.classes], n)
    if start not in ("random", "vocabulary", "labels"):
        raise ConfigError(say("start", "must be random, vocabulary, text or labels", start))
    return random_start(table, n) if start == "random" else vocabulary_start(table, n)


def prefix_start(
    source: TextSource, task: TaskSpec | None, n: int, start: Start = "text", text: str | None = None
) -> Float[Tensor, " n layers 2 heads width"]:
    """Keys and values of n tokens for all layers to start a prefix from, taken or measured from real ones.

    Their scale differs by orders of magnitude between layers, and between keys and values, so no single number would
    do: a random prefix is normal with the mean and standard deviation that each number has over a text. Zeros would not
    even be "no prefix", for a key of zeros takes a share of the attention like any other.

    Args:
        source: gives the keys and values of a text.
        task: whose class names are the text for "labels"; also named in the text, if none is given.
        n: tokens.
        start: "text" (the keys and values of a real text: the best start in comparisons), "labels" (of the class
            names), "vocabulary" (of tokens drawn at random), or "random" (scale-matched to those).
        text: for "text"; None for `instruction(task)`. Texts are repeated until they have n tokens.

    Raises:
        ConfigError: an unknown start, or a text without tokens.
    """
    if start == "text":
        return _keys_values(source, instruction(task) if text is None else text, n)
    if start == "labels" and task is not None and task.classes:
        return _keys_values(source, ", ".join(task.classes), n)
    if start not in ("random", "vocabulary", "labels"):
        raise ConfigError(say("start", "must be random, vocabulary, text or labels", start))
    count = _SAMPLE if start == "random" else _at_least_one(n)
    drawn = torch.randint(len(source.embeddings), (count,))
    found = _keys_values(source, source.decode([int(token) for token in drawn]), count)
    if start != "random":
        return found
    std, mean = torch.std_mean(found, 0, correction=0)
    return torch.randn(_at_least_one(n), *found.shape[1:]) * std + mean


def instruction(task: TaskSpec | None) -> str:
    """A text that says what the task is, to start from.

    >>> from reprogram.core.task import Sample
    >>> instruction(TaskSpec(name="sst2", classes=("negative", "positive"), sample=Sample(shape=()), modality="text"))
    'Read the text and say which of these it is: negative, positive.'
    """
    if task is None or task.generates:
        return "Read the text and write the answer that belongs to it."
    return f"Read the text and say which of these it is: {', '.join(task.classes)}."


def moments(table: Float[Tensor, " vocabulary d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and standard deviation of each dimension over all tokens, summed in double precision."""
    total = torch.zeros(table.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in _blocks(table):
        block = part.double()
        total += block.sum(0)
        squares += block.square().sum(0)
    mean = total / len(table)
    return mean.float(), (squares / len(table) - mean.square()).clamp_min(0).sqrt().float()


def _blocks(table: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(table), _ROWS):
        yield table.detach()[start : start + _ROWS].cpu()


def _rows(table: Tensor, ids: Tensor) -> Tensor:
    return table.detach()[ids.to(table.device)].float().cpu().clone()


def _keys_values(source: TextSource, text: str, n: int) -> Tensor:
    """[n, layers, 2, heads, width] of a text, repeated until it has n tokens."""
    _at_least_one(n)
    own = len(source.encode(text))
    if not own:
        raise ConfigError(say("text", "must have at least one token to start from", text))
    found = source.keys_values(_cut(source, " ".join([text] * n) if own < n else text, max(n, own)))
    turns = -(-n // len(found))  # where the source takes fewer than n
    return torch.cat([found] * turns)[:n].detach().float().cpu().clone()


def _cut(source: TextSource, text: str, n: int) -> str:
    """The start of a text: some more than n tokens, and no more than the source takes at once."""
    most = min(source.spec.input_shape[0] or n + 16, n + 16)
    ids = source.encode(text)
    while len(ids) > most and len(text) > 1:
        text = text[: max(1, len(text) * most // len(ids))]
        ids = source.encode(text)
    return text


def _at_least_one(n: int) -> int:
    if n < 1:
        raise ConfigError(say("tokens", "must be 1 or more", n))
    return n
