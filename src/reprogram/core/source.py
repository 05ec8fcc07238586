"""f: what every frozen source model offers, whatever library it comes from. Holds no model code itself."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, say
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Batch, Texts
from reprogram.core.writing import Writing, Written

if TYPE_CHECKING:
    from reprogram.core.program import Input


class Capability(StrEnum):
    """What a program may need of a source. A missing one is an error when the program is built."""

    GRADIENTS = "gradients"
    HIDDEN_SITES = "hidden sites"
    FEATURES = "features"
    TOKEN_INSERTION = "token insertion"
    GENERATION = "generation"
    LOG_PROBABILITIES = "log-probabilities"
    PICTURES = "pictures in prompts"
    CLASS_TEXTS = "class texts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an output needs to be told, so that the source computes no more than that.

    Attributes:
        features: what the last linear layer reads.
        tokens: of a language model, scores at more than the one place where the answer goes: at every token that is
            to predict a target's token; where the batch has no targets, at every answer place of a template that has
            several, and else at every token of the input.
        continuations: token ids of some texts, each of which is scored as what follows the input.
        choices: the same as texts, for sources whose tokens are their own business. Prompt and choice are tokenised
            together; a choice has its leading space, if any.
        writing: how to go on writing after the input.
        texts: of a source of pictures and texts: the class texts c that every picture is compared with, n of them.
        local: of a source of pictures and texts: also the vectors of a picture's parts.
        sites: whose values are wanted as well, with the edits at them applied.
        plain: also what the source says of the input without edits, but for those that only bring it into shape.
    """

    features: bool = False
    tokens: bool = False
    continuations: tuple[tuple[int, ...], ...] = ()
    choices: tuple[str, ...] = ()
    writing: Writing | None = None
    texts: tuple[str, ...] = ()
    local: bool = False
    sites: tuple[str, ...] = ()
    plain: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SourceOutput:
    """What the source said about a batch of B inputs.

    Attributes:
        scores: one score (logit) per source class, [B, S]; of a language model, per token of the vocabulary, at the
            place where the answer goes. None for sources that only produce text.
        features: what the last linear layer reads, [B, D], where the source can tell.
        token_scores: language models only, see `Reading.tokens`: [M, vocabulary] for the M tokens of all targets,
            else [B, places or tokens, vocabulary].
        targets: the M token ids that `token_scores` are to predict, where the batch has targets.
        continuations: log-probability of each continuation, [B, continuations], summed over its tokens, nats.
        choices: log-probability of each of `Reading.choices`, [B, choices], summed over its tokens, nats.
        choice_tokens: how many tokens each choice was, [B, choices], int64.
        exact: False if `choices` are a stand-in for log-probabilities that the source does not give.
        written: for each input, the texts that `Reading.writing` asked for.
        texts: of a source of pictures and texts: vectors of `Reading.texts`, of length 1, [n, d]; [V n, d] where the
            edits at the text side make V variants of each text (text 0 with all of them first); [B, n, d] where they
            depend on the picture. `features` are then the pictures' vectors, of length 1, and `scores` [B, n] (or
            [B, V n]) the scaled cosines.
        local: vectors of the parts of each picture, of length 1, [B, parts, d].
        at: the values at `Reading.sites`, by site, batch first.
        plain: what the source says of the same inputs without edits, detached; see `Reading.plain`.
    """

    scores: Tensor | None = None
    features: Tensor | None = None
    token_scores: Tensor | None = None
    targets: Tensor | None = None
    continuations: Tensor | None = None
    choices: Tensor | None = None
    choice_tokens: Tensor | None = None
    exact: bool = True
    written: tuple[tuple[Written, ...], ...] | None = None
    texts: Tensor | None = None
    local: Tensor | None = None
    at: Mapping[str, Tensor] = field(default_factory=lambda: {})
    plain: "SourceOutput | None" = None

    @property
    def logits(self) -> Tensor:
        """`scores`, for the many parts that cannot do without; raises ValueError if there are none."""
        if self.scores is None:
            msg = "This source gives no class scores."
            raise ValueError(msg)
        return self.scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How the source wants its pixels: `(x - mean) / std` for x in [0, 1], one number a channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: str = "bicubic"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """Facts about a source that parts and reports need.

    Attributes:
        ref: how to load it again ("bundled/efficientnet-lite0"); "module:<class>" for a module in memory.
        modality: "image", "text", ...
        input_shape: (channel, height, width) of the canvas the model was trained on, for images.
        resizable: True if the model takes other heights and widths than `input_shape` says.
        outputs: S, the number of source classes.
        labels: human names of the source classes.
        width: embedding or feature width, where known.
        depth: number of blocks at `hidden.*`, 0 where unknown.
        accuracy: share of its own test data that the source gets right, where somebody published or measured it.
    """

    ref: str
    modality: str
    input_shape: tuple[int, ...]
    outputs: int
    labels: tuple[str, ...] | None = None
    resizable: bool = False
    preprocessing: Preprocessing = Preprocessing()
    width: int | None = None
    depth: int = 0
    accuracy: float | None = None

    def label(self, index: int) -> str:
        """Human name of a source class, or its number."""
        return self.labels[index] if self.labels else f"#{index}"

    def canvas(self, size: int | None = None) -> int:
        """Pixels of the square input a program should make: `size`, or by default what the source was trained on.

        Raises:
            CapabilityError: the source is no image model, or takes its own size only.
        """
        if self.modality != "image" or len(self.input_shape) != 3:
            raise CapabilityError(say("source", "must be an image model", f"{self.ref} ({self.modality})"))
        own = self.input_shape[-1]
        if size is not None and size != own and not self.resizable:
            raise CapabilityError(say("canvas", f"must be {own} for {self.ref}, which takes one size only", size))
        return size or own


