"""Two frozen towers, of pictures and of texts, that meet in one space: CLIP, SigLIP, and ConSE put together here.

Value flow: a picture -> edits at "image.*" -> its vector; class texts -> edits at "text.*" -> theirs; scores are scaled
cosines. What a program cannot change is computed once: texts are remembered while nothing is edited at their side, and
pictures' vectors can be (`look` and `compare` are apart for that, see `fit.feed`).
"""

import math
from collections import OrderedDict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol, cast, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reprogram.core.errors import CapabilityError, ConfigError, SourceError, say
from reprogram.core.inserting import Conditioned, Where
from reprogram.core.program import Edit, Input
from reprogram.core.source import Capability, Reading, SourceOutput, SourceSpec
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Batch, Texts
from reprogram.media.images import Samples, as_samples
from reprogram.sources._frozen import fingerprint
from reprogram.sources._rows import by_length
from reprogram.sources._towers import TextTower
from reprogram.sources.language import LanguageSource
from reprogram.sources.module import ModuleSource

BARE = ("input", "normalised", "embedding")
"""Sites of the image tower that edits of pictures know without "image.", as x is a picture."""

WORDS = "text.words"
"""In `Reading.sites`: the vectors of the tokens of every class text, of length 1, [n, tokens, d], learned tokens among
them, and zeros behind a text's last one."""

_CHUNK = 256
"""Texts to a pass where nothing is learned."""

_ROWS = 1024
"""Texts to a pass where every picture has its own; of more, each pass is computed again in the backward pass."""

_KEPT = 16
"""Lists of texts whose vectors are remembered."""


@runtime_checkable
class Parts(Protocol):
    """An image tower that can tell the vectors of a picture's parts.

    Attributes:
        parts_from: the site whose value they are made of.
    """

    parts_from: str

    def parts(self, value: Tensor) -> Tensor:
        """[B, parts, d] from that value."""
        ...


