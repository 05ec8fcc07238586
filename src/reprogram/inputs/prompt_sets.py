"""Several sets of learned tokens, each of which everything is read with (PLOT, Chen et al. 2023, arXiv 2210.01253).

Where the first of these edits stands every row becomes K rows, one for each set, row 0 with all sets first; what comes
before that place is computed once. Edits of later layers put fresh tokens of set ``r mod K`` into row r.
"""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.inserting import Where
from reprogram.core.program import Edit
from reprogram.core.source import ImageTextSource, Source
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import check_start, check_where, inserted
from reprogram.inputs.contexts import SITE, context_start

IMAGE_SITE = "image.embedding"


@final
class TextSets(Edit):
    """``x_t -> [P_1; x_t], ..., [P_K; x_t]``: every class text with each of K sets of n learned words.

    Args:
        start: [K, n, d], what P is at first. Copied.
        where: as for `SoftPrompt`.
        site: where the text tower's embeddings are.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite, or an unknown place.

    >>> edit = TextSets(torch.tensor([[[1.0]], [[2.0]]]))
    >>> edit(torch.tensor([[[8.0]], [[9.0]]])).squeeze(-1).tolist()
    [[1.0, 8.0], [2.0, 8.0], [1.0, 9.0], [2.0, 9.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})
    where: Where

    def __init__(self, start: Float[Tensor, " sets n d"], *, where: Where = "start", site: str = SITE) -> None:
        super().__init__()
        check_start(start, "sets n d")
        check_where(where)
        self.site, self.where = site, where
        self.values = nn.Parameter(start.detach().float().clone())

    @property
    def length(self) -> int:
        """The number n of tokens of a set."""
        return self.values.shape[1]

    def tokens(self) -> Float[Tensor, " sets n d"]:
        """P."""
        return self.values

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " more longer d"]:
        """Every sequence with each of the sets in it, sequence 0 with all of them first."""
        sets = len(self.values)
        return inserted(value.repeat_interleave(sets, 0), self.values.repeat(len(value), 1, 1), self.where)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, where={self.where!r}, site={self.site!r}"


@final
class FreshSets(Edit):
    """``[c, q, x] -> [c, P_k, x]`` in row r of set ``k = r mod K``: fresh tokens where those of an earlier layer were.

    Args:
        start: [K, n, d], what P is at first, n as many as were put there. Copied.
        site: what a block reads, "text.hidden.i".
        after: how many tokens c is.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite, or an `after` below 0.

    >>> edit = FreshSets(torch.tensor([[[6.0]], [[7.0]]]), site="text.hidden.1")
    >>> edit(torch.zeros(4, 3, 1)).squeeze(-1).tolist()
    [[0.0, 6.0, 0.0], [0.0, 7.0, 0.0], [0.0, 6.0, 0.0], [0.0, 7.0, 0.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, start: Float[Tensor, " sets n d"], *, site: str, after: int = 1) -> None:
        super().__init__()
        check_start(start, "sets n d")
        if after < 0:
            raise ConfigError(say("after", "must be 0 or more tokens", after))
        self.site, self.after = site, after
        self.values = nn.Parameter(start.detach().float().clone())

    def forward(self, value: Float[Tensor, " rows tokens d"]) -> Float[Tensor, " rows tokens d"]:
        """The sequences with fresh tokens in the n places."""
        fresh, end = _by_row(value, self.values), self.after + self.values.shape[1]
        _check(value, self.values, end)
        return torch.cat([value[:, : self.after], fresh, value[:, end:]], dim=1)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, after={self.after}, site={self.site!r}"


@final
class TrailingSets(Edit):
    """``x -> [x, V_1], ..., [x, V_K]``: every picture with each of K sets of n learned tokens behind its patches.

    Args:
        start: [K, n, d], what V is at first. Copied.
        site: where the image tower's sequences [batch, tokens, d] are.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite.

    >>> TrailingSets(torch.tensor([[[1.0]], [[2.0]]]))(torch.tensor([[[8.0]], [[9.0]]])).squeeze(-1).tolist()
    [[8.0, 1.0], [8.0, 2.0], [9.0, 1.0], [9.0, 2.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, start: Float[Tensor, " sets n d"], *, site: str = IMAGE_SITE) -> None:
        super().__init__()
        check_start(start, "sets n d")
        self.site = site
        self.values = nn.Parameter(start.detach().float().clone())

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " more longer d"]:
        """Every sequence with each of the sets behind it, sequence 0 with all of them first."""
        return _behind(value, self.values, replaces=False)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, site={self.site!r}"


@final
class CoupledSets(Edit):
    """``V_k = P_k W + b`` behind the patches: K sets of the text side, brought to the image side.

    Only W and b are its own, the same for all sets: P stays the text edit's, is stored there once, and learns from
    both sides.

    Args:
        prompt: the edit at the text side whose `values` [K, n, d] are P.
        width: of the image tower's tokens.
        site: where the sequences [batch, tokens, width] are.
        replaces: rows are sets of pictures already and end with n tokens of an earlier layer, which give way; else
            every picture becomes K rows, one for each set.

    Raises:
        ConfigError: the width is below 1.

    >>> from reprogram.inputs import CoupledSets, TextSets
    >>> coupled = CoupledSets(TextSets(torch.zeros(4, 2, 512)), 768)
    >>> sum(p.numel() for p in coupled.parameters()), coupled(torch.zeros(3, 5, 768)).shape
    (393984, torch.Size([12, 7, 768]))
    """

    operators = frozenset({Operator.CONCATENATIVE, Operator.PARAMETRIC})

    def __init__(
        self, prompt: TextSets | FreshSets, width: int, *, site: str = IMAGE_SITE, replaces: bool = False
    ) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(say("width", "must be 1 or more", width))
        self.site, self.replaces = site, replaces
        self._prompt = (prompt,)  # in a tuple, so that it is not registered as a part
        self.project = nn.Linear(prompt.values.shape[2], width)

    def tokens(self) -> Float[Tensor, " sets n width"]:
        """V, in float32 also under autocast."""
        values = self._prompt[0].values
        with torch.autocast(values.device.type, enabled=False):
            return self.project(values)

    def forward(self, value: Float[Tensor, " rows tokens width"]) -> Float[Tensor, " more longer width"]:
        """The sequences with the coupled tokens at their end."""
        return _behind(value, self.tokens(), self.replaces)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"replaces={self.replaces}, site={self.site!r}"


def set_starts(
    source: ImageTextSource, sets: int, tokens: int, words: Sequence[str] | None = None
) -> Float[Tensor, " sets n d"]:
    """What K sets of a text tower start as: the embeddings of some words each, N(0, 0.02^2) where there are none.

    Args:
        source: whose text tower is meant.
        sets: K.
        tokens: n of each.
        words: for the first sets, in order; of a text with fewer tokens the rest is random.

    Raises:
        ConfigError: no set or token is asked for, or there are more words than sets.
    """
    given = list(words or ())
    if sets < 1:
        raise ConfigError(say("sets", "must be 1 or more", sets))
    if len(given) > sets:
        raise ConfigError(say("words", f"must be texts for {sets} sets at most", given))
    return torch.stack([context_start(source, tokens, w) for w in [*given, *[None] * (sets - len(given))]])


def text_sets(
    source: ImageTextSource, sets: int, tokens: int, depth: int, words: Sequence[str] | None = None
) -> list[TextSets | FreshSets]:
    """Edits of the text tower: K sets of n tokens before the class name, and fresh ones at the layers after the first.

    Args:
        source: whose text tower is meant.
        sets: K.
        tokens: n of each, at every layer.
        depth: J, layers that get their own; as many as the tower has if those are fewer.
        words: as for `set_starts`, at the first layer.

    Raises:
        ConfigError: no set, token or layer is asked for, or there are more words than sets.
    """
    if depth < 1:
        raise ConfigError(say("depth", "must be 1 or more layers", depth))
    tokeniser: Any = getattr(source.text, "tokeniser", None)  # not part of the protocol; random starts need none
    lead = 1 if tokeniser is not None and len(tokeniser.before) else 0  # the start token stays in front
    layers = range(1, min(depth, source.text.spec.depth))
    later = [FreshSets(set_starts(source, sets, tokens), site=f"text.hidden.{i}", after=lead) for i in layers]
    return [TextSets(set_starts(source, sets, tokens, words)), *later]


def coupled_sets(source: Source, prompts: Sequence[TextSets | FreshSets], method: str) -> list[CoupledSets]:
    """Edits of the image tower that follow those of the text tower, layer by layer, as deep as the image tower is.

    Args:
        source: of pictures and texts.
        prompts: at the text side, from the first layer on.
        method: for the error.

    Raises:
        CapabilityError: the image tower reads no tokens.
    """
    width = image_tokens(source, method)
    within = prompts[: max(1, source.spec.depth)]
    sites = [f"image.hidden.{i}" if i else IMAGE_SITE for i in range(len(within))]
    return [CoupledSets(p, width, site=s, replaces=i > 0) for i, (p, s) in enumerate(zip(within, sites, strict=True))]


def image_tokens(source: Source, method: str) -> int:
    """Width d of the image tower's tokens, for methods that put some there.

    Raises:
        CapabilityError: it reads none: it is a convolutional network, for example.
    """
    width: int | None = getattr(source, "tokens_width", None)  # not part of the protocol: only these edits ask
    if IMAGE_SITE not in source.sites or width is None:
        remedy = f"{method} learns tokens among patches. Use a source with a vision transformer, or the method plot."
        raise CapabilityError(say("source", f"must read image tokens, at `{IMAGE_SITE}`", source.spec.ref, remedy))
    return width


def _behind(value: Tensor, sets: Tensor, replaces: bool) -> Tensor:
    _check(value, sets, sets.shape[1] if replaces else 0)
    kept = value[:, : value.shape[1] - sets.shape[1]] if replaces else value.repeat_interleave(len(sets), 0)
    return torch.cat([kept, _by_row(kept, sets)], dim=1)


def _by_row(value: Tensor, sets: Tensor) -> Tensor:
    """[rows, n, d]: the tokens of each row's set."""
    if len(value) % len(sets):
        raise ConfigError(say("value", f"must have rows for each of {len(sets)} sets", len(value)))
    return sets.to(value.dtype).repeat(len(value) // len(sets), 1, 1)


def _check(value: Tensor, sets: Tensor, least: int) -> None:
    if value.ndim != 3 or value.shape[-1] != sets.shape[-1] or value.shape[1] < least:
        need = f"must be sequences of width {sets.shape[-1]} and at least {least} tokens"
        raise ConfigError(say("value", need, list(value.shape)))
