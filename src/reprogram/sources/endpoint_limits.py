"""What asking a server may cost, what it has cost, and how fast it may go."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from reprogram.core.errors import ConfigError, SourceError, say

PER = 1_000_000
"""Prices are for so many tokens."""


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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a million tokens cost, in the user's currency.

    Attributes:
        prompt: tokens read.
        cached: tokens read that the server had read before; None for the price of `prompt`.
        completion: tokens written.
    """

    prompt: float = 0.0
    cached: float | None = None
    completion: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompt", "cached", "completion"):
            price = getattr(self, name)
            if price is not None and not 0 <= price < float("inf"):
                raise ConfigError(say(f"prices.{name}", "must be 0 or more for a million tokens", price))

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
    """

    def __init__(self, prices: Prices, max_requests: int | None = None, max_tokens: int | None = None) -> None:
        for name, limit in (("max_requests", max_requests), ("max_tokens", max_tokens)):
            if limit is not None and limit < 1:
                raise ConfigError(say(name, "must be 1 or more, or None for no limit", limit))
        self._prices, self._requests, self._tokens = prices, max_requests, max_tokens
        self._lock = threading.Lock()
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """So far."""
        with self._lock:
            return self._usage

    def start(self) -> None:
        """Count a request that is about to be sent.

        Raises:
            BudgetError: it may not be sent.
        """
        remedy = "What was answered is in the cache: allow more, and only the rest is asked."
        with self._lock:
            used = self._usage
            tokens = used.prompt_tokens + used.completion_tokens
            if self._requests is not None and used.requests >= self._requests:
                raise BudgetError(say("max_requests", f"allows {self._requests}", used.requests, remedy))
            if self._tokens is not None and tokens >= self._tokens:
                raise BudgetError(say("max_tokens", f"allows {self._tokens}", tokens, remedy))
            self._usage = replace(used, requests=used.requests + 1)

    def end(self, seconds: float, reply: Mapping[str, Any] | None) -> None:
        """Count what a request took, and what its reply says if there was one."""
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
            )

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
