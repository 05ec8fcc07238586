"""The language model behind the fake server: a few tokens, and probabilities that can be worked out by hand or by hash.

What it says depends on the text before alone, so that every way to ask for a score has one right answer.
"""

import hashlib
import math
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import final

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
        lifted = self._expected(context)
        weights = {token: self._noise(context[-12:], token) + LIFT * (token == lifted) for token in self.vocabulary}
        total = math.log(sum(math.exp(w) for w in weights.values()))
        return {token: weight - total for token, weight in weights.items()}

    def _noise(self, context: bytes, token: bytes) -> float:
        """A number from 0 to 4; words of the vocabulary are likelier than bytes."""
        hashed = hashlib.blake2b(b"%d:%s:%s" % (self.seed, context, token), digest_size=4).digest()
        return int.from_bytes(hashed, "big") / 2**32 * 2 + (2 if len(token) > 1 else 0)

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
