"""Transport on two levels: between sets of prompts, at costs that know of the transport between their tokens (ALIGN).

Wang, Li, Liu, Xu, Chen, Zhang, "Tuning Multi-mode Token-level Prompt Alignment across Modalities", 2023, arXiv
2309.13847.
"""

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs.transport import PUBLISHED, Transport, transported
from reprogram.outputs.transport_scores import vectors_of

WORDS = "text.words"
"""Where a source of pictures and texts gives the vectors of the tokens of its class texts, [texts, tokens, d]."""

TokenTerm = Literal["distance", "similarity", "none"]

_BUDGET = 1 << 23
"""Numbers of token costs that are looked at in one go."""


@final
class AlignedScores(Output):
    """``y_t = scale * sum(T * sim)``, sim [M, N] the cosines of M rows of the picture with N variants of class t.

    T is the transport plan of the cost ``1 - sim + token`` between uniform weights. The token term of a pair (m, n) is
    the transport between the vectors of row m's patches and of variant n's tokens, at the cost ``1 - cosine``.

    Args:
        texts: T class texts, one a class.
        sets: M and N, rows of each picture and variants of each text.
        token: "distance" adds what the transport of tokens costs, as in the paper (section 3.2); "similarity" adds what
            it gains, as in the released code, which so sends prompts to those whose tokens fit least; "none" leaves the
            tokens out.
        skip: tokens at the end of a text that do not take part (released code: the full stop and the end token).
        transport: how both plans are found.
        scaled: factor of the cosines, and what is added: `(source.scale, source.bias)`.

    Raises:
        ConfigError: there are no texts, the sets are below 1, or skip is below 0.
    """

    alignment = Alignment.RULE_BASED

    def __init__(
        self,
        texts: Sequence[str],
        sets: int,
        *,
        token: TokenTerm = "distance",
        skip: int = 2,
        transport: Transport = PUBLISHED,
        scaled: tuple[float, float] = (1.0, 0.0),
    ) -> None:
        super().__init__()
        if not texts or sets < 1 or skip < 0:
            raise ConfigError(say("sets", "must be 1 or more, of 1 text or more, skip 0 or more", (sets, skip)))
        self.texts, self.sets, self.skip = tuple(texts), sets, skip
        self.token: TokenTerm = token
        self.transport = transport
        self.scale, self.bias = scaled

    @property
    def reading(self) -> Reading:
        """The class texts, and the vectors of patches and tokens."""
        both = self.token != "none"
        return Reading(texts=self.texts, local=both, sites=(WORDS,) if both else ())

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        seen, texts = vectors_of(output, self.sets, self.sets)
        close = torch.einsum("bmd,tnd->btmn", seen, texts)
        extra = None if self.token == "none" else self._tokens(output)
        return self.scale * transported(close, self.transport, extra) + self.bias

    def _tokens(self, output: SourceOutput) -> Float[Tensor, " batch target m n"]:
        """The token term; only the plan depends on it, so it gets no gradient unless plans do."""
        parts, words = output.local, output.at.get(WORDS)
        if parts is None or words is None:
            raise CapabilityError(say("source", "must give the vectors of patches and of the texts' tokens", None))
        parts = parts.view(-1, self.sets, *parts.shape[1:])
        words = words.view(-1, self.sets, *words.shape[1:])
        with torch.set_grad_enabled(self.transport.through and torch.is_grad_enabled()):
            gained = token_similarity(parts, words, self.transport, self.skip)
        return 1 - gained if self.token == "distance" else gained

    def extra_repr(self) -> str:
        """Settings."""
        return f"texts={self.texts[:3]!r}…, sets={self.sets}, token={self.token!r}, {self.transport}"


def token_similarity(
    parts: Float[Tensor, " batch m patches d"],
    words: Float[Tensor, " target n tokens d"],
    transport: Transport,
    skip: int = 0,
) -> Float[Tensor, " batch target m n"]:
    """``sum(T * cosines)`` for every row of a picture and every variant of a class text; 1 minus it is the distance.

    Args:
        parts: vectors of patches, of length 1.
        words: vectors of tokens, of length 1; zeros behind the text's last token.
        transport: how plans are found, between uniform weights.
        skip: tokens at the end of each text that get no weight; one is left in any case.
    """
    there = words[:, :1].detach().square().sum(-1) > 0.5  # [T, 1, tokens]: the same for all variants of a class
    place = torch.arange(words.shape[2], device=words.device)
    used = place < (there.sum(-1, keepdim=True) - skip).clamp_min(1)
    weights = used / used.sum(-1, keepdim=True)
    some = max(1, _BUDGET // (parts[0, :, :, 0].numel() * words[0, :, :, 0].numel()))
    starts = range(0, len(words), some)
    rows = [
        torch.cat([_pairs(one, words[i : i + some], weights[i : i + some], transport) for i in starts]) for one in parts
    ]
    return torch.stack(rows)


def _pairs(parts: Tensor, words: Tensor, weights: Tensor, transport: Transport) -> Tensor:
    """[T, M, N] of one picture."""
    close = torch.einsum("mpd,tnld->tmnpl", parts, words)
    even = close.new_full((1, 1, 1, parts.shape[1]), 1 / parts.shape[1])
    return transported(close, transport, marginals=(even, weights[:, None]))
