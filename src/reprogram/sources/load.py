"""`load_source`: from a reference such as "bundled/efficientnet-lite0" or "timm/resnet18" to a frozen source."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from reprogram.core.errors import SourceError, say
from reprogram.core.source import Source
from reprogram.sources.bundled import BUNDLED
from reprogram.sources.cifar_resnet import load_cifar_resnet
from reprogram.sources.timm import load_timm


def load_source(ref: str, **options: Any) -> Source:
    """Load a frozen source model.

    Args:
        ref: "bundled/efficientnet-lite0", "timm/<name>", "timm/<name>?pretrained=false" for random weights, or
            "cifar-resnet/<path of a .safetensors file>".
        options: passed on to the loader, e.g. `pretrained=False` for timm.

    Raises:
        SourceError: the reference is unknown or the model cannot be loaded.
        MissingExtraError: an optional package is missing; the message names the extra.
    """
    kind, _, name = ref.partition("/")
    if kind == "cifar-resnet" and name:
        return _without(options, load_cifar_resnet, name, ref)
    name, _, query = name.partition("?")
    if query == "pretrained=false":
        options = {"pretrained": False, **options}
    elif query:
        raise SourceError(say("source", 'may only be followed by "?pretrained=false"', ref))
    if kind == "timm" and name:
        return load_timm(name, **options)
    if kind == "bundled" and name in BUNDLED:
        return _without(options, lambda _: BUNDLED[name][1](), name, ref)
    known = [f"bundled/{n}" for n in BUNDLED]
    near = get_close_matches(ref, known, 1, 0.4)
    known += ["timm/<name>", "cifar-resnet/<path>"]
    remedy = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
    raise SourceError(say("source", "must be a known reference", ref, remedy))


def _without(options: dict[str, Any], load: Callable[[str], Source], name: str, ref: str) -> Source:
    if options:
        raise SourceError(say("options", f"are not taken by {ref}", sorted(options)))
    return load(name)


def source_refs() -> dict[str, str]:
    """References that can be loaded here, with a line on each."""
    return {f"bundled/{name}": about for name, (about, _) in BUNDLED.items()} | {
        "timm/<name>": "any image classifier of timm (extra: vision); weights come from its hub",
        "timm/<name>?pretrained=false": "the same with random weights, no download",
        "cifar-resnet/<path>": "a CIFAR-10 ResNet of He et al. 2016 (20, 32, ... layers), from a .safetensors file",
    }
