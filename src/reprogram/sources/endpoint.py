"""Language models behind an OpenAI-compatible HTTP server (vLLM, llama.cpp, Ollama, hosted ones) as frozen sources.

Value flow: texts -> edits at "input" -> prompts -> the route for plain texts, or that for chats -> texts, or scores of
choices. What the server can do is found out by asking it (`endpoint_probe`), answers are kept on disk
(`endpoint_cache`), and what it costs is counted (`EndpointSource.usage`).
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, final
from urllib.parse import quote, urlencode

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, say
from reprogram.core.program import Input
from reprogram.core.source import Capability, Reading, SourceOutput, SourceSpec
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Batch, Texts
from reprogram.core.writing import PICTURE, Grammar, Writing, Written, readable
from reprogram.media import as_samples
from reprogram.sources._rows import as_texts
from reprogram.sources.cache import cache_folder
from reprogram.sources.endpoint_asking import Asker, Question, Reply
from reprogram.sources.endpoint_cache import ReplyCache, digest
from reprogram.sources.endpoint_client import Client, Route
from reprogram.sources.endpoint_grammar import TEST, WAYS, Way, obeys, unwrapped, verify
from reprogram.sources.endpoint_grammar import fields as grammar_fields
from reprogram.sources.endpoint_limits import EndpointError, Meter, Pace, Usage
from reprogram.sources.endpoint_messages import Prompt, cleaned, decoding, is_chat, messages, written
from reprogram.sources.endpoint_options import EndpointOptions, endpoint_options
from reprogram.sources.endpoint_probe import PROBE_SCHEMA, Facts, as_json, from_json, named, probe
from reprogram.sources.endpoint_scores import Scorer, tensors

FRESH = 3600.0
"""Seconds for which what was found out about a server is taken as known."""

_KEPT = ("model", "api", "context", "scoring")
_PER_TURN, _PER_PICTURE = 16, 2048
_log = logging.getLogger("reprogram")


def load_endpoint(url: str, options: Mapping[str, Any]) -> "EndpointSource":
    """A model behind a server, once it has been found out what it can do.

    Args:
        url: the part of the addresses before "/completions", such as "http://127.0.0.1:8000/v1".
        options: see `EndpointOptions`; numbers may be given as text.

    Raises:
        SourceError: the server cannot be reached, does not know the model, or an option is unknown.
        ConfigError: a value is out of range.
        MissingExtraError: the extra "endpoint" is not installed.
    """
    return _connected(url, endpoint_options(options))


def _connected(url: str, options: EndpointOptions) -> "EndpointSource":
    meter = Meter(options.prices, options.max_requests, options.max_tokens)
    client = Client(url, meter, Pace(options.rate), timeout=options.timeout, retries=options.retries,
                    key_env=options.key_env)  # fmt: skip
    cache: ReplyCache | None = None
    if options.cache is not False:
        path = cache_folder() / "replies.sqlite3" if options.cache is True else Path(options.cache).expanduser()
        cache = ReplyCache(path, options.cache_bytes)
    try:
        listed = named(client.models(), options.model, client.url)
        about = {"facts": PROBE_SCHEMA, "url": client.url, "api": options.api, "pictures": options.pictures}
        key = digest(about | {"listed": as_json(listed)})
        facts = _facts(client, cache, options, listed, key)
    except BaseException:
        client.close()
        if cache is not None:
            cache.close()
        raise
    return EndpointSource(client, facts, cache, options, key)


def _facts(client: Client, cache: ReplyCache | None, options: EndpointOptions, listed: Facts, key: str) -> Facts:
    """What the server can do: known since not long ago, or found out now."""
    kept = cache.get([key]).get(key) if cache is not None else None
    if isinstance(kept, dict) and 0 <= time.time() - kept.get("at", 0.0) < FRESH:
        facts = from_json(kept.get("facts"))
        if facts is not None:
            return facts
    facts = probe(client, listed, options.api, pictures=options.pictures)
    if cache is not None and facts.sure:
        cache.put(key, {"at": time.time(), "facts": as_json(facts)})
    return facts


@final
class EndpointSource:
    """A frozen language model behind a server. Make one with `load_source("endpoint/http://...")`.

    It reads prompts and goes on writing (`Reading.writing`), and scores choices (`Reading.choices`) with what the
    server gives; nothing inside the model can be read or edited. Ctrl-C ends a batch at once. Whatever ends a run,
    answers that came are in the cache, and the next run asks for the rest only.

    Attributes:
        facts: what was found out about the server.
        kind: "causal".
        notes: what a user should know of how prompts were sent; each is logged once as a warning, too.
    """

    def __init__(
        self, client: Client, facts: Facts, cache: ReplyCache | None, options: EndpointOptions, facts_key: str
    ) -> None:
        self.facts, self.options, self.kind = facts, options, "causal"
        self.notes: tuple[str, ...] = ()
        self._client, self._cache, self._facts_key = client, cache, facts_key
        self._asker = Asker(client, facts.model, facts.fingerprint(), cache, options.concurrency)
        self._scorer = Scorer(self._asker, facts, options.scoring, self._write, self._has_choice)
        self._ways: dict[tuple[Route, str], Way | None] = {}
        words = {name: getattr(options, name) for name in _KEPT} | {"model": facts.model}
        said = {n: v for n, v in words.items() if v not in (None, "auto")}
        ref = f"endpoint/{client.url}?{urlencode(said, safe='/:', quote_via=quote)}"
        self.spec = SourceSpec(ref=ref, modality="text", input_shape=(0,), outputs=0)
        self.sites: Mapping[str, Location] = MappingProxyType({"input": Location.INPUT})
        can = {Capability.GENERATION}
        can |= {Capability.PICTURES} if facts.pictures else set()
        can |= {Capability.LOG_PROBABILITIES} if self._scorer.gives_probabilities else set()
        self.capabilities = frozenset(can)
        self.device = torch.device("cpu")

    # -- facts -----------------------------------------------------------------------------------------------------

    @property
    def context(self) -> int | None:
        """Tokens it can read and write, if the user or the server said so."""
        return self.options.context or self.facts.context

    @property
    def usage(self) -> Usage:
        """What was asked of the server so far, and what it cost."""
        return self._client.meter.usage

    @property
    def scoring(self) -> tuple[str, ...]:
        """The rungs of the ladder that scores came from so far, see `endpoint_scores`."""
        return tuple(self._scorer.used)

    def count(self, text: str) -> int:
        """Tokens of a prompt, from above: no token is less than a byte. Turns and pictures count flat.

        Of English prose it is about four times too many; the server's tokenizer is not known here.
        """
        marks = sum("\ue002" <= letter <= "\ue004" for letter in text)
        shown = text.count(PICTURE)
        return len(text.encode("utf-8", "surrogatepass")) + marks * _PER_TURN + shown * _PER_PICTURE + 1

    def rendered(self, prompt: str) -> str:
        """A prompt as it is sent, with a role before each turn: the server puts turns into its model's own form."""
        return readable(cleaned(prompt))

    def fingerprint(self) -> str:
        """SHA-256 of the model's name and what the server says of it, 64 hex digits; not of the server's address.

        The same model behind another port has the same one. Nothing but the server's word is to be had: it differs if
        the name, "owned_by", what llama.cpp tells of the weights, or "system_fingerprint" differ. Other weights or
        another precision under the same name stay unnoticed, so name models with their revision.
        """
        return self._asker.fingerprint

    def to(self, device: torch.device | str) -> "EndpointSource":
        """Itself: where the server runs is its own business."""
        return self

    def close(self) -> None:
        """Close connections and the cache; also done when nobody holds the source any more."""
        self._client.close()
        if self._cache is not None:
            self._cache.close()

    # -- running ---------------------------------------------------------------------------------------------------

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        """Check what a program needs, before anything is asked.

        Raises:
            CapabilityError: another site than "input", or something to be read that servers do not give.
        """
        for site in sites:
            if site not in self.sites:
                raise CapabilityError(say("site", 'must be "input": the model runs on a server', site))
        _refuse(reading, self.spec.ref)

    def editing(self, input: Input) -> AbstractContextManager[None]:
        """There are no hidden edits."""
        return nullcontext()

    def prepare(self, inputs: object, sample: Sample | None) -> Sequence[Tensor] | Texts:
        """Texts, or rows with the task's columns, as a batch; for a task of pictures, pictures.

        Raises:
            DataError: an input is none of these.
        """
        if sample is not None and len(sample.shape) == 3:
            return as_samples(inputs, sample)
        return as_texts(inputs, sample.columns if sample is not None and sample.columns else ("text",))

    def __call__(self, x: Batch, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """Texts or scores for a batch.

        Raises:
            CapabilityError: the reading asks for what servers do not give, or what this one does not.
            DataError: a prompt cannot be sent.
            EndpointError: the server failed, after all tries; every answer that came before is kept.
            BudgetError: the user's allowance is used up; likewise.
        """
        _refuse(reading, self.spec.ref)
        if reading.writing is None and not reading.choices:
            remedy = "Use an output that reads texts or scores choices."
            raise CapabilityError(say("source", "gives texts and scores of choices only", "class scores", remedy))
        made = input(x, "input")
        if not isinstance(made, Texts):
            raise CapabilityError(say("source", "must be given prompts", type(made).__name__, "Add a template."))
        prompts = self._prompts(made)
        try:
            return self._answers(prompts, reading)
        except (CapabilityError, EndpointError):
            if self._cache is not None:  # it may not be what it was: the next source finds that out anew
                self._cache.put(self._facts_key, None)
            raise

    def _answers(self, prompts: Sequence[Prompt], reading: Reading) -> SourceOutput:
        out = SourceOutput()
        if reading.choices:
            rows = self._scorer(prompts, reading.choices)
            values, counts, exact = tensors(rows, len(reading.choices))
            out = SourceOutput(choices=values, choice_tokens=counts, exact=exact)
        if reading.writing is not None:
            out = replace(out, written=tuple(self._write(prompts, reading.writing)))
        return out

    def _prompts(self, texts: Texts) -> list[Prompt]:
        shown = texts.pictures if texts.pictures is not None else [()] * len(texts)
        return [self._prompt(cleaned(text), pictures) for text, pictures in zip(texts.prompts, shown, strict=True)]

    def _prompt(self, text: str, pictures: Sequence[Tensor]) -> Prompt:
        """Where a prompt goes, and as what."""
        if pictures and not self.facts.pictures:
            remedy = "Say pictures=True if it does."
            raise CapabilityError(say("source", "must read pictures", self.spec.ref, remedy))
        turned = is_chat(text) or bool(pictures)
        if turned and not self.facts.chat:
            raise CapabilityError(say("source", "must have a chat route for prompts with turns", self.spec.ref))
        if not turned and self.facts.completions:
            return Prompt("completions", text)
        if not turned:
            self._note("Plain prompts go to the chat route, each as one turn of the user's: the server has no route "
                       "for texts to go on with, or is not to use it.")  # fmt: skip
        found = messages(text, pictures)
        if found[-1]["role"] == "assistant":
            self._note("Prompts end with words of the assistant's own. Whether it goes on with them or begins a new "
                       "turn is up to the server.")  # fmt: skip
        return Prompt("chat", messages=tuple(found))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes = (*self.notes, text)
            _log.warning("%s: %s", self.spec.ref, text)

    # -- writing ---------------------------------------------------------------------------------------------------

    def _write(self, prompts: Sequence[Prompt], writing: Writing) -> list[tuple[Written, ...]]:
        ways: dict[Route, Way | None] = {}
        for prompt in prompts:
            ways[prompt.route] = self._way(prompt.route, writing.grammar)
        questions = [
            self._question(prompt, writing, sample, ways[prompt.route])
            for prompt in prompts
            for sample in range(writing.samples)
        ]
        replies = self._asker.ask(questions)
        self._watch(replies)
        texts = [
            self._read(q.route, reply, writing, ways[q.route]) for q, reply in zip(questions, replies, strict=True)
        ]
        each = writing.samples
        return [tuple(texts[start : start + each]) for start in range(0, len(texts), each)]

    def _question(self, prompt: Prompt, writing: Writing, sample: int, way: Way | None) -> Question:
        limit = self.facts.limit if prompt.route == "chat" else "max_tokens"
        told = self.facts.top(prompt.route) > 0
        body = prompt.body() | decoding(writing, sample, prompt.route, limit, logprobs=told)
        if writing.grammar is None or way is None:
            return Question(prompt.route, body, sample)
        body |= grammar_fields(writing.grammar, way) or {}
        return Question(prompt.route, body, sample, lambda reply: self._obeyed(prompt.route, reply, writing, way))

    def _read(self, route: Route, reply: Reply, writing: Writing, way: Way | None) -> Written:
        said = written(reply, route, writing, logprobs=self.facts.top(route) > 0)
        if writing.grammar is None or way is None:
            return said
        return replace(said, text=unwrapped(said.text, writing.grammar, way))

    def _obeyed(self, route: Route, reply: Reply, writing: Writing, way: Way) -> None:
        said = self._read(route, reply, writing, way)
        if said.finish != "length" and writing.grammar is not None:
            verify(said.text, writing.grammar, self._client.url)

    def _watch(self, replies: Sequence[Reply]) -> None:
        """Say so, once, if the server changes under way."""
        now = {reply.get("system_fingerprint") for reply in replies} - {None, self.facts.system}
        if now and self.facts.system:
            self._note(f"The server's system_fingerprint is no longer {self.facts.system!r}: answers may come from "
                       "different models or settings.")  # fmt: skip

    def _has_choice(self, route: Route) -> bool:
        return self._found_way(route, "choice") is not None

    def _way(self, route: Route, grammar: Grammar | None) -> Way | None:
        """How to ask for a grammar.

        Raises:
            CapabilityError: the server has none, as far as can be seen.
        """
        if grammar is None:
            return None
        way = self._found_way(route, grammar.kind)
        if way is None:
            remedy = "Write freely and parse the text, or use a server with constrained decoding."
            raise CapabilityError(say(self._client.url, f"must keep to a grammar of kind {grammar.kind!r}",
                                      "texts that do not", remedy))  # fmt: skip
        grammar_fields(grammar, way)
        return way

    def _found_way(self, route: Route, kind: str) -> Way | None:
        """The first way of asking that works on words which no model writes by itself."""
        if (route, kind) not in self._ways:
            self._ways[route, kind] = next((way for way in WAYS if self._works(route, kind, way)), None)
        return self._ways[route, kind]

    def _works(self, route: Route, kind: str, way: Way) -> bool:
        test = TEST[kind]
        asked = grammar_fields(test, way)
        if asked is None:
            return False
        text = "Write a word: "
        prompt = Prompt("completions", text) if route == "completions" else Prompt("chat", messages=(*messages(text),))
        writing = Writing(tokens=48)
        limit = self.facts.limit if route == "chat" else "max_tokens"
        body = prompt.body() | decoding(writing, 0, route, limit, logprobs=False) | asked
        try:
            reply = self._asker.ask([Question(route, body)])[0]
        except EndpointError as problem:
            if problem.status is None or problem.status in (401, 403, 408, 409, 429):
                raise
            return False
        return obeys(unwrapped(written(reply, route, writing, logprobs=False).text, test, way), test)


def _refuse(reading: Reading, ref: str) -> None:
    asked = {
        "features": reading.features,
        "scores at every token": reading.tokens,
        "scores of token ids": bool(reading.continuations),
    }
    wanted = [name for name, is_asked in asked.items() if is_asked]
    if wanted:
        remedy = "Use a source that runs here, or an output that reads texts or scores choices."
        raise CapabilityError(say("source", f"must give {', '.join(wanted)}", ref, remedy))
