"""Texts that stand for classes: class names in sentences, and sentences as vectors of a text encoder."""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, DataError, say
from reprogram.core.program import Input
from reprogram.core.source import ImageTextSource, Reading, Source, TextSource, text_source
from reprogram.core.texts import Texts

_BATCH = 32
_LIKE_YOU = re.compile(r"eu|ewe|one(?![a-z])|once|ub[io]|uk|uni(?![dmn])|ur[aei]|us[aeu]|ut[eio]|uvu")
_SILENT = re.compile(r"hour|heir|honest|hono")
_SPELLED_AN = set("AEFHILMNORSX")


def article(name: str) -> str:
    """The indefinite article that goes before a name, by its first sound as far as spelling tells it.

    >>> [article(name) for name in ("apple", "Eastern owl", "hour", "unicorn", "uninvited guest", "one-way street")]
    ['an', 'an', 'an', 'a', 'an', 'a']
    >>> [article(name) for name in ("FBI agent", "UFO", "NASA launch", "8 ball", "18-wheeler", "10 euro note")]
    ['an', 'a', 'a', 'an', 'an', 'a']
    """
    first = re.split(r"[^\w]", name.strip(), maxsplit=1)[0]
    if first[:1].isdecimal():
        number = re.match(r"\d+", first)
        spoken = number.group() if number else first
        return "an" if spoken[0] == "8" or spoken in ("11", "18") else "a"
    if len(first) == 1 or (first.isupper() and (len(first) < 4 or not set(first) & set("AEIOU"))):
        return "an" if first[0].upper() in _SPELLED_AN else "a"  # said letter by letter
    lower = first.lower()
    if _LIKE_YOU.match(lower):
        return "a"
    return "an" if lower[:1] in tuple("aeiou") or _SILENT.match(lower) else "a"


def named(layout: str, name: str) -> str:
    """A layout with a class name in it.

    Args:
        layout: text with `{class}`, or `{a class}` for the name with its article.
        name: of the class; underscores and runs of spaces are read as single spaces.

    Raises:
        ConfigError: the layout has neither of the two.

    >>> named("A picture of {a class}.", "electric_ray"), named("{class}!", "yes")
    ('A picture of an electric ray.', 'yes!')
    """
    if "{class}" not in layout and "{a class}" not in layout:
        raise ConfigError(say("layout", "must have {class} or {a class} for the class's name", layout))
    plain = " ".join(name.replace("_", " ").split())
    return layout.replace("{a class}", f"{article(plain)} {plain}").replace("{class}", plain)


def text_encoder(source: Source) -> TextSource | ImageTextSource:
    """The source, if it makes one vector of a text: a text encoder, or an image-text source.

    Raises:
        CapabilityError: it does not, or does not say how long its vectors are.
    """
    if isinstance(source, ImageTextSource):
        return source
    model = text_source(source)
    if model.kind != "encoder" or model.spec.width is None:
        got = f"{model.spec.ref} ({model.kind})"
        raise CapabilityError(say("source", "must be a text encoder", got, "Use bundled/minilm-l6 or its like."))
    return model


@torch.no_grad()
def text_vectors(
    source: TextSource | ImageTextSource, texts: Sequence[str], input: Input | None = None
) -> Float[Tensor, " n dim"]:
    """A vector of length one for each text, [n, d], float32, on the source's device.

    Args:
        source: a text encoder.
        texts: one column "text" of what `input` takes.
        input: a template for it; None for the texts as they are. An image-text source takes them as they are.

    Raises:
        DataError: there are no texts, or a vector is not finite.
    """
    if not texts:
        raise DataError(say("texts", "must be one or more", list(texts)))
    if isinstance(source, ImageTextSource):
        return _finite(source.vectors(texts), source.spec.ref)
    source.attach([], Reading(features=True))
    alike = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))  # little padding
    parts = list[Tensor]()
    for start in range(0, len(alike), _BATCH):
        batch = Texts({"text": tuple(texts[i] for i in alike[start : start + _BATCH])})
        features = source(batch, input or Input(), Reading(features=True)).features
        if features is None:
            raise CapabilityError(say("source", "must give the vector of a text", source.spec.ref))
        parts.append(F.normalize(features.float(), dim=-1))
    found = _finite(torch.cat(parts), source.spec.ref)
    return found[torch.tensor(alike, device=found.device).argsort()]


def _finite(vectors: Tensor, ref: str) -> Tensor:
    if not bool(vectors.isfinite().all()):
        raise DataError(say("vectors", "must be finite numbers", ref))
    return vectors


def cosine_scale(source: Source, scale: float | None) -> float:
    """The factor of cosines: the one given, an image-text source's own, or 20, as sentence encoders are trained with.

    Raises:
        ConfigError: it is not a finite number above 0.
    """
    if scale is not None and not 0 < scale < float("inf"):
        raise ConfigError(say("scale", "must be a finite number above 0", scale))
    own = source.scale if isinstance(source, ImageTextSource) else 20.0
    return own if scale is None else scale
