"""What asking a server may cost, what it has cost, and how fast it may go."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from reprogram.core.errors import ConfigError, SourceError, say

PER = 1_000_000
"""Prices are for so many tokens."""


_REMEDY = "What was answered is in the cache: allow more, and only the rest is asked."


class EndpointError(SourceError):
    """A server cannot be reached, refuses, or answers what makes no sense.

    Attributes:
        status: of the HTTP response; None if there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BudgetError(EndpointError):
    """What the user allowed has been used up. Everything answered till then is kept."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a source has asked of its server so far.

    Attributes:
        requests: sent, those that failed and were sent again included.
        hits: answers that came from the cache instead.
        prompt_tokens: read by the server, as it says itself.
        cached_tokens: of these, those it had read before.
        completion_tokens: written by it.
        avoided_tokens: read or written for the answers that came from the cache, when they were first given.
        seconds: between sending and receiving, summed over requests, so that it can exceed the time that passed.
        cost: by the prices the user gave, in their currency; 0 without prices.
        avoided_cost: of the answers that came from the cache.
        pictures: sent to an image classifier, those of requests that failed included: the number of queries.
        sent: bytes of requests' bodies.
        received: bytes of replies' bodies.
    """

    requests: int = 0
    hits: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    avoided_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    avoided_cost: float = 0.0
    pictures: int = 0
    sent: int = 0
    received: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a million tokens, or a million pictures, cost, in the user's currency.

    Attributes:
        prompt: tokens read.
        cached: tokens read that the server had read before; None for the price of `prompt`.
        completion: tokens written.
        picture: pictures sent to an image classifier.
    """

    prompt: float = 0.0
    cached: float | None = None
    completion: float = 0.0
    picture: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompt", "cached", "completion", "picture"):
            price = getattr(self, name)
            if price is not None and not 0 <= price < float("inf"):
                raise ConfigError(say(f"prices.{name}", "must be 0 or more for a million", price))

    def of(self, prompt: int, cached: int, completion: int) -> float:
        """What these tokens cost.

        >>> Prices(prompt=2.0, cached=0.5, completion=8.0).of(1000, 400, 100)
        0.0022
        """
        again = self.prompt if self.cached is None else self.cached
        return ((prompt - cached) * self.prompt + cached * again + completion * self.completion) / PER


def tokens_of(reply: Mapping[str, Any]) -> tuple[int, int, int]:
    """Tokens read, read before, and written, as a reply says; 0 where it does not.

    >>> details = {"prompt_tokens_details": {"cached_tokens": 4}}
    >>> tokens_of({"usage": {"prompt_tokens": 9, "completion_tokens": 2, **details}})
    (9, 4, 2)
    >>> tokens_of({})
    (0, 0, 0)
    """
    usage = _mapping(reply.get("usage"))
    prompt, written = _whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens"))
    return prompt, min(prompt, _whole(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens"))), written


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


@final
class Meter:
    """Counts, and refuses to go on when what the user allowed is used up. For several threads.

    Args:
        prices: of tokens.
        max_requests: to send at most; None for any number.
        max_tokens: to be read and written at most. Requests under way when it is reached are still answered.
        max_queries: pictures to send at most.
    """

    def __init__(
        self, prices: Prices, max_requests: int | None = None, max_tokens: int | None = None,
        max_queries: int | None = None,
    ) -> None:  # fmt: skip
        for name, limit in (("max_requests", max_requests), ("max_tokens", max_tokens), ("max_queries", max_queries)):
            if limit is not None and limit < 1:
                raise ConfigError(say(name, "must be 1 or more, or None for no limit", limit))
        self._prices, self._requests, self._tokens, self._queries = prices, max_requests, max_tokens, max_queries
        self._lock = threading.Lock()
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """So far."""
        with self._lock:
            return self._usage

    def afford(self, pictures: int) -> None:
        """Check that so many pictures may be sent.

        Raises:
            BudgetError: they may not.
        """
        with self._lock:
            self._afford(pictures)

    def _afford(self, pictures: int) -> None:
        if self._queries is not None and self._usage.pictures + pictures > self._queries:
            got = f"{self._usage.pictures} sent and {pictures} to send"
            raise BudgetError(say("max_queries", f"allows {self._queries} pictures", got, _REMEDY))

    def start(self, pictures: int = 0) -> None:
        """Count a request that is about to be sent, with so many pictures.

        Raises:
            BudgetError: it may not be sent.
        """
        remedy = _REMEDY
        with self._lock:
            used = self._usage
            self._afford(pictures)
            tokens = used.prompt_tokens + used.completion_tokens
            if self._requests is not None and used.requests >= self._requests:
                raise BudgetError(say("max_requests", f"allows {self._requests}", used.requests, remedy))
            if self._tokens is not None and tokens >= self._tokens:
                raise BudgetError(say("max_tokens", f"allows {self._tokens}", tokens, remedy))
            cost = used.cost + pictures * self._prices.picture / PER
            self._usage = replace(used, requests=used.requests + 1, pictures=used.pictures + pictures, cost=cost)

    def end(self, seconds: float, reply: Mapping[str, Any] | None, passed: tuple[int, int] = (0, 0)) -> None:
        """Count what a request took, what its reply says if there was one, and the bytes sent and received."""
        prompt, cached, written = tokens_of(reply or {})
        with self._lock:
            used = self._usage
            self._usage = replace(
                used,
                seconds=used.seconds + seconds,
                prompt_tokens=used.prompt_tokens + prompt,
                cached_tokens=used.cached_tokens + cached,
                completion_tokens=used.completion_tokens + written,
                cost=used.cost + self._prices.of(prompt, cached, written),
                sent=used.sent + passed[0],
                received=used.received + passed[1],
            )

    def hits(self, pictures: int) -> None:
        """Count pictures whose answers need not be asked for."""
        with self._lock:
            used = self._usage
            avoided = used.avoided_cost + pictures * self._prices.picture / PER
            self._usage = replace(used, hits=used.hits + pictures, avoided_cost=avoided)

    def hit(self, reply: Mapping[str, Any]) -> None:
        """Count an answer that need not be asked for."""
        prompt, cached, written = tokens_of(reply)
        with self._lock:
            used = self._usage
            self._usage = replace(
                used,
                hits=used.hits + 1,
                avoided_tokens=used.avoided_tokens + prompt + written,
                avoided_cost=used.avoided_cost + self._prices.of(prompt, cached, written),
            )


@final
class Pace:
    """When the next request may go out: evenly spaced by a rate, and not before a server's wish. For several threads.

    Args:
        rate: requests a minute; None for any.
    """

    def __init__(self, rate: float | None = None) -> None:
        if rate is not None and not 0 < rate < float("inf"):
            raise ConfigError(say("rate", "must be a number of requests a minute above 0", rate))
        self._gap = 60 / rate if rate else 0.0
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, stop: threading.Event) -> None:
        """Sleep until it is this request's turn, or until `stop` is set."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap if self._gap else self._next
        if turn > now:
            stop.wait(turn - now)

    def hold(self, seconds: float) -> None:
        """Nobody sends before so many seconds have passed."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def spent(usage: Usage) -> str:
    """What was asked of a server, in a line.

    >>> spent(Usage(requests=2, pictures=100, hits=28, seconds=1.5, sent=2_500_000, received=90_000))
    '100 pictures in 2 requests, 28 answers kept from before, 1.5 s of waiting, 2.5 MB sent, 0.1 MB received'
    >>> spent(Usage(requests=3, prompt_tokens=40, completion_tokens=9, cost=0.25))
    '3 requests, 0 answers kept from before, 40 tokens read, 9 written, cost 0.25'
    """
    asked = f"{usage.requests:,} requests"
    kept = f"{usage.hits:,} answers kept from before"
    if usage.prompt_tokens or usage.completion_tokens:
        told = f"{asked}, {kept}, {usage.prompt_tokens:,} tokens read, {usage.completion_tokens:,} written"
    else:
        moved = f"{usage.sent / 1e6:.1f} MB sent, {usage.received / 1e6:.1f} MB received"
        told = f"{usage.pictures:,} pictures in {asked}, {kept}, {usage.seconds:.1f} s of waiting, {moved}"
    return f"{told}, cost {usage.cost:.4g}" if usage.cost else told
