"""Where a fit's source outputs come from: computed batch by batch, or once and for all as far as I learns nothing.

An image-text source has two sides: where only texts are edited, every picture is looked at once, and a step compares.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from reprogram.core.program import Input, Program, evaluating, learns
from reprogram.core.source import ImageTextSource, SourceOutput
from reprogram.core.texts import Batch
from reprogram.fit.batches import alike
from reprogram.fit.said import joined, parts, placed, rows, with_parts
from reprogram.tasks import Split

CACHE_BYTES = 2 << 30


@runtime_checkable
class Feed(Protocol):
    """Gives the source's outputs for rows of a split."""

    def outputs(self, split: Split, index: Tensor, augment: str = "none") -> SourceOutput:
        """Outputs for the rows `index` [B]."""
        ...


@final
class OutputCache:
    """Source outputs that no program can change, kept in memory: least recently used go first.

    Keys hold the source's fingerprint, the fixed input's exact state and the split's digest, so that nothing stale is
    ever read. Controls and fixed-input programs on the same data share one forward pass.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self._rows: OrderedDict[tuple[str, ...], SourceOutput] = OrderedDict()

    def get(self, key: tuple[str, ...], make: Callable[[], SourceOutput]) -> SourceOutput:
        """The outputs under `key`, made if need be."""
        found = self._rows.get(key) or make()
        self._rows[key] = found
        self._rows.move_to_end(key)
        while len(self._rows) > 1 and sum(map(_bytes, self._rows.values())) > self.limit:
            self._rows.popitem(last=False)
        return found


@final
class Live:
    """Runs the source every time."""

    def __init__(
        self,
        program: Program,
        *,
        autocast: torch.dtype | None = None,
        forward: "Callable[..., SourceOutput] | None" = None,
        cache: OutputCache | None = None,
    ) -> None:
        self._program = program
        self._cache = cache
        self._autocast = autocast
        self._forward = forward
        self._known = ""

    def outputs(self, split: Split, index: Tensor, augment: str = "none") -> SourceOutput:
        """Fetch, augment, edit, forward."""
        source = self._program.source
        x = augmented(split.fetch(index), augment).to(source.device)
        with self._precision(source.device):
            program = self._program
            out = program.outputs(x, self._plain(split, index, augment)) if self._forward is None \
                else self._forward(x, program.input, program.output.reading)  # fmt: skip
        return out if self._autocast is None else _precise(out)

    def _plain(self, split: Split, index: Tensor, augment: str) -> SourceOutput | None:
        """What the source says without edits, which no step can change: computed once, unless pictures change."""
        program, cache = self._program, self._cache
        if not program.output.reading.plain or augment != "none" or cache is None:
            return None
        self._known = self._known or program.source.fingerprint()
        shaped = Input(*(e for e in program.input if not e.operators))
        key = (self._known, input_digest(shaped), split.digest(), "plain", repr(program.output.reading))
        whole = cache.get(key, lambda: self._all_plain(split))
        return rows(whole, index.to(program.source.device))

    def _all_plain(self, split: Split) -> SourceOutput:
        size, device = scoring_batch(self._program.source.device), self._program.source.device
        starts = range(0, len(split), size)
        batches = [torch.arange(start, min(len(split), start + size)) for start in starts]
        return joined([self._program.plain(split.fetch(index).to(device)) for index in batches])

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, self._autocast) if self._autocast else nullcontext()


@final
class Cached:
    """Runs the source once per split."""

    def __init__(self, program: Program, cache: OutputCache) -> None:
        self._live = Live(program)
        self._program = program
        self._cache = cache
        self._batch = scoring_batch(program.source.device)
        self._source = program.source.fingerprint()
        self._input = input_digest(program.input)

    def outputs(self, split: Split, index: Tensor, augment: str = "none") -> SourceOutput:
        """Rows of the outputs computed before; `augment` has no meaning here."""
        reads = repr(self._program.output.reading)
        whole = self._cache.get((self._source, self._input, split.digest(), reads), lambda: self._all(split))
        return rows(whole, index.to(self._program.source.device))

    @torch.no_grad()
    def _all(self, split: Split) -> SourceOutput:
        batches = alike(split, self._batch)
        with evaluating(self._program):
            said = [self._read(self._live.outputs(split, index)) for index in batches]
        if not said:
            return SourceOutput(scores=torch.empty(0, self._program.source.spec.outputs))
        back = torch.cat(batches).argsort().to(self._program.source.device)
        return rows(joined(said), back)

    def _read(self, said: SourceOutput) -> SourceOutput:
        """What the output reads: an output of features has no use for the scores of a whole vocabulary."""
        return replace(said, scores=None) if self._program.output.reads_features else said


@final
class LookedOnce:
    """Pictures looked at once, for programs on an image-text source that learn nothing at the image side.

    Of a recipe that augments, `views` of each picture are kept: the first of them as it is, the others augmented. A
    step draws one for each picture; without further views, augmentation has no meaning here.
    """

    def __init__(self, program: Program, source: ImageTextSource, cache: OutputCache, views: int = 1) -> None:
        self._program, self._source, self._cache, self._views = program, source, cache, views
        self._batch = scoring_batch(source.device)
        self._known = source.fingerprint()

    def outputs(self, split: Split, index: Tensor, augment: str = "none") -> SourceOutput:
        """Rows of what was seen, compared with the texts as they are now."""
        reading = self._program.output.reading
        index = index.to(self._source.device)
        views = self._views if augment != "none" else 1
        seen = rows(self._seen(split, 0, "none"), index)
        if views > 1:
            which = torch.randint(0, views, (len(index),)).to(index.device)
            for view in range(1, views):
                mine = which == view
                if bool(mine.any()):
                    seen = placed(seen, mine, rows(self._seen(split, view, augment), index[mine]))
        return self._source.compare(seen, self._program.input, reading)

    def _seen(self, split: Split, view: int, augment: str) -> SourceOutput:
        reading = self._program.output.reading
        looks = repr((reading.local, reading.sites, reading.plain))
        images = Input(*(e for e in self._program.input if not e.site.startswith("text.")))
        key = (self._known, input_digest(images), split.digest(), "seen", looks, augment, str(view))
        return self._cache.get(key, lambda: self._look(split, view, augment))

    @torch.no_grad()
    def _look(self, split: Split, view: int, augment: str) -> SourceOutput:
        reading, found = self._program.output.reading, list[SourceOutput]()
        with evaluating(self._program), torch.random.fork_rng(devices=[]):
            torch.manual_seed(view)
            for start in range(0, len(split), self._batch):
                index = torch.arange(start, min(len(split), start + self._batch))
                x = augmented(split.fetch(index), augment).to(self._source.device)
                assert isinstance(x, Tensor)
                said = self._source.look(x, self._program.input, reading)
                found.append(replace(said, plain=self._program.plain(x)) if reading.plain else said)
        return joined(found) if found else SourceOutput(features=torch.empty(0, self._source.spec.width or 0))


SHARED = OutputCache()


def feed_for(
    program: Program, *, autocast: torch.dtype | None = None, cache: OutputCache | None = None,
    forward: "Callable[..., SourceOutput] | None" = None, views: int = 1,
) -> Feed:  # fmt: skip
    """What gives a program its source's outputs with as little work as its input allows.

    `Cached` if the input learns nothing and the source answers once for each input (what it holds inside is not kept),
    `LookedOnce` if it learns at the text side of an image-text source only, else `Live`.
    """
    cache, source = SHARED if cache is None else cache, program.source
    learning = [e for e in program.input if learns(e)]
    if not learning and not (program.output.reading.tokens or program.output.reading.sites):
        return Cached(program, cache)
    if isinstance(source, ImageTextSource) and autocast is None and all(e.site.startswith("text.") for e in learning):
        return LookedOnce(program, source, cache, views)
    return Live(program, autocast=autocast, forward=forward, cache=cache)


def scoring_batch(device: torch.device) -> int:
    """Inputs to a forward pass without gradients.

    On a CPU larger batches fall out of the caches: on EfficientNet-Lite0
    at 128 px, 128 inputs at once took 1.3 times the time per input that 32 took.
    """
    return 32 if device.type == "cpu" else 256


def input_digest(input: Input) -> str:
    """Hash of the edits' kinds, settings and state."""
    digest = hashlib.sha256(repr(input).encode())
    for name, value in input.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def augmented(x: Batch, kind: str) -> Batch:
    """Random flips, and for "crop" also a random shift by up to an eighth of the size, images [B, C, H, W]."""
    if kind == "none" or not isinstance(x, Tensor) or x.ndim != 4:
        return x
    flip = torch.rand(len(x)) < 0.5
    x = torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)
    if kind == "flip":
        return x
    height, width = x.shape[-2:]
    dy, dx = max(1, height // 8), max(1, width // 8)
    wide = F.pad(x, (dx, dx, dy, dy))
    top, left = torch.randint(0, 2 * dy + 1, (len(x),)), torch.randint(0, 2 * dx + 1, (len(x),))
    return torch.stack(
        [w[:, t : t + height, s : s + width] for w, t, s in zip(wide, top.tolist(), left.tolist(), strict=True)]
    )


def _precise(said: SourceOutput) -> SourceOutput:
    whole = {name: value.float() if value.is_floating_point() else value for name, value in parts(said).items()}
    return with_parts(said, whole)


def _bytes(rows: SourceOutput) -> int:
    texts = sum(len(w.text) for several in rows.written or () for w in several)
    more = 0 if rows.plain is None else _bytes(rows.plain)
    return sum(t.numel() * t.element_size() for t in (*parts(rows).values(), *rows.at.values())) + texts + more