@runtime_checkable
class Source(Protocol):
    """A frozen model: never trained, always in eval mode, never part of a program's parameters or state."""

    @property
    def spec(self) -> SourceSpec:
        """Facts about the source."""
        ...

    @property
    def sites(self) -> Mapping[str, Location]:
        """Every address at which an edit can sit, with its location in the taxonomy."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What programs may ask of it."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    def fingerprint(self) -> str:
        """Hash over parameters *and buffers*: equal fingerprints mean equal outputs."""
        ...

    def to(self, device: torch.device | str) -> "Source":
        """Move it (in place) and return it."""
        ...

    def attach(self, sites: Iterable[str], reading: Reading = ...) -> None:
        """Make sites (and what is to be read) reachable; once, when a program is built, never inside a forward."""
        ...

    def editing(self, input: "Input") -> AbstractContextManager[None]:
        """Bind an input's hidden edits in this thread, for code that calls the wrapped model itself."""
        ...

    def prepare(self, inputs: object, sample: Sample | None) -> Sequence[Tensor] | Texts:
        """Turn what a user hands to `predict` (tensors, paths, texts, ...) into inputs that can be batched."""
        ...

    def __call__(self, x: Batch, input: "Input", reading: Reading = ...) -> SourceOutput:
        """`f(I(x))`."""
        ...


