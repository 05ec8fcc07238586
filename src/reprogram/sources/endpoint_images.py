"""Image classifiers behind HTTP as frozen sources: pictures go out, scores come back, nothing else is to be had.

Value flow: pictures in [0, 1] -> edits at "input" -> float32 arrays or PNG files -> requests side by side -> logits,
probabilities, some classes with theirs, or one class -> scores [B, S].

Pictures are sent to the address itself. A server that is to be found out about answers GET there with

    {"task": "image-classification", "labels": ["tench", ...], "input_shape": [3, 224, 224], "gives": "probabilities",
     "formats": ["json", "multipart"], "pixels": ["float32", "png"], "batch": 64, "model": "<what tells its weights>"}

and is sent `{"pictures": [<picture>, ...]}`; it answers `{"answers": [<answer>, ...]}`. A picture is the base64 text of
a PNG file, or `{"shape": [3, h, w], "float32": <base64 of little-endian numbers>}`. An answer is a list of S numbers,
a list of `{"label": ..., "score": ...}` (with "index" where names are not unique), or a label. To a form, pictures are
files. Other servers are described by `EndpointImageOptions`.

A PNG has 8 bits: changes of a pixel below 1/510 are lost, and larger ones are off by up to 1/510. A learned pattern may
not notice; small steps that are compared, as zeroth-order methods take them, vanish. Use float32 where it is to be had.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, final
from urllib.parse import quote, urlencode

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, SourceError, say
from reprogram.core.program import Input
from reprogram.core.source import Capability, Reading, SourceOutput, SourceSpec
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Batch
from reprogram.media import Samples, as_samples, as_unit
from reprogram.sources.cache import cache_folder
from reprogram.sources.endpoint_cache import ReplyCache, digest
from reprogram.sources.endpoint_client import Client
from reprogram.sources.endpoint_crew import side_by_side
from reprogram.sources.endpoint_images_options import (
    IMAGE_WORDS,
    EndpointImageOptions,
    ImageFacts,
    image_facts,
    image_options,
    is_described,
)
from reprogram.sources.endpoint_images_wire import as_sent, keys, packed, request, scores, unpacked
from reprogram.sources.endpoint_limits import EndpointError, Meter, Pace, Usage

_SCHEMA = 1


def load_endpoint_images(url: str, options: Mapping[str, Any]) -> "EndpointImageSource":
    """An image classifier behind an address, once the server has said what it is.

    Args:
        url: where pictures are sent, such as "http://127.0.0.1:8766".
        options: see `EndpointImageOptions`; numbers may be given as text.

    Raises:
        SourceError: an option is unknown, or the server's description makes no sense.
        ConfigError: a value is out of range, or the number of classes or a picture's size is not known.
        MissingExtraError: the extra "endpoint" is not installed.
    """
    own = image_options(options)
    client = _client(url, own)
    try:
        return _connected(client, client.about(), own)
    except BaseException:
        client.close()
        raise


def described(url: str, options: Mapping[str, Any]) -> "EndpointImageSource | None":
    """The image classifier behind an address, if there is one that says so; None for anything else."""
    shared = ("timeout", "rate", "retries", "key_env", "concurrency", "cache", "cache_bytes", "prices", "max_requests")
    if any(name not in shared for name in options):
        return None  # only a language model has such options
    own = image_options(options)
    client = _client(url, own)
    try:
        about = client.about()
        if is_described(about):
            return _connected(client, about, own)
    except BaseException:
        client.close()
        raise
    client.close()
    return None


def _client(url: str, options: EndpointImageOptions) -> Client:
    meter = Meter(options.prices, options.max_requests, max_queries=options.max_queries)
    return Client(url, meter, Pace(options.rate), timeout=options.timeout, retries=options.retries,
                  key_env=options.key_env)  # fmt: skip


def _connected(
    client: Client, about: Mapping[str, Any] | None, options: EndpointImageOptions
) -> "EndpointImageSource":  # fmt: skip
    facts = image_facts(about, options, client.url)
    cache: ReplyCache | None = None
    if options.cache is not False:
        path = cache_folder() / "replies.sqlite3" if options.cache is True else Path(options.cache).expanduser()
        cache = ReplyCache(path, options.cache_bytes)
    return EndpointImageSource(client, facts, cache, options)


@final
class EndpointImageSource:
    """A frozen image classifier behind a server. Make one with `load_source("endpoint/http://...")`.

    It gives scores and nothing else: no gradients, no features, no sites but "input". Answers are kept on disk, by the
    picture's bytes, so that a run that was cut short asks for the rest only. Scores are logits where the server gives
    them, else logarithms of probabilities.

    Attributes:
        facts: what is known of the server.
        options: how it is used.
    """

    def __init__(
        self, client: Client, facts: ImageFacts, cache: ReplyCache | None, options: EndpointImageOptions
    ) -> None:  # fmt: skip
        self.facts, self.options = facts, options
        self._client, self._cache = client, cache
        said: dict[str, Any] = {"as": "image"}
        said |= {name: value for name in IMAGE_WORDS if (value := getattr(options, name)) is not None}
        ref = f"endpoint/{client.url}?{urlencode(said, safe='/:', quote_via=quote)}"
        self.spec = SourceSpec(ref=ref, modality="image", input_shape=facts.shape, outputs=facts.outputs,
                               labels=facts.labels, resizable=facts.resizable)  # fmt: skip
        self.sites: Mapping[str, Location] = MappingProxyType({"input": Location.INPUT})
        self.capabilities = frozenset[Capability]()
        self.device = torch.device("cpu")
        self._prefix = digest({"schema": _SCHEMA, "pictures": self.fingerprint(), "floor": options.floor,
                               "pixels": facts.pixels, "answer": facts.answer})  # fmt: skip

    @property
    def usage(self) -> Usage:
        """What was asked of the server so far: queries (`pictures`), requests, what the cache had, seconds, bytes."""
        return self._client.meter.usage

    def fingerprint(self) -> str:
        """SHA-256 of the classes and of what the server says of its weights, 64 hex digits.

        Where it says nothing of them, of its address in their place. Other weights under the same words stay unnoticed.
        """
        return self.facts.fingerprint(self._client.url)

    def to(self, device: torch.device | str) -> "EndpointImageSource":
        """Itself: where the server runs is its own business."""
        return self

    def close(self) -> None:
        """Close connections and the cache; also done when nobody holds the source any more."""
        self._client.close()
        if self._cache is not None:
            self._cache.close()

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        """Check what a program needs, before anything is asked.

        Raises:
            CapabilityError: another site than "input", or something to be read that servers do not give.
        """
        for site in (*sites, *reading.sites):
            if site not in self.sites:
                raise CapabilityError(say("site", 'must be "input": the model runs on a server', site))
        _refuse(reading, self.spec.ref)

    def editing(self, input: Input) -> AbstractContextManager[None]:
        """There are no hidden edits."""
        return nullcontext()

    def prepare(self, inputs: object, sample: Sample | None) -> Samples:
        """Paths, pictures, arrays or tensors as image tensors of the sample's shape (default: the source's own)."""
        return as_samples(inputs, sample or Sample(shape=self.spec.input_shape))

    def __call__(self, x: Batch, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """`f(I(x))` for images [B, 3, height, width] in [0, 1] (floats) or 0..255 (uint8); without gradients.

        Raises:
            CapabilityError: it is given texts, pictures of a size that it does not take, or asked for more than scores.
            EndpointError: the server failed, after all tries, or answers nonsense; every answer before it is kept.
            BudgetError: the user's allowance is used up; likewise.
        """
        _refuse(reading, self.spec.ref)
        if not isinstance(x, Tensor):
            raise CapabilityError(say("source", "must be a language model to read texts", self.spec.ref))
        with torch.no_grad():
            edited = input(as_unit(x), "input")
            self._check(edited)
            found = self._scores(edited).to(x.device)
        return SourceOutput(scores=found, at={"input": edited} if "input" in reading.sites else {})

    def _check(self, x: Tensor) -> None:
        wanted = self.facts.shape
        odd = x.ndim != 4 or x.shape[1] != wanted[0] or (not self.facts.resizable and tuple(x.shape[1:]) != wanted)
        if odd:
            remedy = f"Set canvas={wanted[-1]}." if x.ndim == 4 else ""
            raise CapabilityError(say("pictures", f"must be {list(wanted)} for {self.spec.ref}", list(x.shape), remedy))
        if not bool(x.isfinite().all()):
            raise CapabilityError(say("pictures", "must be finite numbers", "infinity, or what is no number"))

    # -- asking ----------------------------------------------------------------------------------------------------

    def _scores(self, x: Float[Tensor, " batch channel height width"]) -> Float[Tensor, " batch source"]:
        """Of each picture, from the cache or the server; equal pictures are asked about once."""
        sent = as_sent(x, self.facts.pixels)
        names = keys(sent, self._prefix)
        found = self._kept(names)
        missing = [i for name, i in {name: i for i, name in enumerate(names)}.items() if name not in found]
        meter = self._client.meter
        meter.afford(len(missing))  # nothing is paid for a batch that cannot be finished
        meter.hits(len(names) - len(missing))
        size = self.facts.batch
        chunks = [missing[start : start + size] for start in range(0, len(missing), size)]

        def run(chunk: Sequence[int], stop: threading.Event) -> None:
            body, files = request(sent[list(chunk)], self.facts)
            reply = self._client.post(body, files, len(chunk), stop)
            rows = scores(reply, len(chunk), self.facts, self.options.floor)
            for i, row in zip(chunk, rows, strict=True):
                if self._cache is not None:
                    self._cache.put(names[i], packed(row))
                found[names[i]] = row

        try:
            side_by_side(chunks, run, self.options.concurrency)
        except SourceError as problem:
            raise self._counted(problem, len(missing), sum(1 for i in missing if names[i] in found)) from problem
        if not names:
            return x.new_zeros(0, self.facts.outputs)
        return torch.stack([found[name] for name in names])

    def _kept(self, names: Sequence[str]) -> dict[str, Tensor]:
        kept = self._cache.get(list(dict.fromkeys(names))) if self._cache is not None else {}
        rows = {name: unpacked(text, self.facts.outputs) for name, text in kept.items()}
        return {name: row for name, row in rows.items() if row is not None}

    def _counted(self, problem: SourceError, asked: int, done: int) -> SourceError:
        """The same error, with how far it got."""
        where = "kept in the cache" if self._cache is not None else "lost, because there is no cache"
        said = type(problem)(f"{problem} {done} of {asked} answers came and are {where}.")
        if isinstance(said, EndpointError) and isinstance(problem, EndpointError):
            said.status = problem.status
        return said


def _refuse(reading: Reading, ref: str) -> None:
    asked = {
        "features": reading.features,
        "scores of tokens or texts": reading.tokens or bool(reading.continuations or reading.choices or reading.texts),
        "texts": reading.writing is not None,
        "vectors of a picture's parts": reading.local,
    }
    wanted = [name for name, is_asked in asked.items() if is_asked]
    if wanted:
        remedy = "Use a source that runs here, or an output that reads class scores."
        raise CapabilityError(say("source", f"must give {', '.join(wanted)}", ref, remedy))
