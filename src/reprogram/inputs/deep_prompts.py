"""Learned tokens at many layers of both towers of an image-text model (MaPLe; Khattak et al. 2023, arXiv 2210.03117).

In the text tower they stand between the start token and the class name, in the image tower behind the patches. Later
layers read fresh ones in the same places; after the last layer that has its own they flow on like any tokens.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.source import ImageTextSource, Source
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import behind, check_start
from reprogram.inputs.additive import Additive, frame_mask
from reprogram.inputs.contexts import SITE, context_start
from reprogram.inputs.prompt_tokens import ReplacedTokens
from reprogram.inputs.soft_prompt import SoftPrompt

VisionPrompt = Literal["tokens", "frame", "none"]
"""What is learned at the image side: tokens behind the patches, a frame of pixels, or nothing."""

IMAGE_SITE = "image.embedding"

INSTEAD = "Use a source with a vision transformer, or the setting vision='frame' (or 'none')."


def or_plot(method: str) -> str:
    """The remedy of a method that has a twin without tokens in the picture."""
    return f"{method} learns tokens among patches. Use a source with a vision transformer, or the method plot."


@runtime_checkable
class Prompting(Protocol):
    """An edit at the text side with learned words.

    Attributes:
        values: [n, d], or [K, n, d] for K sets of them.
    """

    values: nn.Parameter


@runtime_checkable
class _Ends(Protocol):
    @property
    def before(self) -> Sequence[int]: ...


@runtime_checkable
class _Tokenised(Protocol):
    @property
    def tokeniser(self) -> _Ends: ...


@final
class TrailingTokens(Edit):
    """``x -> [x, P]``, or ``[x, q] -> [x, P]``: n learned tokens behind a sequence, or in place of its last n.

    With K sets of tokens every picture becomes K rows, one for each set: ``x -> [x, P_1], ..., [x, P_K]``.

    Args:
        start: [n, d], or [K, n, d], what P is at first. Copied.
        site: where the sequences [batch, tokens, d] are.
        replaces: the sequence ends with n tokens that came from an earlier layer's prompts, which give way, and rows
            are sets of pictures already.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite.

    >>> TrailingTokens(torch.full((1, 1), 7.0))(torch.tensor([[[0.0], [1.0]]])).squeeze(-1).tolist()
    [[0.0, 1.0, 7.0]]
    >>> TrailingTokens(torch.full((1, 1), 7.0), replaces=True)(torch.tensor([[[0.0], [1.0]]])).squeeze(-1).tolist()
    [[0.0, 7.0]]
    >>> TrailingTokens(torch.tensor([[[1.0]], [[2.0]]]))(torch.tensor([[[8.0]], [[9.0]]])).squeeze(-1).tolist()
    [[8.0, 1.0], [8.0, 2.0], [9.0, 1.0], [9.0, 2.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, start: Float[Tensor, " *sets n d"], *, site: str = IMAGE_SITE, replaces: bool = False) -> None:
        super().__init__()
        check_start(start, "n d" if start.ndim == 2 else "sets n d")
        self.site, self.replaces = site, replaces
        self.values = nn.Parameter(start.detach().float().clone())

    def forward(self, value: Float[Tensor, " rows tokens d"]) -> Float[Tensor, " more longer d"]:
        """The sequences with P at their end."""
        return behind(value, _sets(self.values), replaces=self.replaces)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, replaces={self.replaces}, site={self.site!r}"


@final
class CoupledTokens(Edit):
    """``x -> [x, P W + b]``, or ``[x, q] -> [x, P W + b]``: the text side's prompt P, brought to the image side.

    Only W and b are its own, the same for all sets where there are several: P stays the text edit's, is stored there
    once, and learns from both sides. Sets make rows as those of `TrailingTokens` do.

    Args:
        prompt: the edit at the text side whose `values` [n, d], or [K, n, d], are P.
        width: of the image tower's tokens.
        site: where the sequences [batch, tokens, width] are.
        replaces: as for `TrailingTokens`.

    Raises:
        ConfigError: the width is below 1.

    >>> coupled = CoupledTokens(SoftPrompt(torch.zeros(2, 512)), 768)
    >>> [name for name, _ in coupled.named_parameters()], sum(p.numel() for p in coupled.parameters())
    (['project.weight', 'project.bias'], 393984)
    """

    operators = frozenset({Operator.CONCATENATIVE, Operator.PARAMETRIC})

    def __init__(self, prompt: Prompting, width: int, *, site: str = IMAGE_SITE, replaces: bool = False) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(say("width", "must be 1 or more", width))
        self.site, self.replaces = site, replaces
        self._prompt = (prompt,)  # in a tuple, so that it is not registered as a part
        self.project = nn.Linear(prompt.values.shape[-1], width)

    def tokens(self) -> Float[Tensor, " *sets n width"]:
        """P W + b, in float32 also under autocast."""
        values = self._prompt[0].values
        with torch.autocast(values.device.type, enabled=False):
            return self.project(values)

    def forward(self, value: Float[Tensor, " rows tokens width"]) -> Float[Tensor, " more longer width"]:
        """The sequences with the coupled tokens at their end."""
        return behind(value, _sets(self.tokens()), replaces=self.replaces)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"replaces={self.replaces}, site={self.site!r}"


def text_prompts(
    source: ImageTextSource, tokens: int, depth: int, words: str | None = None
) -> list[SoftPrompt | ReplacedTokens]:
    """Edits of the text tower: n tokens before the class name, and fresh ones at the layers after the first.

    Args:
        source: whose text tower is meant.
        tokens: n at every layer.
        depth: J, layers that get their own; as many as the tower has if those are fewer.
        words: whose embeddings the first layer's start as; the rest, and all later ones, start at N(0, 0.02^2).

    Raises:
        ConfigError: no token or layer is asked for.
    """
    first = SoftPrompt(context_start(source, tokens, words), site=SITE)
    lead = lead_of(source)
    later = [
        ReplacedTokens(context_start(source, tokens), site=f"text.hidden.{i}", after=lead)
        for i in range(1, depth_within(depth, source.text.spec.depth))
    ]
    return [first, *later]


def image_prompts(source: Source, tokens: int, depth: int, std: float = 0.02) -> list[TrailingTokens]:
    """Edits of the image tower: n tokens behind the patches, and fresh ones at the layers after the first.

    Args:
        source: an image-text source whose image tower reads tokens.
        tokens: n at every layer.
        depth: J, layers that get their own; as many as the tower has if those are fewer.
        std: of the normal they start from (the released code: 0.02).

    Raises:
        ConfigError: no token or layer is asked for.
        CapabilityError: the image tower reads no tokens.
    """
    width = image_width(source)
    if tokens < 1:
        raise ConfigError(say("tokens", "must be 1 or more", tokens))
    return [
        TrailingTokens(torch.randn(tokens, width) * std, site=_image_site(i), replaces=i > 0)
        for i in range(depth_within(depth, source.spec.depth))
    ]


def coupled_prompts(source: Source, prompts: Sequence[Prompting], remedy: str = INSTEAD) -> list[CoupledTokens]:
    """Edits of the image tower that follow those of the text tower, layer by layer, as deep as the image tower is.

    Args:
        source: an image-text source whose image tower reads tokens.
        prompts: at the text side, from the first layer on.
        remedy: as for `image_width`.

    Raises:
        CapabilityError: the image tower reads no tokens.
    """
    width = image_width(source, remedy)
    within = prompts[: depth_within(len(prompts), source.spec.depth)]
    return [CoupledTokens(p, width, site=_image_site(i), replaces=i > 0) for i, p in enumerate(within)]


def pixel_frame(source: Source, size: int, width: int) -> Additive:
    """What stands in for image tokens where the image tower has none: a learned frame, zeros at first.

    Args:
        source: of pictures.
        size: pixels of the canvas.
        width: pixels of the frame on each side.

    Raises:
        ConfigError: the frame has no width.
    """
    return Additive(frame_mask(size, width), channels=source.spec.input_shape[0], site="normalised")


def image_width(source: Source, remedy: str = INSTEAD) -> int:
    """Width of the image tower's tokens.

    Args:
        source: an image-text source.
        remedy: what to do if there are none.

    Raises:
        CapabilityError: it reads none: it is a convolutional network, for example.
    """
    width: int | None = getattr(source, "tokens_width", None)  # not part of the protocol: only these edits ask
    if IMAGE_SITE not in source.sites or width is None:
        raise CapabilityError(say("source", f"must read image tokens, at `{IMAGE_SITE}`", source.spec.ref, remedy))
    return width


def lead_of(source: ImageTextSource) -> int:
    """Tokens at the front of every text that learned ones stand behind: the start token, if there is one."""
    text = source.text
    if isinstance(text, _Tokenised):
        return min(1, len(text.tokeniser.before))
    return int(any(name in text.special for name in ("bos", "cls")))


def _image_site(layer: int) -> str:
    return f"image.hidden.{layer}" if layer else IMAGE_SITE


def depth_within(wanted: int, there: int) -> int:
    """Layers that get tokens of their own: as many as are wanted and there; one where that is not known.

    Raises:
        ConfigError: none is wanted.
    """
    if wanted < 1:
        raise ConfigError(say("depth", "must be 1 or more layers", wanted))
    return min(wanted, there) if there else 1


def _sets(tokens: Tensor) -> Float[Tensor, " sets n d"]:
    """[n, d] as a single set."""
    return tokens if tokens.ndim == 3 else tokens[None]
