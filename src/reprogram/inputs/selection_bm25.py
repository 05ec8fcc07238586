"""Retrieval by shared words, BM25 (Robertson and Zaragoza 2009). The one door to `bm25s`."""

import importlib
import re
from collections.abc import Collection, Sequence
from typing import Any, final

import torch

from reprogram.core.errors import ConfigError, DataError, missing_extra, say
from reprogram.inputs.selection import whole

_WORD = re.compile(r"\w+")


@final
class WordIndex:
    """The examples of a pool by their words.

    ``score(q, i) = sum over words w of q: log(1 + (n - n_w + 0.5) / (n_w + 0.5)) * f / (f + k1 (1 - b + b m_i / m))``,
    f the count of w in text i, m_i its length in words, m their mean, n_w the texts that have w. Words are runs of
    letters and digits in lower case; none is left out for being common, and none is stemmed.

    Args:
        pool: n texts.
        k1: how slowly repetitions count less.
        b: how much long texts are marked down, from 0 to 1.

    Raises:
        ConfigError: a setting is out of range.
        DataError: no text of the pool has a word.
        MissingExtraError: the extra "retrieval" is not installed.
    """

    def __init__(self, pool: Sequence[str], *, k1: float = 1.5, b: float = 0.75) -> None:
        if not 0 <= k1 < float("inf") or not 0 <= b <= 1:
            raise ConfigError(say("k1, b", "must be 0 or more, and from 0 to 1", (k1, b)))
        split = [words(text) for text in pool]
        if not any(split):
            raise DataError(say("pool", "must have a text with words to be searched by them", len(split)))
        try:
            library: Any = importlib.import_module("bm25s")
        except ImportError as problem:
            raise missing_extra("bm25s", "retrieval", "Retrieval by BM25") from problem
        self.size = len(split)
        self._index: Any = library.BM25(method="lucene", k1=k1, b=b)
        self._index.index(split, show_progress=False)

    def scores(self, query: str) -> torch.Tensor:
        """[n], 0 where a text shares no word with the query."""
        asked = words(query)
        if not asked:
            return torch.zeros(self.size)
        return torch.as_tensor(self._index.get_scores(asked), dtype=torch.float32)

    def nearest(
        self, queries: Sequence[str], k: int, excluded: Sequence[Collection[int]] | None = None
    ) -> list[list[int]]:
        """The k best for each query, best first; of equals the first of the pool.

        Args:
            queries: texts.
            k: how many, at most n.
            excluded: for each query, examples it must not get; its list is shorter where fewer than k are left.

        Raises:
            ConfigError: k is out of range, or there is not one exclusion for each query.
        """
        if not 0 <= k <= self.size:
            raise ConfigError(say("k", f"must be from 0 to {self.size}, the examples there are to choose from", k))
        barred = [()] * len(queries) if excluded is None else excluded
        if len(barred) != len(queries):
            raise ConfigError(say("excluded", f"must be {len(queries)}, one for each query", len(barred)))
        found = list[list[int]]()
        for query, out in zip(queries, barred, strict=True):
            ranked = whole(self.scores(query).argsort(descending=True, stable=True))
            found.append([i for i in ranked[: k + len(out)] if i not in out][:k])
        return found


def bm25(queries: Sequence[str], pool: Sequence[str], k: int) -> list[list[int]]:
    """The k texts of the pool that share the most telling words with each query, best first; see `WordIndex`.

    Raises:
        ConfigError: k is out of range.
        DataError: no text of the pool has a word.
        MissingExtraError: the extra "retrieval" is not installed.
    """
    return WordIndex(pool).nearest(queries, k)


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case.

    >>> words("It's 2 o'clock.")
    ['it', 's', '2', 'o', 'clock']
    """
    return _WORD.findall(text.lower())
