"""What a server can do, found out by asking it, and not by its brand or by what it says of itself.

Servers ignore fields that they do not know, score everything 0, or answer other questions than they were asked. So each
capability counts only if the reply to a small question shows it.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, final

import torch

from reprogram.core.errors import SourceError, say
from reprogram.core.writing import PICTURE
from reprogram.sources.endpoint_cache import digest
from reprogram.sources.endpoint_client import Client, Route
from reprogram.sources.endpoint_limits import EndpointError, tokens_of
from reprogram.sources.endpoint_messages import first_step, messages, token_logprobs

Api = Literal["auto", "chat", "completions"]
PROBE = "The quick brown fox jumps over"
"""Several tokens in any vocabulary."""

MOST_LIKELY = (20, 5)
"""Numbers of likeliest tokens to ask for; the first one the server gives is used."""

PROBE_SCHEMA = 1
_RETRIES = 2
_log = logging.getLogger("reprogram")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a model behind a server.

    Attributes:
        model: its name there.
        owner: "owned_by" in the server's list of models.
        meta: what the list says of the weights ("meta" of llama.cpp: parameters, size, vocabulary).
        system: "system_fingerprint" of the first reply that had one.
        context: tokens, if the list says so.
        completions: it goes on writing after plain texts.
        chat: it answers turns.
        echo: it gives the log-probabilities of a prompt's own tokens, and they look like some.
        top_completions: how many likeliest tokens it gives at each step; 0 for none that can be believed.
        top_chat: the same on the chat route.
        limit: the field for the number of tokens on the chat route.
        pictures: it reads pictures.
        sure: no question went unanswered; only then are the facts kept.
    """

    model: str
    owner: str = ""
    meta: str = ""
    system: str = ""
    context: int | None = None
    completions: bool = False
    chat: bool = False
    echo: bool = False
    top_completions: int = 0
    top_chat: int = 0
    limit: str = "max_tokens"
    pictures: bool = False
    sure: bool = True

    def top(self, route: Route) -> int:
        """Likeliest tokens to be had on a route."""
        return self.top_chat if route == "chat" else self.top_completions

    def fingerprint(self) -> str:
        """SHA-256 of what tells the model, not of where it is."""
        parts = {"model": self.model, "owner": self.owner, "meta": self.meta, "system": self.system}
        return digest(parts | {"endpoint": PROBE_SCHEMA})


def named(listed: list[dict[str, Any]], model: str | None, url: str) -> Facts:
    """The model that is meant, with what the server's list says of it.

    Raises:
        SourceError: none is named, and the server has several or none.
    """
    names = [str(entry["id"]) for entry in listed]
    if model is None:
        if len(names) != 1:
            remedy = "Name one: endpoint/" + url + "?model=<name>"
            raise SourceError(say("model", f"must be named, because {url} has {len(names)}", names[:20], remedy))
        model = names[0]
    entry = next((e for e in listed if e["id"] == model), {})
    meta = entry.get("meta")
    weights = {n: v for n, v in meta.items() if n != "n_ctx"} if isinstance(meta, Mapping) else {}
    sizes = [entry.get(n) for n in ("max_model_len", "context_length", "context_window")]
    sizes.append(meta.get("n_ctx") if isinstance(meta, Mapping) else None)
    return Facts(
        model=model,
        owner=str(entry.get("owned_by") or ""),
        meta=digest(weights) if weights else "",
        context=next((size for size in sizes if isinstance(size, int) and size > 0), None),
    )


def probe(client: Client, facts: Facts, api: Api, *, pictures: bool | None) -> Facts:
    """Ask a handful of short questions.

    Args:
        client: of the server.
        facts: what is known already.
        api: routes to look at.
        pictures: whether the model reads them, if the user knows.

    Raises:
        SourceError: the server cannot be reached, lets nobody in, or has neither route for this model.
    """
    prober = _Prober(client, facts)
    if api != "chat":
        prober.completions()
    if api != "completions":
        prober.chat()
        if prober.facts.chat and pictures is not False:
            prober.facts = replace(prober.facts, pictures=pictures is True or prober.sees())
    found = prober.facts
    if not found.completions and not found.chat:
        remedy = "Check the model's name" + (" and ?api=." if api != "auto" else ".")
        raise SourceError(say(client.url, f"must answer for the model {facts.model!r}", prober.last, remedy))
    return found


