"""Pictures as requests and replies as scores, for image classifiers behind HTTP. Every reply is distrusted."""

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import say
from reprogram.media import to_picture
from reprogram.sources.endpoint_images_options import ImageFacts, Pixels
from reprogram.sources.endpoint_limits import EndpointError

NAMES = ("answers", "scores", "logits", "probabilities", "predictions", "outputs", "results", "prediction", "output",
         "result", "top", "labels", "label")  # fmt: skip
"""Where answers are looked for in a reply."""

_LOOSE = 0.02  # probabilities that were rounded do not add up to 1 exactly


# -- requests ----------------------------------------------------------------------------------------------------------


def as_sent(x: Float[Tensor, " batch channel height width"], pixels: Pixels) -> Tensor:
    """The pictures as they are sent: float32 as they are, or clipped to [0, 1] and rounded to 8 bits.

    >>> as_sent(torch.tensor([[[[0.5, 1.2]]]]), "png").tolist()
    [[[[128, 255]]]]
    """
    if pixels == "float32":
        return x.detach().float().cpu().contiguous()
    return (x.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def keys(sent: Tensor, prefix: str) -> list[str]:
    """SHA-256 of each picture's shape and bytes, after a prefix."""
    start = f"{prefix} {sent.dtype} {tuple(sent.shape[1:])} ".encode()
    return [hashlib.sha256(start + _bytes(one)).hexdigest() for one in sent]


def request(sent: Tensor, facts: ImageFacts) -> tuple[dict[str, Any] | None, list[tuple[str, Any]] | None]:
    """A request's JSON, or the files of a form."""
    if facts.format == "multipart":
        files = [(facts.field, (f"{i}.png", png(one), "image/png")) for i, one in enumerate(sent)]
        return None, files
    if facts.pixels == "png":
        several: list[Any] = [base64.b64encode(png(one)).decode() for one in sent]
    else:
        several = [{"shape": list(one.shape), "float32": base64.b64encode(_bytes(one)).decode()} for one in sent]
    return {facts.field: several if facts.listed else several[0]}, None


def png(picture: Tensor) -> bytes:
    """The bytes of a PNG file of uint8 [3, height, width]."""
    buffer = io.BytesIO()
    to_picture(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _bytes(one: Tensor) -> bytes:
    array = one.contiguous().numpy()
    return array.astype("<f4").tobytes() if array.dtype == np.float32 else array.tobytes()


# -- replies -----------------------------------------------------------------------------------------------------------


def scores(reply: Mapping[str, Any], count: int, facts: ImageFacts, floor: float) -> Float[Tensor, " batch source"]:
    """Logits, or logarithms of probabilities, float32 [count, S].

    Of some classes with their probabilities, the others get an equal share of what is left, but no more than the least
    of those; one class alone has the probability 1. No probability is below `floor`.

    Raises:
        EndpointError: the reply is not of this kind, of another number of pictures or classes, not finite, about a
            class that is none of the source's, or of another model.
    """
    told = reply.get("model")
    if facts.model and told is not None and str(told)[:200] != facts.model:
        raise EndpointError(say("reply.model", f"must be {facts.model!r} as at the start", told, "It was replaced."))
    answers = _answers(reply, count, facts)
    if facts.gives in ("logits", "probabilities"):
        found = _numbers(answers, facts)
        return found if facts.gives == "logits" else _logarithms(found, floor)
    top = [_labelled(one, facts) if facts.gives == "label" else _listed(one, facts) for one in answers]
    return torch.stack([_spread(one, facts.outputs, floor) for one in top])


def _answers(reply: Mapping[str, Any], count: int, facts: ImageFacts) -> list[Any]:
    """An answer for each picture."""
    value: Any = reply
    if facts.answer is not None:
        for name in facts.answer.split("."):
            value = _step(value, name, facts.answer)
    else:
        name = next((name for name in NAMES if name in reply), None)
        if name is None:
            remedy = "Set answer=<where answers are>, such as outputs.0.scores."
            raise EndpointError(say("reply", f"must have one of {', '.join(NAMES)}", sorted(reply)[:10], remedy))
        value = reply[name]
    if count == 1 and _is_one(value, facts):
        value = [value]
    if not isinstance(value, list) or len(value) != count:
        got = f"{len(value)} answers" if isinstance(value, list) else type(value).__name__
        raise EndpointError(say("reply", f"must hold an answer for each of {count} pictures", got))
    return value


def _step(value: Any, name: str, path: str) -> Any:
    if isinstance(value, Mapping) and name in value:
        return value[name]
    if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
        return value[int(name)]
    raise EndpointError(say("reply", f"must have {path!r}", f"no {name!r} in {type(value).__name__}"))


def _is_one(value: Any, facts: ImageFacts) -> bool:
    """An answer, not a list of answers."""
    if facts.gives == "label":
        return not isinstance(value, list)
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) if facts.gives == "top" else isinstance(first, int | float)


def _numbers(answers: Sequence[Any], facts: ImageFacts) -> Tensor:
    rows = list[list[float]]()
    for one in answers:
        if not isinstance(one, list) or not all(type(value) in (int, float) for value in one):
            remedy = "Set gives= to what the server answers: logits, probabilities, top or label."
            raise EndpointError(say("answer", "must be a list of numbers", one, remedy))
        if len(one) != facts.outputs:
            raise EndpointError(say("answer", f"must have a score for each of {facts.outputs} classes",
                                    f"{len(one)} scores", "The model behind the address is another one."))  # fmt: skip
        rows.append(one)
    try:
        found = torch.tensor(rows, dtype=torch.float32)
    except (OverflowError, RuntimeError, ValueError):
        found = torch.full((1,), math.inf)
    if not bool(found.isfinite().all()):
        raise EndpointError(say("answer", "must be finite numbers", "infinity, or what is no number"))
    return found


def _logarithms(found: Tensor, floor: float) -> Tensor:
    total, least = found.sum(1), float(found.min())
    off = float((total - 1).abs().max())
    if least < -1e-6 or off > _LOOSE:
        got = f"sums from {float(total.min()):.4g} to {float(total.max()):.4g}, the least {least:.4g}"
        raise EndpointError(say("answer", "must be probabilities", got, "Set gives=logits if that is what they are."))
    return found.clamp(floor, 1).log()


def _listed(one: Any, facts: ImageFacts) -> dict[int, float]:
    """Some classes' probabilities."""
    if not isinstance(one, list) or not one or not all(isinstance(entry, Mapping) for entry in one):
        remedy = "Set gives= to what the server answers: logits, probabilities, top or label."
        raise EndpointError(say("answer", 'must be a list of {"label": ..., "score": ...}', one, remedy))
    found = dict[int, float]()
    for entry in one:
        place, score = _class(entry, facts), entry.get("score")
        if type(score) not in (int, float) or not -1e-6 <= score <= 1 + _LOOSE:
            raise EndpointError(say("score", "must be a probability", score))
        if place in found:
            raise EndpointError(say("answer", "must name a class once", facts.labels[place] if facts.labels else place))
        found[place] = min(1.0, max(0.0, float(score)))
    if sum(found.values()) > 1 + _LOOSE:
        raise EndpointError(say("scores", "must be probabilities, which add up to 1", sum(found.values())))
    return found


def _labelled(one: Any, facts: ImageFacts) -> dict[int, float]:
    return {_class(one if isinstance(one, Mapping) else {"label": one}, facts): 1.0}


def _class(entry: Mapping[str, Any], facts: ImageFacts) -> int:
    """The number of the class that is meant: by "index" or by its name."""
    index, label = entry.get("index"), entry.get("label")
    index = label if index is None and type(label) is int else index
    if index is not None:
        if type(index) is not int or not 0 <= index < facts.outputs:
            raise EndpointError(say("index", f"must be a class from 0 to {facts.outputs - 1}", index))
        return index
    places = [i for i, name in enumerate(facts.labels or ()) if name == label]
    if len(places) != 1:
        remedy = "Several classes have this name: the server must give their index." if places else ""
        if not facts.labels:
            remedy = "Set labels=<names or a file of them>."
        raise EndpointError(say("label", f"must be one of the {facts.outputs} classes", label, remedy))
    return places[0]


def _spread(found: Mapping[int, float], outputs: int, floor: float) -> Tensor:
    """Logarithms of all classes' probabilities from those of some.

    >>> [round(value, 6) for value in _spread({1: 0.5, 0: 0.3}, 4, 1e-8).exp().tolist()]
    [0.3, 0.5, 0.1, 0.1]
    """
    left = max(0.0, 1 - sum(found.values())) / max(1, outputs - len(found))
    made = torch.full((outputs,), min(left, *found.values()), dtype=torch.float64)
    for place, score in found.items():
        made[place] = score
    return made.clamp(floor, 1).log().float()


# -- answers that are kept ---------------------------------------------------------------------------------------------


def packed(row: Float[Tensor, " source"]) -> str:
    """Scores as text, exact."""
    return base64.b64encode(_bytes(row)).decode()


def unpacked(text: object, outputs: int) -> Tensor | None:
    """What `packed` was given; None if it is damaged.

    >>> unpacked(packed(torch.tensor([0.1, -2.0])), 2).tolist(), unpacked("!", 2)
    ([0.10000000149011612, -2.0], None)
    """
    try:
        data = base64.b64decode(str(text), validate=True)
    except ValueError:
        return None
    if len(data) != 4 * outputs:
        return None
    row = torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32))
    return row if bool(row.isfinite().all()) else None
