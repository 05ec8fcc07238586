"""Sources that write by rule, for exact tests of prompts, scores and votes: no weights, the same answers everywhere."""

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, say
from reprogram.core.program import Input
from reprogram.core.source import Capability, Reading, SourceOutput, SourceSpec
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Batch, Texts
from reprogram.core.writing import Writing, Written, before_stop, readable
from reprogram.sources._rows import as_texts

Reply = str | Callable[[re.Match[str], int], str]
"""A text, or what makes one of the match and the number of the sample."""


@runtime_checkable
class Speaker(Protocol):
    """What a fake says."""

    def write(self, prompt: str, writing: Writing, sample: int) -> Written:
        """Go on after a prompt."""
        ...

    def score(self, prompt: str, choice: str) -> float | None:
        """Log-probability of a text after a prompt; None if it has none."""
        ...

    def digest(self) -> str:
        """Differs where answers may differ."""
        ...


@final
class PromptFake:
    """A `PromptSource` around a `Speaker`. Tokens are bytes.

    Attributes:
        calls: every prompt that was written after or scored, in order.
    """

    def __init__(self, speaker: Speaker, name: str, *, pictures: bool = False, context: int | None = None) -> None:
        self.speaker = speaker
        self.kind = "causal"
        self.calls: list[str] = []
        self._context = context
        self.spec = SourceSpec(ref=f"module:{name}", modality="text", input_shape=(context or 0,), outputs=256)
        self.sites: Mapping[str, Location] = MappingProxyType({"input": Location.INPUT})
        can = {Capability.GENERATION} | ({Capability.PICTURES} if pictures else set())
        scores = speaker.score("", "a") is not None
        self.capabilities = frozenset(can | ({Capability.LOG_PROBABILITIES} if scores else set()))
        self.device = torch.device("cpu")

    @property
    def context(self) -> int | None:
        """Bytes it reads and writes at most."""
        return self._context

    def count(self, text: str) -> int:
        """Bytes of a text."""
        return len(text.encode("utf-8", "surrogatepass"))

    def rendered(self, prompt: str) -> str:
        """With its marks in words."""
        return readable(prompt)

    def fingerprint(self) -> str:
        """Hash of what it says."""
        return hashlib.sha256(self.speaker.digest().encode()).hexdigest()

    def to(self, device: torch.device | str) -> "PromptFake":
        """Itself: it is nowhere."""
        return self

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        """Only the site "input" is there.

        Raises:
            CapabilityError: another site, or something to be read that it does not give.
        """
        for site in sites:
            if site != "input":
                raise CapabilityError(say("site", 'must be "input"', site))
        if reading.choices and Capability.LOG_PROBABILITIES not in self.capabilities:
            raise CapabilityError(say("source", "must give log-probabilities", self.spec.ref))

    def editing(self, input: Input) -> AbstractContextManager[None]:
        """There are no hidden edits."""
        return nullcontext()

    def prepare(self, inputs: object, sample: Sample | None) -> Sequence[Tensor] | Texts:
        """Texts as a batch; pictures [N, channel, height, width] as they are."""
        if isinstance(inputs, Tensor):
            return list(inputs)
        return as_texts(inputs, sample.columns if sample is not None and sample.columns else ("text",))

    def __call__(self, x: Batch, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """Texts, or scores of choices."""
        made = input(x, "input")
        if not isinstance(made, Texts):
            raise CapabilityError(say("source", "must be given prompts", type(made).__name__))
        self.calls += made.prompts
        if reading.writing is not None:
            return SourceOutput(written=tuple(self._written(p, reading.writing) for p in made.prompts))
        if not reading.choices or Capability.LOG_PROBABILITIES not in self.capabilities:
            raise CapabilityError(say("source", "must be asked for texts or scores it has", reading))
        scores = torch.tensor([[self.speaker.score(p, c) for c in reading.choices] for p in made.prompts])
        tokens = torch.tensor([self.count(c) for c in reading.choices]).expand(len(made), -1)
        return SourceOutput(choices=scores, choice_tokens=tokens)

    def _written(self, prompt: str, writing: Writing) -> tuple[Written, ...]:
        return tuple(self.speaker.write(prompt, writing, i) for i in range(writing.samples))


@final
class _Script:
    """Answers by rules."""

    def __init__(self, rules: Sequence[tuple[str, Reply]]) -> None:
        self.rules = [(re.compile(pattern, re.DOTALL), reply) for pattern, reply in rules]

    def write(self, prompt: str, writing: Writing, sample: int) -> Written:
        for pattern, reply in self.rules:
            found = pattern.search(prompt)
            if found:
                return cut(reply if isinstance(reply, str) else reply(found, sample), writing)
        msg = f"no rule for the prompt {prompt!r}"
        raise AssertionError(msg)

    def score(self, prompt: str, choice: str) -> float | None:
        return None

    def digest(self) -> str:
        return json.dumps([(p.pattern, reply if isinstance(reply, str) else repr(reply)) for p, reply in self.rules])


def scripted_source(rules: Sequence[tuple[str, Reply]], *, pictures: bool = False) -> PromptFake:
    r"""A source that answers by the first rule whose pattern is found in the prompt.

    Args:
        rules: (regular expression, reply); "." matches line ends too.
        pictures: it says that it takes pictures, too.

    A prompt without a rule is an AssertionError.

    >>> source = scripted_source([(r"2 \+ 2", "four."), (r"(\d+) apples", lambda found, _: found[1])])
    >>> ask = Texts({"prompt": ("What is 2 + 2?", "I have 7 apples")})
    >>> [texts[0].text for texts in source(ask, Input(), Reading(writing=Writing(stop=(".",)))).written]
    ['four', '7']
    """
    return PromptFake(_Script(rules), "Scripted", pictures=pictures)


def cut(text: str, writing: Writing) -> Written:
    """A text as a source with these settings would have written it; its tokens are bytes."""
    text, _ = before_stop(text, writing.stop)
    data = text.encode()
    kept = data[: writing.tokens].decode("utf-8", "ignore")
    return Written(text=kept, tokens=len(kept.encode()), finish="stop" if kept == text else "length")


NextByte = Callable[[bytes], Sequence[float]]
"""Probabilities of the 256 next bytes after some bytes; above 0, and 1 in sum."""


@final
class _Bytes:
    """A model of the next byte."""

    def __init__(self, chances: NextByte, name: str) -> None:
        self.chances, self.name = chances, name

    def score(self, prompt: str, choice: str) -> float | None:
        seen, total = prompt.encode(), 0.0
        for byte in choice.encode():
            total += math.log(self.chances(seen)[byte])
            seen += bytes([byte])
        return total

    def write(self, prompt: str, writing: Writing, sample: int) -> Written:
        seen, made, total = prompt.encode(), b"", 0.0
        key = f"{writing.seed} {sample} {prompt}".encode()
        for number in range(writing.tokens):
            chances = self.chances(seen + made)
            if writing.temperature == 0:
                byte = max(range(256), key=lambda b: chances[b])
            else:
                weights = [c ** (1 / writing.temperature) for c in chances]
                draw = hashlib.sha256(key + number.to_bytes(4, "big")).digest()
                left = int.from_bytes(draw[:8], "big") / 2**64 * sum(weights)
                byte = next((b for b, w in enumerate(weights) if (left := left - w) < 0), 255)
            total += math.log(chances[byte])
            made += bytes([byte])
            text = made.decode("utf-8", "replace")
            if any(stop in text for stop in writing.stop):
                short = cut(text, writing)
                return Written(text=short.text, tokens=len(made), logprob=total)
        return Written(text=made.decode("utf-8", "replace"), tokens=len(made), logprob=total, finish="length")

    def digest(self) -> str:
        return self.name


def hash_source(order: int = 3, seed: int = 0, *, context: int | None = None) -> PromptFake:
    """A source whose next byte's probabilities are a keyed hash of the last `order` bytes.

    Scores are exact sums of its logarithms, whatever shares a batch or a prefix.
    """

    def chances(seen: bytes) -> Sequence[float]:
        weights = hashlib.shake_256(f"{seed}:".encode() + seen[-order:]).digest(256)
        total = sum(weights) + 256
        return [(w + 1) / total for w in weights]

    return PromptFake(_Bytes(chances, f"hash {order} {seed}"), "Hash", context=context)


def ngram_source(texts: Sequence[str], order: int = 8, *, context: int | None = None) -> PromptFake:
    """A source that goes on as the texts it was made of do: the longest context seen, up to `order` bytes, decides.

    The prompt itself counts as seen, so that showing examples in it changes what is likely.
    """
    counts: dict[bytes, Counter[int]] = defaultdict(Counter)

    def learn(data: bytes, into: dict[bytes, Counter[int]]) -> None:
        for end in range(1, len(data)):
            for n in range(1, min(order, end) + 1):
                into[data[end - n : end]][data[end]] += 1

    for text in texts:
        learn(text.encode(), counts)

    def chances(seen: bytes) -> Sequence[float]:
        here: dict[bytes, Counter[int]] = defaultdict(Counter)
        learn(seen, here)
        for n in range(min(order, len(seen)), 0, -1):
            found = counts.get(seen[-n:], Counter[int]()) + here.get(seen[-n:], Counter[int]())
            if found:
                total = sum(found.values()) + 1
                return [(found.get(b, 0) + 1 / 256) / total for b in range(256)]
        return [1 / 256] * 256

    name = f"ngram {order} {hashlib.sha256(repr(list(texts)).encode()).hexdigest()}"
    return PromptFake(_Bytes(chances, name), "NGram", context=context)
