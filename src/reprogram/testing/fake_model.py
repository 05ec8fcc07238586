"""The language model behind the fake server: a few tokens, and probabilities that can be worked out by hand or by hash.

What it says depends on the text before alone, so that every way to ask for a score has one right answer.
"""

import hashlib
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, final

END = b"\xff"
"""The end token; no text has this byte."""

LIFT = 12.0


@final
class FakeModel:
    """Tokens are the longest of `words` that fit, else single bytes.

    Args:
        words: tokens of several bytes, with their leading spaces.
        rules: (regular expression, text): after what the expression is found in, this text is likely, then the end.
        seed: of the probabilities of all else.

    >>> model = FakeModel([" yes", " no"], [("sky blue", " yes")])
    >>> model.tokens("Is it? yes")[-2:], model.greedy("Is the sky blue?", 8)
    ([b'?', b' yes'], ([b' yes'], True))
    """

    def __init__(self, words: Sequence[str] = (), rules: Sequence[tuple[str, str]] = (), seed: int = 0) -> None:
        self.words = sorted({word.encode() for word in words}, key=lambda w: (-len(w), w))
        self.rules = [(re.compile(pattern, re.DOTALL), text) for pattern, text in rules]
        self.seed = seed
        self.vocabulary = [*self.words, *(bytes([b]) for b in range(128)), END]
        self.next = lru_cache(4096)(self._next)

    def tokens(self, text: str) -> list[bytes]:
        """A text in tokens."""
        data, found = text.encode(), list[bytes]()
        while data:
            word = next((w for w in self.words if data.startswith(w)), data[:1])
            found.append(word)
            data = data[len(word) :]
        return found

    def _next(self, context: bytes) -> dict[bytes, float]:
        """Log-probabilities of all tokens after a text."""
        lifted, known = self._expected(context), set(self.words)
        noise = hashlib.shake_256(b"%d:%s" % (self.seed, context[-12:])).digest(2 * len(self.vocabulary))
        weights: dict[bytes, float] = {}
        for place, token in enumerate(self.vocabulary):  # from 0 to 2, and 2 more for words
            number = int.from_bytes(noise[2 * place : 2 * place + 2], "big") / 2**15
            weights[token] = number + 2 * (token in known) + LIFT * (token == lifted)
        total = math.log(sum(math.exp(w) for w in weights.values()))
        return {token: weight - total for token, weight in weights.items()}

    def _expected(self, context: bytes) -> bytes | None:
        """The next token of the first rule's text that the context calls for."""
        said = context.decode("utf-8", "replace")
        for pattern, text in self.rules:
            for length in range(len(text), -1, -1):
                head = said[: len(said) - length]
                if said.endswith(text[:length]) and pattern.search(head):
                    rest = self.tokens(text[length:])
                    return rest[0] if rest else END
        return None

    def echo(self, text: str) -> list[tuple[bytes, float | None]]:
        """Every token of a text with its log-probability; the first has none."""
        found: list[tuple[bytes, float | None]] = []
        seen = b""
        for token in self.tokens(text):
            likely = self.next(seen)
            found.append((token, likely.get(token, -30.0) if seen else None))
            seen += token
        return found

    def score(self, prompt: str, choice: str) -> float:
        """The plain reference: log-probability of a text after another that ends where a token does."""
        before = self.tokens(prompt)
        both = self.tokens(prompt + choice)
        assert both[: len(before)] == before
        seen, total = prompt.encode(), 0.0
        for token in both[len(before) :]:
            total += self.next(seen)[token]
            seen += token
        return total

    def greedy(self, prompt: str, limit: int) -> tuple[list[bytes], bool]:
        """The likeliest tokens, and whether the end token came."""
        return self.write(prompt, limit, 0.0, 0)

    def write(self, prompt: str, limit: int, temperature: float, seed: int) -> tuple[list[bytes], bool]:
        """Tokens one after another."""
        draw = random.Random(f"{seed}:{prompt}")
        seen, made = prompt.encode(), list[bytes]()
        while len(made) < limit:
            likely = self.next(seen)
            if temperature == 0:
                token = max(likely, key=lambda t: likely[t])
            else:
                weights = [math.exp(v / temperature) for v in likely.values()]
                token = draw.choices(list(likely), weights)[0]
            if token == END:
                return made, True
            made.append(token)
            seen += token
        return made, False


def allowed(body: dict[str, Any], field: str) -> list[str]:
    """Some texts that the grammar in a request allows."""
    if field in ("structured_outputs", "lie"):
        return _texts(body.get("structured_outputs") or {})
    if field == "guided":
        return _texts(
            {name.removeprefix("guided_"): value for name, value in body.items() if name.startswith("guided_")}
        )
    if field == "response_format" and "response_format" in body:
        return _texts({"json": body["response_format"]["json_schema"]["schema"]})
    return []


def _texts(grammar: Mapping[str, Any]) -> list[str]:
    if "choice" in grammar:
        return list(grammar["choice"])
    if "regex" in grammar:
        some = ["qzx-17", "vkw-42", "yes", "no", *map(str, range(100))]
        return [text for text in some if re.fullmatch(grammar["regex"], text)]
    return [json.dumps(value) for value in _instances(grammar["json"])] if "json" in grammar else []


def _instances(schema: Mapping[str, Any]) -> list[Any]:
    """Some values that fit a schema."""
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("type") == "object":
        found: list[dict[str, Any]] = [{}]
        for name, inner in schema.get("properties", {}).items():
            found = [one | {name: value} for one in found for value in _instances(inner)]
        return found
    return {"integer": [0, 1, 42], "boolean": [True, False], "array": [[]]}.get(schema.get("type", ""), ["a"])
