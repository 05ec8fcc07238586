"""Any `torch.nn.Module` as a source: normalisation, sites by module path, hooks that are set once.

Value flow for images, x in [0, 1]: edits at "input" -> normalise -> edits at "normalised" -> the module, whose own
sites are "hidden.i" (what block i reads) and every module's path (what that module returns).
"""

import copy
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, SourceError, say
from reprogram.core.program import Input
from reprogram.core.slot import Slot
from reprogram.core.source import Capability, Preprocessing, Reading, SourceOutput, SourceSpec
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Batch
from reprogram.media.images import Samples, as_samples
from reprogram.sources._frozen import EditSites, fingerprint, freeze

Sites = str | Sequence[str] | None

_HALF = (torch.bfloat16, torch.float16)
"""Modules of these types are given what they can read; `autocast` is for the others."""


@dataclass(slots=True, eq=False)
class _Call:
    """One forward pass: the edits its hooks apply, and where hooks leave what they saw."""

    input: Input
    wanted: tuple[str, ...] = ()
    features: Tensor | None = None
    at: dict[str, Tensor] = field(default_factory=lambda: {})

    def __call__(self, value: Any, site: str) -> Any:
        """The edited value at a site, kept if it is wanted."""
        value = self.input(value, site)
        if site in self.wanted:
            self.at[site] = value
        return value


