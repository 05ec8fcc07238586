"""How to use a server: what users may set, in Python or in a reference."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final, get_args

from reprogram.core.errors import ConfigError, SourceError, say
from reprogram.sources.endpoint_cache import LIMIT
from reprogram.sources.endpoint_limits import Prices
from reprogram.sources.endpoint_probe import Api
from reprogram.sources.endpoint_scores import Scoring

REF_WORDS = ("model", "api", "context", "scoring", "concurrency", "rate", "timeout")
"""Options that may stand in a reference."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """How to use a server. Defaults are ours.

    Attributes:
        model: its name there; None if the server has one only.
        api: "completions" or "chat" for all prompts; "auto" sends turns and pictures to the chat route and plain
            prompts to the other one, if there is one.
        context: tokens the model can read and write; None for what the server says, if it says so.
        scoring: how choices are scored, see `endpoint_scores`.
        concurrency: requests under way at most.
        rate: requests a minute; None for any.
        timeout: seconds for one request.
        retries: after a lost connection, a timeout, or HTTP 408, 409, 429 or 5xx.
        max_requests: to send at most, those of the start included; None for any number.
        max_tokens: to be read and written at most; None for any number.
        prices: what tokens cost.
        cache: a file for the answers, True for the one in the user's cache folder, False for none.
        cache_bytes: of text in that file at most.
        pictures: whether the model reads pictures; None to find out.
        key_env: name of the environment variable with the key for this very host; None for REPROGRAM_API_KEY, which
            goes to the host in REPROGRAM_API_HOST, and OPENAI_API_KEY, which goes to its own.

    Raises:
        ConfigError: a value is out of range.
    """

    model: str | None = None
    api: Api = "auto"
    context: int | None = None
    scoring: Scoring = "auto"
    concurrency: int = 8
    rate: float | None = None
    timeout: float = 120.0
    retries: int = 6
    max_requests: int | None = None
    max_tokens: int | None = None
    prices: Prices = Prices()  # noqa: RUF009 - frozen
    cache: bool | str | Path = True
    cache_bytes: int = LIMIT
    pictures: bool | None = None
    key_env: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("retries", 0), ("cache_bytes", 1)):
            if getattr(self, name) < least:
                raise ConfigError(say(name, f"must be {least} or more", getattr(self, name)))
        if not 0 < self.timeout < float("inf") or (self.context is not None and self.context < 1):
            raise ConfigError(say("timeout, context", "must be above 0", (self.timeout, self.context)))


def endpoint_options(options: Mapping[str, Any]) -> EndpointOptions:
    """Options by name; numbers may be given as text.

    Raises:
        SourceError: one is unknown.
        ConfigError: a value is out of range.
    """
    known = {field.name for field in fields(EndpointOptions)}
    strange = sorted(options.keys() - known)
    if strange:
        raise SourceError(say("options", f"must be among {', '.join(sorted(known))} for an endpoint", strange))
    return EndpointOptions(**{name: _typed(name, value) for name, value in options.items()})


_NUMBERS = {"context": int, "concurrency": int, "rate": float, "timeout": float}
_WORDS = {"api": get_args(Api), "scoring": get_args(Scoring)}


def _typed(name: str, value: Any) -> Any:
    """A number or one of some words, as they stand in a reference."""
    if name in _WORDS and value not in _WORDS[name]:
        raise ConfigError(say(name, f"must be one of {', '.join(_WORDS[name])}", value))
    if name not in _NUMBERS or not isinstance(value, str):
        return value
    try:
        return _NUMBERS[name](value)
    except ValueError as problem:
        raise ConfigError(say(name, "must be a number", value)) from problem
