"""Where a fit's source outputs come from: computed batch by batch, or once and for all if I learns nothing."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from reprogram.core.program import Input, Program
from reprogram.core.source import SourceOutput
from reprogram.core.texts import Batch
from reprogram.fit.batches import alike
from reprogram.tasks import Split

CACHE_BYTES = 2 << 30


@runtime_checkable
class Feed(Protocol):
    """Gives the source's outputs for rows of a split."""

    def outputs(self, split: Split, index: Tensor, augment: str = "none") -> SourceOutput:
        """Outputs for the rows `index` [B]."""
        ...


@final
class Live:
    """Runs the source every time."""

    def __init__(
        self,
        program: Program,
        *,
        autocast: torch.dtype | None = None,
        forward: "Callable[..., SourceOutput] | None" = None,
    ) -> None:
        self._program = program
        self._autocast = autocast
        self._forward = forward

    def outputs(self, split: Split, index: Tensor, augment: str = "none") -> SourceOutput:
        """Fetch, augment, edit, forward."""
        source = self._program.source
        x = _augmented(split.fetch(index), augment).to(source.device)
        with self._precision(source.device):
            program = self._program
            out = program.outputs(x) if self._forward is None \
                else self._forward(x, program.input, program.output.reading)  # fmt: skip
        return out if self._autocast is None else _precise(out)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, self._autocast) if self._autocast else nullcontext()


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
        rows = self._cache.get((self._source, self._input, split.digest(), reads), lambda: self._all(split))
        return _rows(rows, index.to(self._program.source.device))

    @torch.no_grad()
    def _all(self, split: Split) -> SourceOutput:
        training = self._program.training
        self._program.eval()
        batches = alike(split, self._batch)
        said = [self._read(self._live.outputs(split, rows)) for rows in batches]
        self._program.train(training)
        if not said:
            return SourceOutput(scores=torch.empty(0, self._program.source.spec.outputs))
        parts = [_parts(one) for one in said]
        whole = _said({name: torch.cat([p[name] for p in parts]) for name in parts[0]})
        texts = tuple(text for one in said for text in one.written or ()) if said[0].written is not None else None
        back = torch.cat(batches).argsort().to(self._program.source.device)
        return _rows(replace(whole, written=texts, exact=all(one.exact for one in said)), back)

    def _read(self, said: SourceOutput) -> SourceOutput:
        """What the output reads: an output of features has no use for the scores of a whole vocabulary."""
        return replace(said, scores=None) if self._program.output.reads_features else said


SHARED = OutputCache()


def feed_for(
    program: Program, *, autocast: torch.dtype | None = None, cache: OutputCache | None = None,
    forward: "Callable[..., SourceOutput] | None" = None,
) -> Feed:  # fmt: skip
    """`Cached` if the input learns nothing and the source answers once for each input, else `Live`."""
    if any(p.requires_grad for p in program.input.parameters()) or program.output.reading.tokens:
        return Live(program, autocast=autocast, forward=forward)
    return Cached(program, SHARED if cache is None else cache)


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


def _augmented(x: Batch, kind: str) -> Batch:
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


def _parts(said: SourceOutput) -> dict[str, Tensor]:
    """The tensors of it that have a row an input."""
    names = ("scores", "features", "continuations", "choices", "choice_tokens")
    return {name: value for name in names if (value := getattr(said, name)) is not None}


def _said(parts: dict[str, Tensor]) -> SourceOutput:
    return SourceOutput(**parts)  # type: ignore[arg-type]  # the names are its own


def _rows(said: SourceOutput, index: Tensor) -> SourceOutput:
    """Some rows of it."""
    chosen = _said({name: of_all[index] for name, of_all in _parts(said).items()})
    texts = None if said.written is None else tuple(said.written[i] for i in index.tolist())
    return replace(chosen, written=texts, exact=said.exact)


def _precise(said: SourceOutput) -> SourceOutput:
    tokens = said.token_scores if said.token_scores is None else said.token_scores.float()
    whole = {name: value.float() if value.is_floating_point() else value for name, value in _parts(said).items()}
    return replace(said, **whole, token_scores=tokens)  # type: ignore[arg-type]


def _bytes(rows: SourceOutput) -> int:
    texts = sum(len(w.text) for several in rows.written or () for w in several)
    return sum(t.numel() * t.element_size() for t in _parts(rows).values()) + texts