@final
class ModuleSource:
    """A frozen module with sites. Make one with `wrap` or `load_source`.

    The module is switched to eval mode and its parameters no longer require gradients; several sources and programs
    may share it. Calls from several threads do not see each other's edits.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: SourceSpec,
        *,
        blocks: Sequence[str] = (),
        head: str = "",
        tokens: bool | str = False,
    ) -> None:
        self.module = freeze(module)
        self._blocks = tuple(blocks)
        self._head = head
        self.spec = replace(spec, depth=len(self._blocks))
        self._slot = Slot[_Call]()
        self._hooks = EditSites(module, self._blocks, self._bound, embedding=tokens)
        sites = {"input": Location.INPUT, "normalised": Location.INPUT, **self._hooks.sites}
        self.sites: Mapping[str, Location] = MappingProxyType(sites)
        self._tokens = tokens
        self._keeps_features = False
        can = {Capability.GRADIENTS, Capability.HIDDEN_SITES}
        can |= {Capability.FEATURES} if head else set()
        can |= {Capability.TOKEN_INSERTION} if tokens else set()
        self.capabilities = frozenset(can)
        first = next(module.parameters(), None)
        self._kind = first.dtype if first is not None else torch.float32
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (spec.preprocessing.mean, spec.preprocessing.std))
        self._scale, self._shift = (1 / std).to(self.device), (-mean / std).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the module's first parameter is."""
        first = next(self.module.parameters(), None)
        return first.device if first is not None else torch.device("cpu")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Paths of the modules that read "hidden.0", "hidden.1", ...; as sites, what those modules return."""
        return self._blocks

    def fingerprint(self) -> str:
        """SHA-256 over the names, types, shapes and bytes of all parameters and buffers, 64 hex digits."""
        return fingerprint(self.module)

    def to(self, device: torch.device | str) -> "ModuleSource":
        """Move the module (in place) and return the source."""
        self.module.to(device)
        self._scale, self._shift = self._scale.to(device), self._shift.to(device)
        return self

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        """Set the hooks of these sites, once; `core.Program` calls it when it is built.

        Raises:
            CapabilityError: a site is unknown, or features are wanted of a module without a linear head.
        """
        for site in (*sites, *reading.sites):
            if site not in ("input", "normalised"):
                self._hooks.attach(site)
        _check_reading(reading, self.spec)
        if reading.features and not self._keeps_features:
            if not self._head:
                raise CapabilityError(say("source", "must have a linear head to give features", self.spec.ref))
            self.module.get_submodule(self._head).register_forward_pre_hook(self._keep_features())
            self._keeps_features = True

    @contextmanager
    def editing(self, input: Input) -> Generator[None]:
        """Bind an input's hidden edits in this thread, for code that calls `source.module` itself."""
        with self._slot.bind(_Call(input)):
            yield

    def prepare(self, inputs: object, sample: Sample | None) -> Samples:
        """Paths, pictures, arrays or tensors as image tensors of the sample's shape (default: the source's own)."""
        return as_samples(inputs, sample or Sample(shape=self.spec.input_shape))

    def __call__(self, x: Batch, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """`f(I(x))` for images [B, channel, height, width] in [0, 1] (floats) or 0..255 (uint8)."""
        if not isinstance(x, Tensor):
            raise CapabilityError(say("source", "must be a language model to read texts", self.spec.ref))
        if self.module.training:  # somebody called train() on the module they wrapped
            self.module.eval()
        call = _Call(input, reading.sites)
        ready = self._ready(x, call)
        if not reading.features and not reading.sites and all(e.site in ("input", "normalised") for e in input):
            return SourceOutput(scores=_scores(self.module(ready)))
        with self._slot.bind(call):
            scores = _scores(self.module(ready))
        for value in (scores, call.features, *call.at.values()):  # whichever the loss is made of
            if value is not None:
                self._slot.hold(call, value)
        return SourceOutput(scores=scores, features=call.features, at=call.at)

    def _ready(self, x: Tensor, act: Callable[[Any, str], Any]) -> Tensor:
        """What the module reads: the edits before it applied, pixels normalised."""
        x = x.float().div_(255) if x.dtype is torch.uint8 else x
        x = act(x, "input")
        x = torch.addcmul(self._shift, x, self._scale) if x.ndim == 4 else x
        x = act(x, "normalised")
        if x.ndim == 4 and x.is_floating_point():
            x = x.to(self._kind if self._kind in _HALF else x.dtype).contiguous(memory_format=torch.channels_last)
        return x

    def randomised(self, seed: int = 0, *, calibrate: Tensor | None = None) -> "ModuleSource":
        """A twin with the same architecture and random weights: the control for "the pretrained weights matter".

        Args:
            seed: of the weights.
            calibrate: images [N, *input_shape] to take batch norm statistics from. Without them they are 0 and 1, with
                which the signal of a deep random network dies or explodes: a weaker control than need be.

        Raises:
            SourceError: a parameter belongs to a module that cannot initialise itself.
        """
        twin = _bare_copy(self.module)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for path, module in twin.named_modules():
                reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)  # torch's own convention
                if callable(reset):
                    reset()
                elif next(module.parameters(recurse=False), None) is not None:
                    raise SourceError(say(path or "module", "must have `reset_parameters` to be randomised", module))
        made = ModuleSource(twin, replace(self.spec, ref=f"{self.spec.ref}@random-{seed}", accuracy=None),
                            blocks=self._blocks, head=self._head, tokens=self._tokens)  # fmt: skip
        if calibrate is not None:
            _calibrate(made, calibrate)
        return made

    def _bound(self) -> _Call | None:
        return self._slot.current()

    def _keep_features(self) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            call = self._slot.current()
            if call is not None:
                call.features = args[0]

        return hook


