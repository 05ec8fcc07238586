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
from reprogram.inputs._insert import check_start
from reprogram.inputs.additive import Additive, frame_mask
from reprogram.inputs.contexts import SITE, context_start
from reprogram.inputs.prompt_tokens import ReplacedTokens
from reprogram.inputs.soft_prompt import SoftPrompt

VisionPrompt = Literal["tokens", "frame", "none"]
"""What is learned at the image side: tokens behind the patches, a frame of pixels, or nothing."""

IMAGE_SITE = "image.embedding"


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

    Args:
        start: [n, d], what P is at first. Copied.
        site: where the sequences [batch, tokens, d] are.
        replaces: the sequence ends with n tokens that came from an earlier layer's prompts; they give way.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite.

    >>> TrailingTokens(torch.full((1, 1), 7.0))(torch.tensor([[[0.0], [1.0]]])).squeeze(-1).tolist()
    [[0.0, 1.0, 7.0]]
    >>> TrailingTokens(torch.full((1, 1), 7.0), replaces=True)(torch.tensor([[[0.0], [1.0]]])).squeeze(-1).tolist()
    [[0.0, 7.0]]
    """

    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, start: Float[Tensor, " n d"], *, site: str = IMAGE_SITE, replaces: bool = False) -> None:
        super().__init__()
        check_start(start, "n d")
        self.site, self.replaces = site, replaces
        self.values = nn.Parameter(start.detach().float().clone())

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " batch more d"]:
        """The sequences with P at their end."""
        return _behind(value, self.values, self.replaces)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, replaces={self.replaces}, site={self.site!r}"


@final
class CoupledTokens(Edit):
    """``x -> [x, P W + b]``, or ``[x, q] -> [x, P W + b]``: the text side's prompt P, brought to the image side.

    Only W and b are its own: P stays the text edit's, is stored there once, and learns from both sides.

    Args:
        prompt: the edit at the text side whose `values` [n, d] are P.
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

    def __init__(
        self, prompt: SoftPrompt | ReplacedTokens, width: int, *, site: str = IMAGE_SITE, replaces: bool = False
    ) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(say("width", "must be 1 or more", width))
        self.site, self.replaces = site, replaces
        self._prompt = (prompt,)  # in a tuple, so that it is not registered as a part
        self.project = nn.Linear(prompt.values.shape[1], width)

    def tokens(self) -> Float[Tensor, " n width"]:
        """P W + b, in float32 also under autocast."""
        values = self._prompt[0].values
        with torch.autocast(values.device.type, enabled=False):
            return self.project(values)

    def forward(self, value: Float[Tensor, " batch tokens width"]) -> Float[Tensor, " batch more width"]:
        """The sequences with the coupled tokens at their end."""
        return _behind(value, self.tokens(), self.replaces)

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
    lead = _lead(source)
    later = [
        ReplacedTokens(context_start(source, tokens), site=f"text.hidden.{i}", after=lead)
        for i in range(1, _depth(depth, source.text.spec.depth))
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
        for i in range(_depth(depth, source.spec.depth))
    ]


def coupled_prompts(source: Source, prompts: Sequence[SoftPrompt | ReplacedTokens]) -> list[CoupledTokens]:
    """Edits of the image tower that follow those of the text tower, layer by layer, as deep as the image tower is.

    Raises:
        CapabilityError: the image tower reads no tokens.
    """
    width = image_width(source)
    within = prompts[: _depth(len(prompts), source.spec.depth)]
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


def image_width(source: Source) -> int:
    """Width of the image tower's tokens.

    Raises:
        CapabilityError: it reads none: it is a convolutional network, for example.
    """
    width: int | None = getattr(source, "tokens_width", None)  # not part of the protocol: only these edits ask
    if IMAGE_SITE not in source.sites or width is None:
        remedy = "Use a source with a vision transformer, or the setting vision='frame' (or 'none')."
        raise CapabilityError(say("source", f"must read image tokens, at `{IMAGE_SITE}`", source.spec.ref, remedy))
    return width


def _lead(source: ImageTextSource) -> int:
    """Tokens at the front of every text that learned ones stand behind: the start token, if there is one."""
    text = source.text
    if isinstance(text, _Tokenised):
        return min(1, len(text.tokeniser.before))
    return int(any(name in text.special for name in ("bos", "cls")))


def _image_site(layer: int) -> str:
    return f"image.hidden.{layer}" if layer else IMAGE_SITE


def _depth(wanted: int, there: int) -> int:
    if wanted < 1:
        raise ConfigError(say("depth", "must be 1 or more layers", wanted))
    return min(wanted, there) if there else 1


def _behind(value: Tensor, prompt: Tensor, replaces: bool) -> Tensor:
    n = len(prompt)
    if value.ndim != 3 or value.shape[-1] != prompt.shape[1] or (replaces and value.shape[1] < n):
        need = f"must be sequences of width {prompt.shape[1]}" + (f" and at least {n} tokens" if replaces else "")
        raise ConfigError(say("value", need, list(value.shape)))
    kept = value[:, : value.shape[1] - n] if replaces else value
    return torch.cat([kept, prompt.to(value.dtype).expand(len(value), -1, -1)], dim=1)
