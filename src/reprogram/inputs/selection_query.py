"""Selectors: which examples of a pool the prompt of each query shows. What they keep is saved with the program.

A query never gets an example with its own text. The columns of a row are compared as one text, one column a line.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.task import Example
from reprogram.core.texts import Texts
from reprogram.inputs.selection import Order, arrange, dpp, nearest, twins
from reprogram.inputs.selection_bm25 import WordIndex

Embed = Callable[[list[str]], Tensor]
"""Texts to vectors [B, d]."""


@runtime_checkable
class Selector(Protocol):
    """Chooses examples from its pool for every query."""

    def choose(self, queries: Texts) -> list[list[int]]:
        """For each query, indices into the pool in the order of the prompt."""
        ...


class _PerQuery(nn.Module):
    """What the selectors below share: the pool, and all but the search itself."""

    def __init__(self, pool: Sequence[Example], k: int, order: Order, seed: int) -> None:
        super().__init__()
        if not 1 <= k <= len(pool):
            raise ConfigError(say("k", f"must be from 1 to {len(pool)}, the examples of the pool", k))
        self.k, self.seed = k, seed
        self.order: Order = order
        self.texts = tuple("\n".join(one.texts) for one in pool)
        self.answers = tuple(one.answer for one in pool)

    @torch.no_grad()
    def choose(self, queries: Texts) -> list[list[int]]:
        """For each query, up to k indices in the order of the prompt; fewer only where its own text is in the pool."""
        if not len(queries):
            return []
        asked = ["\n".join(queries.row(i).values()) for i in range(len(queries))]
        found = self.search(asked, twins(asked, self.texts))
        return [arrange(one, self.order, labels=self.answers, seed=self.seed) for one in found]

    @abstractmethod
    def search(self, queries: list[str], excluded: list[frozenset[int]]) -> list[list[int]]:
        """For each text, up to k indices, best first."""

    def extra_repr(self) -> str:
        """Settings, and a digest of the pool: equal texts choose from equal pools where these are equal."""
        pool = hashlib.sha256(repr((self.texts, self.answers)).encode()).hexdigest()[:16]
        return f"k={self.k}, order={self.order}, seed={self.seed}, pool={pool}"


@final
class VectorSelector(_PerQuery):
    """The examples whose vectors are close to the query's: the nearest, or a set of close and varied ones.

    Args:
        pool: n examples.
        vectors: [n, d], theirs, of any length; kept at length one and saved. Zeros are filled in with `embed` when the
            first query comes, so that a program that is loaded again makes none anew.
        embed: makes a query's vector as those of the pool were made. It is not part of the state.
        k: examples to a prompt.
        by: "nearest" or "dpp", see the functions of these names.
        order: of the prompt.
        seed: for order="shuffled".
        candidates: of "dpp".
        scale: of "dpp".

    Raises:
        ConfigError: a setting is out of range.
        DataError: there is not one vector of finite numbers for each example.
    """

    vectors: Tensor

    def __init__(  # noqa: PLR0913 - the last two are for "dpp"
        self,
        pool: Sequence[Example],
        vectors: Tensor,
        embed: Embed,
        *,
        k: int,
        by: Literal["nearest", "dpp"] = "nearest",
        order: Order = "reversed",
        seed: int = 0,
        candidates: int = 100,
        scale: float = 0.1,
    ) -> None:
        super().__init__(pool, k, order, seed)
        if vectors.ndim != 2 or len(vectors) != len(pool) or not bool(vectors.isfinite().all()):
            need = f"must be {len(pool)} rows of finite numbers, one for each example"
            raise DataError(say("vectors", need, tuple(vectors.shape)))
        if candidates < k or not 0 < scale < float("inf"):
            raise ConfigError(say("candidates, scale", f"must be at least k = {k}, and above 0", (candidates, scale)))
        self.by, self.candidates, self.scale = by, candidates, scale
        self._embed = (embed,)  # in a tuple, so that one that is a module is not registered as a part
        self.register_buffer("vectors", F.normalize(vectors.detach().float(), dim=-1))

    def search(self, queries: list[str], excluded: list[frozenset[int]]) -> list[list[int]]:
        """By cosine, or by the determinantal process."""
        if not bool(self.vectors.any()):
            self.vectors.copy_(F.normalize(self._embed[0](list(self.texts)).detach().to(self.vectors), dim=-1))
        asked = self._embed[0](queries).detach().to(self.vectors)
        if self.by == "nearest":
            return nearest(asked, self.vectors, self.k, excluded)
        return [
            dpp(one, self.vectors, self.k, self.candidates, self.scale, out)
            for one, out in zip(asked, excluded, strict=True)
        ]

    def extra_repr(self) -> str:
        """Settings."""
        return f"{super().extra_repr()}, by={self.by}, candidates={self.candidates}, scale={self.scale:g}"


@final
class WordSelector(_PerQuery):
    """The examples that share the most telling words with the query: BM25. Its index is made anew from the texts.

    Args:
        pool: n examples.
        k: examples to a prompt.
        order: of the prompt.
        seed: for order="shuffled".

    Raises:
        ConfigError: k is out of range.
        DataError: no example has a word.
        MissingExtraError: the extra "retrieval" is not installed.
    """

    def __init__(self, pool: Sequence[Example], *, k: int, order: Order = "reversed", seed: int = 0) -> None:
        super().__init__(pool, k, order, seed)
        self._index = WordIndex(self.texts)

    def search(self, queries: list[str], excluded: list[frozenset[int]]) -> list[list[int]]:
        """By BM25 score."""
        return self._index.nearest(queries, self.k, excluded)


@final
class FixedSelector(nn.Module):
    """The same examples for every query, less the query itself.

    Args:
        pool: examples in the order of the prompt; all are shown.
    """

    def __init__(self, pool: Sequence[Example]) -> None:
        super().__init__()
        self.texts = tuple("\n".join(one.texts) for one in pool)
        self.answers = tuple(one.answer for one in pool)

    def choose(self, queries: Texts) -> list[list[int]]:
        """All of the pool but what has the query's own text."""
        asked = ["\n".join(queries.row(i).values()) for i in range(len(queries))]
        return [[i for i in range(len(self.texts)) if i not in out] for out in twins(asked, self.texts)]

    def extra_repr(self) -> str:
        """A digest of the pool."""
        return f"pool={hashlib.sha256(repr((self.texts, self.answers)).encode()).hexdigest()[:16]}"