def wrap(
    module: nn.Module,
    *,
    input_shape: tuple[int, ...],
    labels: Sequence[str] | None = None,
    preprocess: Preprocessing | tuple[Sequence[float], Sequence[float]] | None = None,
    sites: Sites = None,
    tokens: bool | str = False,
    **facts: Any,
) -> ModuleSource:
    """Any module that maps images [B, *input_shape] to class scores [B, S] as a frozen source.

    Args:
        module: switched to eval mode and frozen, in place.
        input_shape: (channel, height, width) it reads.
        labels: S human names of its classes.
        preprocess: `Preprocessing`, or (mean, std) per channel, applied to pixels in [0, 1]; None for no change.
        sites: glob patterns of module paths whose matches, in order, become "hidden.0", "hidden.1", ... ("layer*.*").
            Every module's path is a site in any case.
        tokens: the blocks read sequences [B, tokens, d] that start with a class token, which is what the head reads: a
            vision transformer. Gives the site "embedding" (what the first block reads), where tokens may be added. Or
            the path of the module that reads them first, where that is not the first block.
        facts: further fields of `SourceSpec`: `ref`, `resizable`, `width`, `accuracy`.

    Raises:
        SourceError: the module does not map such inputs to [B, S], or labels or sites do not match it.
    """
    if not isinstance(preprocess, Preprocessing):
        mean, std = preprocess or ((0.0,) * input_shape[0], (1.0,) * input_shape[0])
        preprocess = Preprocessing(mean=tuple(mean), std=tuple(std))
    if len(preprocess.mean) != len(preprocess.std) or len(preprocess.mean) not in (1, input_shape[0]):
        got = (preprocess.mean, preprocess.std)
        raise SourceError(say("preprocess", f"must give a mean and a std for {input_shape[0]} channels", got))
    module.eval()
    outputs = _dry_run(module, input_shape)
    if labels is not None and len(labels) != outputs:
        raise SourceError(say("labels", f"must name the {outputs} outputs", f"{len(labels)} names"))
    name = f"module:{type(module).__name__}"
    spec = SourceSpec(ref=facts.pop("ref", name), modality="image", input_shape=input_shape, outputs=outputs,
                      labels=tuple(labels) if labels else None, preprocessing=preprocess, **facts)  # fmt: skip
    blocks = _matching(module, sites)
    return ModuleSource(module, spec, blocks=blocks, head=_linear_head(module, outputs), tokens=tokens)


def _check_reading(reading: Reading, spec: SourceSpec) -> None:
    got = f"{spec.ref} ({spec.modality})"
    if reading.tokens or reading.continuations:
        raise CapabilityError(say("source", "must be a language model to score tokens", got))
    if reading.texts or reading.local:
        raise CapabilityError(say("source", "must compare pictures with texts to read class texts", got))


def _dry_run(module: nn.Module, shape: tuple[int, ...]) -> int:
    first = next(module.parameters(), None)
    zeros = torch.zeros(1, *shape, dtype=first.dtype if first is not None else None,
                        device=first.device if first is not None else None)  # fmt: skip
    try:
        with torch.no_grad():
            scores = _scores(module(zeros))
    except (RuntimeError, ValueError, TypeError, IndexError) as problem:
        remedy = f"The module itself said: {problem}"
        raise SourceError(say("input_shape", "must be a shape the module reads", shape, remedy)) from problem
    if scores.ndim != 2:
        raise SourceError(say("module", "must return class scores [B, S]", list(scores.shape)))
    return scores.shape[1]


def _scores(result: Any) -> Tensor:
    if isinstance(result, Tensor):
        return result
    if isinstance(result, tuple) and result and isinstance(result[0], Tensor):
        return result[0]
    logits = getattr(result, "logits", None)  # transformers' model outputs
    if isinstance(logits, Tensor):
        return logits
    raise SourceError(say("module", "must return a tensor, a tuple that starts with one, or `.logits`", type(result)))


def _matching(module: nn.Module, patterns: Sites) -> tuple[str, ...]:
    """Paths of modules that match, in the module's own order. `*` does not cross a dot."""
    wanted = [patterns] if isinstance(patterns, str) else list(patterns or ())
    paths = [p for p, _ in module.named_modules() if p]
    found = [p for p in paths for w in wanted if p.count(".") == w.count(".") and fnmatchcase(p, w)]
    if wanted and not found:
        tops = [f"{n}.*" for n, m in module.named_children() if len(list(m.children())) > 1]
        raise SourceError(say("sites", f"must match module paths, for example {tops}", wanted))
    return tuple(dict.fromkeys(found))


def _linear_head(module: nn.Module, outputs: int) -> str:
    """Path of the last linear layer if it makes the scores, else empty."""
    linear = [(p, m) for p, m in module.named_modules() if isinstance(m, nn.Linear)]
    return linear[-1][0] if linear and linear[-1][1].out_features == outputs else ""


@torch.no_grad()
def _calibrate(source: ModuleSource, images: Tensor) -> None:
    """Batch norm statistics from images."""
    norms = [m for m in source.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms or len(images) < 2:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    try:
        source(images.to(source.device), Input())
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _bare_copy(module: nn.Module) -> nn.Module:
    """A deep copy without the hooks, which would read the slot of the source they were set by."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
    return twin
