"""`load_source`: from a reference such as "bundled/efficientnet-lite0" or "timm/resnet18" to a frozen source."""

from difflib import get_close_matches
from typing import Any

from reprogram.core.errors import SourceError, say
from reprogram.core.source import Source
from reprogram.sources.bundled import BUNDLED
from reprogram.sources.timm import load_timm


def load_source(ref: str, **options: Any) -> Source:
    """Load a frozen source model.

    Args:
        ref: "bundled/efficientnet-lite0", "timm/<name>", or "timm/<name>?pretrained=false" for random weights.
        options: passed on to the loader, e.g. `pretrained=False` for timm.

    Raises:
        SourceError: the reference is unknown or the model cannot be loaded.
        MissingExtraError: an optional package is missing; the message names the extra.
    """
    kind, _, name = ref.partition("/")
    name, _, query = name.partition("?")
    if query == "pretrained=false":
        options = {"pretrained": False, **options}
    elif query:
        raise SourceError(say("source", 'may only be followed by "?pretrained=false"', ref))
    if kind == "timm" and name:
        return load_timm(name, **options)
    if kind == "bundled" and name in BUNDLED and not options:
        return BUNDLED[name][1]()
    if kind == "bundled" and name in BUNDLED:
        raise SourceError(say("options", f"are not taken by {ref}", sorted(options)))
    known = [f"bundled/{n}" for n in BUNDLED]
    near = get_close_matches(ref, known, 1, 0.4)
    remedy = f"Did you mean {near[0]}?" if near else f"Known: {', '.join([*known, 'timm/<name>'])}."
    raise SourceError(say("source", "must be a known reference", ref, remedy))


def source_refs() -> dict[str, str]:
    """References that can be loaded here, with a line on each."""
    return {f"bundled/{name}": about for name, (about, _) in BUNDLED.items()} | {
        "timm/<name>": "any image classifier of timm (extra: vision); weights come from its hub",
        "timm/<name>?pretrained=false": "the same with random weights, no download",
    }
