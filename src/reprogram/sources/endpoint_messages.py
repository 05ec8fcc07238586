"""From prompts to what a server is sent: texts, turns of a chat, pictures as data URLs. And from replies to texts."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from reprogram.core.errors import CapabilityError, DataError, say
from reprogram.core.texts import MASK, SEP, SLOT, SLOTS
from reprogram.core.writing import ASSISTANT, PICTURE, SYSTEM, USER, Finish, Writing, Written, before_stop, turns
from reprogram.media import to_data_uri
from reprogram.sources.endpoint_client import Route
from reprogram.sources.endpoint_limits import tokens_of

_TURN = re.compile(f"[{SYSTEM}{USER}{ASSISTANT}]")
_SLOT = re.compile(f"[{chr(SLOT)}-{chr(SLOT + SLOTS - 1)}]")
_HALF = re.compile("[\ud800-\udfff]")
MOST_STOPS = 4
"""Stop texts that every server takes; any more are looked for here."""


@final
@dataclass(frozen=True, slots=True)
class Prompt:
    """What a server is to read, ready to be sent.

    Attributes:
        route: where to send it.
        text: of a plain prompt on the completions route.
        messages: on the chat route.
    """

    route: Route
    text: str = ""
    messages: tuple[dict[str, Any], ...] = ()

    def body(self, more: str = "") -> dict[str, Any]:
        """The field that holds it, with a text after it."""
        if self.route == "chat":
            return {"messages": list(self.messages)}
        return {"prompt": self.text + more}


def cleaned(prompt: str) -> str:
    r"""The prompt with a template's marks resolved as for a causal model: a line break for {sep}, nothing for {mask}.

    Control characters and the like are data and stay.

    Raises:
        DataError: it is empty, holds half a character, or has {mask} elsewhere than at its end.
        CapabilityError: it has places for soft tokens.

    >>> cleaned("a" + SEP + "b:" + MASK)
    'a\nb:'
    """
    if _SLOT.search(prompt):
        raise CapabilityError(say("source", "must run here to have places for {soft} tokens", "a model on a server"))
    half = _HALF.search(prompt)
    if half:
        got = f"{half.group()!r} at character {half.start()}"
        raise DataError(say("prompt", "must be text that UTF-8 can hold, without lone surrogates", got))
    text = prompt.removesuffix(MASK).replace(SEP, "\n")
    if MASK in text:
        raise DataError(say("template", "must have {mask} at its end only, for a model that goes on writing", prompt))
    if not _TURN.sub("", text):
        raise DataError(say("prompt", "must have at least one character", prompt))
    return text


def is_chat(prompt: str) -> bool:
    """It has turns or pictures, and so must go to the chat route."""
    return PICTURE in prompt or _TURN.search(prompt) is not None


def messages(prompt: str, pictures: Sequence[Tensor] = ()) -> list[dict[str, Any]]:
    """The turns of a prompt as the messages of a request; a plain prompt is one turn of the user's.

    What an assistant's turn at the end already has is sent as such a message; a server may go on with it or not.

    Raises:
        DataError: there are not as many pictures as places for them.

    >>> messages(SYSTEM + "Be brief." + USER + "Hi" + ASSISTANT)
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi'}]
    """
    if prompt.count(PICTURE) != len(pictures):
        raise DataError(say("prompt", f"must have places for {len(pictures)} pictures", prompt.count(PICTURE)))
    found = turns(prompt)
    if len(found) > 1 and found[-1] == ("assistant", ""):
        found = found[:-1]
    left = list(pictures)
    return [{"role": role or "user", "content": _content(text, left)} for role, text in found]


def _content(text: str, left: list[Tensor]) -> str | list[dict[str, Any]]:
    """A turn's text, or its parts where there are pictures, which are taken off `left`."""
    if PICTURE not in text:
        return text
    parts: list[dict[str, Any]] = []
    for number, piece in enumerate(text.split(PICTURE)):
        if number:
            parts.append({"type": "image_url", "image_url": {"url": to_data_uri(left.pop(0))}})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def decoding(writing: Writing, sample: int, route: Route, limit: str, *, logprobs: bool) -> dict[str, Any]:
    """The fields that say how to write.

    Args:
        writing: what is wanted.
        sample: its number; it moves the seed.
        route: where it goes.
        limit: the field for the number of tokens.
        logprobs: ask for those of the text.

    >>> decoding(Writing(tokens=8, stop=(".",)), 0, "completions", "max_tokens", logprobs=False)
    {'max_tokens': 8, 'temperature': 0.0, 'stop': ['.']}
    """
    fields: dict[str, Any] = {limit: writing.tokens, "temperature": float(writing.temperature)}
    if writing.stop:
        fields["stop"] = list(writing.stop[:MOST_STOPS])
    if writing.temperature > 0:
        fields["seed"] = writing.seed + sample
        if writing.top_p < 1:
            fields["top_p"] = float(writing.top_p)
        if writing.top_k:
            fields["top_k"] = writing.top_k
    if logprobs:
        fields["logprobs"] = True if route == "chat" else 1
    return fields