@runtime_checkable
class TextSource(Source, Protocol):
    """A frozen language model or text encoder, with what methods that learn prompts ask of it.

    Attributes:
        kind: "causal" (reads left to right, predicts the next token), "masked" (predicts a masked token), "seq2seq"
            (reads a text, writes another), "classifier" (has class scores of its own), "encoder" (gives a vector).
        blocks: L, layers at "hidden.i" and "kv.i" (of the part that reads the input).
        heads: key and value heads of each, at "kv".
        head_width: numbers to a key.
    """

    kind: str
    blocks: int
    heads: int
    head_width: int

    @property
    def embeddings(self) -> Tensor:
        """The frozen table [vocabulary, d] that turns token ids into vectors; never copied into a program's state."""
        ...

    @property
    def head_table(self) -> Tensor | None:
        """The frozen table [vocabulary, d] whose products with the features are the scores, where there is one."""
        ...

    @property
    def special(self) -> Mapping[str, int]:
        """Ids of the special tokens it has, among "bos", "eos", "pad", "cls", "sep", "mask", "unk"."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        ...

    def keys_values(self, text: str, *, start: int = 0, begin: bool = False) -> Tensor:
        """What attention keeps of a text from position `start` on, [tokens, layers, 2, heads, head width], detached.

        `begin` puts the special tokens that start a text before it.
        """
        ...

    def generate(self, x: Texts, input: "Input", *, max_new_tokens: int = 32, **options: Any) -> tuple[str, ...]:
        """What the source writes after each prompt."""
        ...


@runtime_checkable
class ImageTextSource(Source, Protocol):
    """A frozen pair of towers, of pictures and of texts, that meet in one space: `scores = scale * cos + bias`.

    Its x are pictures; class texts are the context c, asked for by `Reading.texts`. Sites of the towers are "image.*"
    and "text.*"; as x is a picture, "input" and "normalised" are the image tower's as well.

    Attributes:
        scale: factor of the cosines.
        bias: added to them (SigLIP; 0 elsewhere).
        text: the text tower, whose sites it knows without their "text.".
    """

    scale: float
    bias: float

    @property
    def text(self) -> TextSource:
        """The text tower."""
        ...

    def look(self, x: Tensor, input: "Input", reading: Reading = ...) -> SourceOutput:
        """The image tower's part: `features`, and on request `local` and `at`. Edits at the text side do nothing."""
        ...

    def compare(self, seen: SourceOutput, input: "Input", reading: Reading = ...) -> SourceOutput:
        """The rest: `texts` and `scores` beside what `look` gave. Edits at the image side do nothing."""
        ...

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Texts as vectors of length 1, [n, d], without edits; remembered."""
        ...


@runtime_checkable
class PromptSource(Source, Protocol):
    """A source that reads prompts and goes on writing: a language model here or behind an endpoint.

    Its tokens are its own business. It answers `Reading.writing`, and `Reading.choices` if it offers log-probabilities.
    """

    @property
    def context(self) -> int | None:
        """Tokens it can read and write at most; None if that is not known."""
        ...

    def count(self, text: str) -> int:
        """How many tokens a prompt is; an estimate from above where the tokenizer is not known."""
        ...

    def rendered(self, prompt: str) -> str:
        """A prompt as the model reads it: a chat in the model's own form, or as turns where that is not known."""
        ...


def prompt_source(source: Source) -> PromptSource:
    """The source, if it goes on writing after prompts.

    Raises:
        CapabilityError: it does not.
    """
    if not isinstance(source, PromptSource) or Capability.GENERATION not in source.capabilities:
        msg = say("source", "must be a language model that writes", f"{source.spec.ref} ({source.spec.modality})")
        raise CapabilityError(msg)
    return source


def image_text_source(source: Source) -> ImageTextSource:
    """The source, if it compares pictures with texts.

    Raises:
        CapabilityError: it does not.
    """
    if not isinstance(source, ImageTextSource):
        msg = say("source", "must compare pictures with texts", f"{source.spec.ref} ({source.spec.modality})",
                  "For example bundled/conse, or a CLIP model: hf/<folder>, open_clip/<name>.")  # fmt: skip
        raise CapabilityError(msg)
    return source


def text_source(source: Source) -> TextSource:
    """The source, if it is one that reads text.

    Raises:
        CapabilityError: it is not.
    """
    if not isinstance(source, TextSource):
        msg = say("source", "must be a language model or text encoder", f"{source.spec.ref} ({source.spec.modality})")
        raise CapabilityError(msg)
    return source


def local_module(source: Source) -> nn.Module | None:
    """The module behind a source that runs here; None for one that has none, such as an endpoint."""
    module = getattr(source, "module", None)  # not part of the protocol: most users of a source need no module
    return module if isinstance(module, nn.Module) else None
