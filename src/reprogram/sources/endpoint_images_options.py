"""How to use an image classifier behind HTTP: what users may set, and what a server says of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, final, get_args

from reprogram.core.errors import ConfigError, SourceError, say
from reprogram.sources.endpoint_cache import LIMIT, digest
from reprogram.sources.endpoint_limits import EndpointError, Prices

Gives = Literal["logits", "probabilities", "top", "label"]
Format = Literal["json", "multipart"]
Pixels = Literal["float32", "png"]

TASK = "image-classification"
"""What a server's description says under "task"."""

MAX_CLASSES, MAX_SIDE, MAX_BATCH = 1_000_000, 8192, 1024
"""What a server may say of itself at most."""

IMAGE_WORDS = ("gives", "format", "pixels", "classes", "size", "field", "answer", "batch")
"""Options in a reference that only an image classifier has."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointImageOptions:
    """How to use a server. What is None is as the server says, or as stands in brackets. Defaults are ours.

    Attributes:
        labels: names of its classes, in order, or the path of a text file with one a line.
        classes: their number, where they have no names.
        size: pixels of the square pictures it takes.
        gives: "logits"; "probabilities" [this]; "top", some classes with their probabilities; "label", one class.
        format: "json" [this] or "multipart", a form with PNG files.
        pixels: in JSON, "float32" arrays, exact, or "png" [this], rounded to 8 bits; see `endpoint_images`.
        field: of the request that the picture is in ["image"], or the list of them ["pictures" in a server of ours].
        answer: where answers are in a reply, such as "outputs.0.scores"; None for the usual names.
        batch: pictures in a request [1]; above 1 the field holds a list.
        concurrency: requests under way at most.
        rate: requests a minute; None for any.
        timeout: seconds for one request.
        retries: after a lost connection, a timeout, or HTTP 408, 409, 429 or 5xx.
        max_queries: pictures to send at most, those that had to be sent again included; None for any number.
        max_requests: to send at most; None for any number.
        prices: `Prices.picture` is what a million pictures cost.
        floor: the least probability: what is 0, or not told, counts as this (1e-8: a logarithm of -18.4).
        cache: a file for the answers, True for the one in the user's cache folder, False for none.
        cache_bytes: of text in that file at most.
        key_env: name of the environment variable with the key for this very host, see `EndpointOptions`.

    Raises:
        ConfigError: a value is out of range.
    """

    labels: Sequence[str] | str | Path | None = None
    classes: int | None = None
    size: int | None = None
    gives: Gives | None = None
    format: Format | None = None
    pixels: Pixels | None = None
    field: str | None = None
    answer: str | None = None
    batch: int | None = None
    concurrency: int = 8
    rate: float | None = None
    timeout: float = 60.0
    retries: int = 6
    max_queries: int | None = None
    max_requests: int | None = None
    prices: Prices = Prices()  # noqa: RUF009 - frozen
    floor: float = 1e-8
    cache: bool | str | Path = True
    cache_bytes: int = LIMIT
    key_env: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("classes", 2), ("size", 1), ("batch", 1), ("concurrency", 1), ("retries", 0),
                            ("cache_bytes", 1)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ConfigError(say(name, f"must be a whole number, {least} or more", value))
        if not 0 < self.timeout < float("inf") or not 0 < self.floor < 0.5:
            raise ConfigError(say("timeout, floor", "must be above 0, and below 0.5", (self.timeout, self.floor)))


def image_options(options: Mapping[str, Any]) -> EndpointImageOptions:
    """Options by name; numbers may be given as text.

    Raises:
        SourceError: one is unknown.
        ConfigError: a value is out of range.
    """
    known = {field.name for field in fields(EndpointImageOptions)}
    strange = sorted(options.keys() - known)
    if strange:
        need = f"must be among {', '.join(sorted(known))} for an image classifier behind HTTP"
        raise SourceError(say("options", need, strange))
    return EndpointImageOptions(**{name: _typed(name, value) for name, value in options.items()})


_NUMBERS = {"classes": int, "size": int, "batch": int, "concurrency": int, "rate": float, "timeout": float}
_KINDS = {"gives": Gives, "format": Format, "pixels": Pixels}


def _typed(name: str, value: Any) -> Any:
    if name in _KINDS and value not in (None, *get_args(_KINDS[name])):
        raise ConfigError(say(name, f"must be one of {', '.join(get_args(_KINDS[name]))}", value))
    if name not in _NUMBERS or not isinstance(value, str):
        return value
    try:
        return _NUMBERS[name](value)
    except ValueError as problem:
        raise ConfigError(say(name, "must be a number", value)) from problem


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of an image classifier behind a server.

    Attributes:
        outputs: S, its number of classes.
        labels: their names.
        shape: (3, height, width) of the pictures it takes.
        resizable: it takes other heights and widths.
        gives: what it answers with.
        format: how it is asked.
        pixels: how pixels are sent.
        field: of the request that pictures are in.
        listed: the field holds a list even of one picture.
        answer: where answers are in a reply.
        batch: pictures in a request at most.
        model: what the server says of its weights; replies that say something else are refused.
    """

    outputs: int
    labels: tuple[str, ...] | None
    shape: tuple[int, int, int]
    resizable: bool
    gives: Gives
    format: Format
    pixels: Pixels
    field: str
    listed: bool
    answer: str | None
    batch: int
    model: str

    def fingerprint(self, url: str) -> str:
        """SHA-256 of what tells the model; of the address only where the server says nothing of its weights."""
        parts = {"labels": self.labels, "outputs": self.outputs, "shape": self.shape, "gives": self.gives}
        return digest(parts | {"model": self.model or url, "picture endpoint": 1})