def text_of(reply: Mapping[str, Any], route: Route) -> str:
    """What was written, in full."""
    choice = reply["choices"][0]
    holder, name = (choice.get("message"), "content") if route == "chat" else (choice, "text")
    said = holder.get(name) if isinstance(holder, Mapping) else None
    return _HALF.sub("\ufffd", said) if isinstance(said, str) else ""


def written(reply: Mapping[str, Any], route: Route, writing: Writing, *, logprobs: bool) -> Written:
    """One text, cut before the first stop text whether or not the server did that.

    Args:
        reply: of the server.
        route: where it came from.
        writing: what was wanted.
        logprobs: those in the reply can be believed.
    """
    text = text_of(reply, route)
    kept, cut = before_stop(text, writing.stop)
    tokens = token_logprobs(reply["choices"][0])
    _, _, count = tokens_of(reply)
    finish, reason = _finish(reply["choices"][0], cut=cut)
    return Written(
        text=kept,
        tokens=count or len(tokens) or len(text.encode()),
        logprob=_total(tokens, kept if cut else None) if logprobs and tokens else None,
        finish=finish,
        reason=reason,
    )


def _finish(choice: Mapping[str, Any], *, cut: bool) -> tuple[Finish, str]:
    said = choice.get("finish_reason")
    if cut or said in (None, "stop", "eos", "eos_token", "end_turn"):
        return "stop", ""
    return ("length", "") if said in ("length", "max_tokens") else ("error", f"the server ended it: {said}")


def _total(tokens: Sequence[tuple[bytes, float | None]], kept: str | None) -> float | None:
    """The sum over the tokens that begin before the cut; None if one has no number."""
    total, start = 0.0, 0
    for token, value in tokens:
        if kept is not None and start >= len(kept.encode()):
            break
        if value is None or not math.isfinite(value):
            return None
        total, start = total + value, start + len(token)
    return total


def token_logprobs(choice: Mapping[str, Any]) -> list[tuple[bytes, float | None]]:
    """Tokens and their log-probabilities, as far as a reply has them, in the form of either route."""
    found = choice.get("logprobs")
    if not isinstance(found, Mapping):
        return []
    entries = found.get("content")  # of the chat route, with some servers of both
    if isinstance(entries, list):
        return [_pair(e) for e in entries]
    tokens, values = found.get("tokens"), found.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        return []
    return [(spelled(str(t)), _number(v)) for t, v in zip(tokens, values, strict=True)]


def first_step(choice: Mapping[str, Any]) -> dict[bytes, float]:
    """The likeliest tokens at the first place that was written, with their log-probabilities."""
    found = choice.get("logprobs")
    places = (found.get("content") or found.get("top_logprobs")) if isinstance(found, Mapping) else None
    if not isinstance(places, list) or not places or not isinstance(places[0], Mapping):
        return {}
    first = places[0]
    if "top_logprobs" in first and isinstance(first["top_logprobs"], list):
        pairs = [_pair(e) for e in first["top_logprobs"]]
    else:
        pairs = [(spelled(str(t)), _number(v)) for t, v in first.items()]
    best: dict[bytes, float] = {}
    for token, value in pairs:  # tokens that are not whole characters may look alike
        if value is not None and not math.isnan(value):
            best[token] = max(value, best.get(token, value))
    return best


def spelled(token: str) -> bytes:
    r"""The bytes of a token as servers write them: plainly, as "bytes:\xe2\x80", or with a mark for the space.

    >>> spelled(" a"), spelled("\u2581a"), spelled("\u0120a"), spelled("bytes:\\xe2\\x80")
    (b' a', b' a', b' a', b'\xe2\x80')
    """
    if re.fullmatch(r"bytes:(\\x[0-9a-f]{2})+", token):
        return bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
    return re.sub("^[\u2581\u0120]", " ", token).encode("utf-8", "surrogatepass")


def _pair(entry: object) -> tuple[bytes, float | None]:
    """A token and its log-probability, of an entry in the chat's form."""
    if not isinstance(entry, Mapping):
        return b"", None
    raw, value = entry.get("bytes"), _number(entry.get("logprob"))
    if isinstance(raw, list) and all(isinstance(b, int) and 0 <= b < 256 for b in raw):
        return bytes(raw), value
    return spelled(str(entry.get("token", ""))), value


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