@final
class DualSource:
    """A frozen image-text model. Make one with `load_source`.

    Args:
        image: maps pictures to vectors [B, d].
        text: an encoder, texts to vectors [N, d].
        ref: how to load it again.
        scale: of the cosines (CLIP: the exponential of its `logit_scale`).
        bias: added to them (SigLIP).

    Raises:
        SourceError: the towers' vectors differ in width.
    """

    def __init__(self, image: ModuleSource, text: LanguageSource, *, ref: str, scale: float, bias: float = 0.0) -> None:
        width = image.spec.outputs
        if text.spec.outputs != width or not (math.isfinite(scale) and scale > 0 and math.isfinite(bias)):
            got = f"{width} and {text.spec.outputs}, scale {scale}, bias {bias}"
            raise SourceError(say("towers", "must end in vectors of one width, with a scale above 0", got))
        self.image, self._text = image, text
        self.scale, self.bias = scale, bias
        self.module: nn.Module = nn.ModuleDict({"image": image.module, "text": text.module})
        self.spec: SourceSpec = replace(image.spec, ref=ref, outputs=0, labels=None, width=width)
        self.tokens_width = image.spec.width
        sites = {f"image.{site}": where for site, where in image.sites.items()}
        sites |= {f"text.{site}": where for site, where in text.sites.items()}
        sites |= {site: image.sites[site] for site in BARE if site in image.sites}
        self.sites: Mapping[str, Location] = MappingProxyType(sites)
        can = {Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.FEATURES, Capability.CLASS_TEXTS}
        self.capabilities = frozenset(can | (image.capabilities & {Capability.TOKEN_INSERTION}))
        self._vectors: OrderedDict[tuple[str, ...], Tensor] = OrderedDict()

    # -- facts -----------------------------------------------------------------------------------------------------

    @property
    def text(self) -> LanguageSource:
        """The text tower."""
        return self._text

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.image.device

    def fingerprint(self) -> str:
        """SHA-256 over both towers, 64 hex digits."""
        return fingerprint(self.module)

    def to(self, device: torch.device | str) -> "DualSource":
        """Move both towers (in place) and return the source."""
        if torch.device(device) != self.device:
            self.image.to(device)
            self._text.to(device)
            self._vectors.clear()
        return self

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        """Make sites reachable, and see to it that what is to be read can be.

        Raises:
            CapabilityError: a site is unknown, or parts of pictures are wanted of a tower that cannot tell them.
        """
        mine = list(sites)
        self.image.attach([_bare(s) for s in mine if not s.startswith("text.")], _at_images(reading))
        self._text.attach([s.removeprefix("text.") for s in mine if s.startswith("text.")], Reading(features=True))
        if reading.texts:
            _check_texts(reading.texts)
        if WORDS in reading.sites:
            self._reader()
        if reading.local:
            self.image.attach([], Reading(sites=(self._parts().parts_from,)))
        if reading.tokens or reading.continuations or reading.choices or reading.writing is not None:
            got = f"{self.spec.ref} ({self.spec.modality})"
            raise CapabilityError(say("source", "must be a language model to score tokens or write", got))

    @contextmanager
    def editing(self, input: Input) -> Generator[None]:
        """Bind an input's hidden edits in this thread, for code that calls the towers themselves."""
        with self.image.editing(_of_images(input)), self._text.editing(input.under("text")):
            yield

    def prepare(self, inputs: object, sample: Sample | None) -> Samples:
        """Paths, pictures, arrays or tensors as image tensors of the sample's shape (default: the source's own)."""
        return as_samples(inputs, sample or Sample(shape=self.spec.input_shape))

    # -- running ---------------------------------------------------------------------------------------------------

    def __call__(self, x: Batch, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """`f(I(x, c))` for pictures [B, channel, height, width], c the texts of the reading."""
        if not isinstance(x, Tensor):
            raise CapabilityError(say("x", "must be pictures", "texts", "Class texts go into the output's reading."))
        return self.compare(self.look(x, input, reading), input, reading)

    def look(self, x: Tensor, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """The pictures' vectors of length 1, [B, d], and what is asked of the image tower besides."""
        wanted = _at_images(reading)
        tower = self._parts() if reading.local else None
        if tower is not None and tower.parts_from not in wanted.sites:
            wanted = replace(wanted, sites=(*wanted.sites, tower.parts_from))
        said = self.image(x, _of_images(input), wanted)
        local = None if tower is None else F.normalize(tower.parts(said.at[tower.parts_from]).float(), dim=-1)
        at = {s: said.at[_bare(s)] for s in reading.sites if s != WORDS}
        return SourceOutput(features=F.normalize(said.logits.float(), dim=-1), local=local, at=at)

    def compare(self, seen: SourceOutput, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """Scaled cosines of the pictures with the reading's texts. Without texts, what was seen as it is."""
        if not reading.texts:
            return seen
        pictures = seen.features
        assert pictures is not None
        edits = input.under("text")
        if WORDS in reading.sites:
            vectors, words = self._with_words(reading.texts, edits)
            seen = replace(seen, at={**seen.at, WORDS: words})
        elif not len(edits.edits):
            vectors = self.vectors(reading.texts)
        elif any(isinstance(e, Conditioned) for e in edits):
            vectors = self._conditioned(reading.texts, edits, pictures)
        else:
            vectors = self._encoded(reading.texts, edits)
        close = torch.einsum("bd,bnd->bn", pictures, vectors) if vectors.ndim == 3 else pictures @ vectors.T
        return replace(seen, scores=self.scale * close + self.bias, texts=vectors)

    @torch.no_grad()
    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Texts as vectors of length 1, [n, d]; remembered for the lists used last."""
        key = tuple(texts)
        found = self._vectors.get(key)
        if found is None:
            found = self._vectors[key] = by_length(key, lambda some: self._encoded(some, Input()), _CHUNK)
            if len(self._vectors) > _KEPT:
                self._vectors.popitem(last=False)
        return found.clone() if torch.is_inference(found) and not torch.is_inference_mode_enabled() else found

    def _encoded(self, texts: tuple[str, ...], edits: Input) -> Tensor:
        said = self._text(Texts({"text": texts}), edits, Reading(features=True))
        assert said.features is not None
        return F.normalize(said.features.float(), dim=-1)

    def _with_words(self, texts: tuple[str, ...], edits: Input) -> tuple[Tensor, Tensor]:
        """The texts' vectors, and those of their tokens."""
        said = self._text(Texts({"text": texts}), edits, Reading(features=True, tokens=True))
        assert said.features is not None
        assert said.token_scores is not None
        there = said.token_scores.ne(0).any(-1, keepdim=True)
        words = F.normalize(self._reader().words(said.token_scores).float(), dim=-1) * there
        return F.normalize(said.features.float(), dim=-1), words

    def _reader(self) -> TextTower:
        tower = self._text.module
        if not isinstance(tower, TextTower):
            raise CapabilityError(say("source", "must tell the vectors of a text's tokens", self.spec.ref))
        return tower

    def _conditioned(self, texts: tuple[str, ...], edits: Input, pictures: Tensor) -> Tensor:
        """[B, n, d]: every text with the tokens that each picture asks for, some pictures at a time."""
        parts = pictures.split(max(1, _ROWS // len(texts)))
        if len(parts) > 1 and torch.is_grad_enabled():
            found = [checkpoint(self._for_pictures, texts, edits, part, use_reentrant=False) for part in parts]
        else:
            found = [self._for_pictures(texts, edits, part) for part in parts]
        return torch.cat(found)

    def _for_pictures(self, texts: tuple[str, ...], edits: Input, pictures: Tensor) -> Tensor:
        told = Input(*(_told(e, pictures) for e in edits))
        found = self._encoded(texts, told)
        return found.view(len(texts), len(pictures), -1).transpose(0, 1)

    def _parts(self) -> Parts:
        tower = self.image.module
        if not isinstance(tower, Parts):
            raise CapabilityError(say("source", "must tell the vectors of a picture's parts", self.spec.ref))
        return tower


@final
class _Told(Edit):
    """The tokens that a `Conditioned` edit has for these pictures, as variants of every text."""

    operators = frozenset()

    def __init__(self, tokens: Tensor, where: Where, site: str) -> None:
        super().__init__()
        self._tokens, self.where, self.site = tokens, where, site

    @property
    def length(self) -> int:
        return self._tokens.shape[1]

    def tokens(self) -> Tensor:
        """One variant for each picture; for a single picture the same for all texts."""
        return self._tokens if len(self._tokens) > 1 else self._tokens[0]

    def forward(self, value: Tensor) -> Tensor:
        need = "must put learned tokens into its sequences by itself"
        raise CapabilityError(say("text tower", need, "a tower that hands embeddings to edits"))


def _told(edit: Edit, pictures: Tensor) -> Edit:
    if not isinstance(edit, Conditioned):
        return edit
    return _Told(edit.tokens_for(pictures), edit.where, cast("Edit", edit).site)


def _bare(site: str) -> str:
    return site.removeprefix("image.")


def _of_images(input: Input) -> Input:
    return input.under("image", BARE)


def _at_images(reading: Reading) -> Reading:
    """What the image tower is to read besides its vector."""
    if any(s.startswith("text.") and s != WORDS for s in reading.sites):
        raise CapabilityError(say("reading", "must name sites of the image side", list(reading.sites)))
    return Reading(sites=tuple(_bare(s) for s in reading.sites if s != WORDS))


def _check_texts(texts: Sequence[str]) -> None:
    empty = [t for t in texts if not t.strip()]
    if empty:
        raise ConfigError(say("class texts", "must have words in them", empty[:3]))