def is_described(about: Mapping[str, Any] | None) -> bool:
    """A server's answer to GET is the description of an image classifier.

    >>> is_described({"task": "image-classification"}), is_described({"detail": "Not Found"}), is_described(None)
    (True, False, False)
    """
    return about is not None and about.get("task") == TASK


def image_facts(about: Mapping[str, Any] | None, options: EndpointImageOptions, url: str) -> ImageFacts:
    """What the server says, and over it what the user says.

    Raises:
        EndpointError: the server's description makes no sense.
        ConfigError: neither says how many classes there are or how large a picture is, or the two disagree.
        SourceError: a file of labels cannot be read.
    """
    said: Mapping[str, Any] = about if about is not None and is_described(about) else {}
    labels = _user_labels(options.labels) or _said_labels(said, url)
    outputs = _count(said, options, labels, url)
    shape = _shape(said, options, url)
    formats = _words(said, "formats", Format) or _words(said, "format", Format) or ["json"]
    form: Format = options.format or formats[0]
    pixels: Pixels = "png" if form == "multipart" else options.pixels or (_words(said, "pixels", Pixels) or ["png"])[0]
    if form == "multipart" and options.pixels == "float32":
        raise ConfigError(say("pixels", 'must be "png" in a form', options.pixels))
    batch = options.batch or _number(said, "batch", MAX_BATCH) or 1
    return ImageFacts(
        outputs=outputs, labels=labels, shape=shape,
        resizable=said.get("resizable") is True and options.size is None,
        gives=options.gives or (_words(said, "gives", Gives) or ["probabilities"])[0], format=form, pixels=pixels,
        field=options.field or ("pictures" if said else "image"), listed=bool(said) or batch > 1,
        answer=options.answer, batch=batch, model=str(said.get("model") or "")[:200],
    )  # fmt: skip


def _user_labels(given: Sequence[str] | str | Path | None) -> tuple[str, ...] | None:
    if given is None or not isinstance(given, (str, Path)):
        return None if given is None else tuple(given)
    try:
        lines = Path(given).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as problem:
        raise SourceError(say("labels", "must be names, or a text file of them", str(given), str(problem))) from None
    return tuple(line.strip() for line in lines if line.strip())


def _said_labels(said: Mapping[str, Any], url: str) -> tuple[str, ...] | None:
    found = said.get("labels")
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found) or len(found) > MAX_CLASSES:
        raise EndpointError(say(url, "must name its classes in a list of texts", found))
    return tuple(found)


def _count(
    said: Mapping[str, Any], options: EndpointImageOptions, labels: tuple[str, ...] | None, url: str
) -> int:  # fmt: skip
    """S, on which all agree that say anything."""
    told = {"labels": len(labels) if labels is not None else None, "classes": options.classes,
            "the server": _number(said, "outputs", MAX_CLASSES)}  # fmt: skip
    counts = {name: count for name, count in told.items() if count is not None}
    if not counts:
        remedy = "Set labels=<names or a file of them>, or classes=<number>: the server does not describe itself."
        raise ConfigError(say("classes", f"must be known for {url}", None, remedy))
    if len(set(counts.values())) > 1 or min(counts.values()) < 2:
        raise ConfigError(say("classes", "must be one number, 2 or more, whoever says it", counts))
    return next(iter(counts.values()))


def _shape(said: Mapping[str, Any], options: EndpointImageOptions, url: str) -> tuple[int, int, int]:
    if options.size is not None:
        return (3, options.size, options.size)
    found = said.get("input_shape")
    if found is None:
        remedy = "Set size=<pixels>: the server does not say it."
        raise ConfigError(say("size", f"must be known for {url}", None, remedy))
    fits = isinstance(found, list) and len(found) == 3 and all(type(n) is int and 0 < n <= MAX_SIDE for n in found)
    if not fits or found[0] != 3:
        raise EndpointError(say(url, "must take pictures [3, height, width]", found))
    return (3, found[1], found[2])


def _number(said: Mapping[str, Any], name: str, most: int) -> int | None:
    found = said.get(name)
    if found is None:
        return None
    if type(found) is not int or not 0 < found <= most:
        raise EndpointError(say(f"description.{name}", f"must be a number from 1 to {most}", found))
    return found


def _words(said: Mapping[str, Any], name: str, words: Any) -> list[Any]:
    """What a server says that we know, of one word or a list."""
    found = said.get(name)
    several = found if isinstance(found, list) else [found]
    known = [one for one in several if one in get_args(words)]
    if found is not None and not known:
        raise EndpointError(say(f"description.{name}", f"must be one of {', '.join(get_args(words))}", found))
    return known