@final
class _Prober:
    def __init__(self, client: Client, facts: Facts) -> None:
        self.client, self.facts = client, facts
        self.last, self._gone = "no reply", False

    def completions(self) -> None:
        body = {"prompt": PROBE, "max_tokens": 1, "temperature": 0.0}
        echoed = self._try("completions", body | {"echo": True, "logprobs": 1})
        if echoed is not None and echo_fault(echoed, PROBE) is None:
            self.facts = replace(self.facts, echo=True)
        if echoed is None and self._gone:
            return
        top, plain = self._likeliest("completions", body)
        self.facts = replace(self.facts, completions=plain is not None, top_completions=top)

    def chat(self) -> None:
        body = {"messages": messages(PROBE), "temperature": 0.0, self.facts.limit: 1}
        first = self._try("chat", body)
        if first is None and not self._gone and "max_completion_tokens" in self.last:
            self.facts = replace(self.facts, limit="max_completion_tokens")
            body = {"messages": messages(PROBE), "temperature": 0.0, self.facts.limit: 1}
            first = self._try("chat", body)
        if first is None:
            return
        top, _ = self._likeliest("chat", body, first)
        self.facts = replace(self.facts, chat=True, top_chat=top)

    def sees(self) -> bool:
        """It reads more tokens if a prompt has a picture, as many for any picture of one size."""
        flat = torch.zeros(3, 64, 64, dtype=torch.uint8)
        noise = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        counts: list[int] = []
        for shown in ((), (flat,), (noise,)):
            body = {"messages": messages(PROBE + PICTURE * len(shown), shown), "temperature": 0.0, self.facts.limit: 1}
            reply = self._try("chat", body)
            if reply is None:
                return False
            counts.append(tokens_of(reply)[0])
        return 0 < counts[0] < counts[1] == counts[2]

    def _likeliest(
        self, route: Route, body: dict[str, Any], plain: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any] | None]:
        """How many likeliest tokens it gives, and a reply to the plain question."""
        for count in MOST_LIKELY:
            asked = {"logprobs": True, "top_logprobs": count} if route == "chat" else {"logprobs": count}
            reply = self._try(route, body | asked)
            if reply is None:
                continue
            fault = step_fault(reply)
            if fault is None:
                return count, reply
            _log.info("%s: log-probabilities on the %s route are not used: %s.", self.client.url, route, fault)
            return 0, reply
        return 0, plain if plain is not None else self._try(route, body)

    def _try(self, route: Route, body: dict[str, Any]) -> dict[str, Any] | None:
        """The reply; None if the server does not take the question."""
        self._gone = False
        try:
            reply = self.client.ask(route, {"model": self.facts.model, **body}, retries=_RETRIES)
        except EndpointError as problem:
            if problem.status is None or problem.status in (401, 403, 408, 409, 429):
                raise
            self.last, self._gone = str(problem), problem.status in (404, 405)
            if problem.status >= 500 and problem.status != 501:
                self.facts = replace(self.facts, sure=False)
            return None
        system = reply.get("system_fingerprint")
        if isinstance(system, str) and not self.facts.system:
            self.facts = replace(self.facts, system=system)
        return reply


def echo_fault(reply: Mapping[str, Any], text: str) -> str | None:
    """Why the log-probabilities of a prompt's own tokens cannot be believed; None if they can."""
    tokens = echoed(reply, text)
    prompt, _, _ = tokens_of(reply)
    if not tokens:
        return "there are none"
    if prompt and len(tokens) != prompt:
        return f"{len(tokens)} of them for {prompt} tokens"
    if not b"".join(token for token, _ in tokens).endswith(text.encode()):
        return "they are of another text"
    return values_fault([value for _, value in tokens[1:]])


def echoed(reply: Mapping[str, Any], text: str) -> list[tuple[bytes, float | None]]:
    """A prompt's own tokens, without the one that was written after them, if there is one."""
    found = token_logprobs(reply["choices"][0])
    prompt, _, _ = tokens_of(reply)
    if prompt:
        return found[:prompt] if len(found) == prompt + 1 else found
    whole = b"".join(token for token, _ in found).endswith(text.encode())
    return found if whole else found[:-1]


def values_fault(values: list[float | None]) -> str | None:
    """What is wrong with log-probabilities of several tokens of a text.

    >>> values_fault([-1.0, -2.5]), values_fault([0.0, 0.0]), values_fault([-1.0, None])
    (None, 'all are 0', 'some are no finite numbers')
    >>> values_fault([-1.0, 0.5]), values_fault([-3.0, -3.0, -3.0])
    ('some are above 0', 'all are the same')
    """
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    if not numbers or len(numbers) < len(values):
        return "some are no finite numbers"
    if all(v == 0 for v in numbers):
        return "all are 0"
    if max(numbers) > 1e-3:
        return "some are above 0"
    return "all are the same" if len(numbers) > 2 and len(set(numbers)) == 1 else None


def step_fault(reply: Mapping[str, Any]) -> str | None:
    """Why the likeliest tokens of a step cannot be believed; None if they can."""
    step = first_step(reply["choices"][0])
    values = list(step.values())
    if len(values) < 2:
        return "there are fewer than two"
    fault = values_fault([None if v == -math.inf else v for v in values if v > -100])
    if fault is not None:
        return fault
    if sum(math.exp(v) for v in values) > 1.01:
        return "the probabilities come to more than 1"
    chosen = token_logprobs(reply["choices"][0])
    if chosen and step.get(chosen[0][0], -math.inf) < max(values) - 0.1:
        return "the likeliest token is not the one that was written"
    return None


def as_json(facts: Facts) -> dict[str, Any]:
    """For the cache."""
    return asdict(facts)


def from_json(kept: object) -> Facts | None:
    """Facts from the cache; None if they are of another version."""
    if not isinstance(kept, dict) or set(kept) != {f.name for f in fields(Facts)}:
        return None
    return Facts(**kept)
