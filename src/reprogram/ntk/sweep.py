"""One forward and T input-only backward passes over a tile of samples: all that any kernel here needs of the model.

No gradient of a weight is computed, and nothing is vectorised over samples: eval mode keeps them apart, so the gradient
of a sum over the batch is every sample's own. The output map is part of what is differentiated, so a fixed label
mapping costs T passes and not S.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from reprogram.core.errors import CapabilityError, DataError, say
from reprogram.core.program import Edit, Input, Program, evaluating, learns
from reprogram.core.source import Capability, Source, SourceOutput, local_module
from reprogram.core.taxonomy import Location
from reprogram.ntk.pull import Pulled, output_rows, pulled
from reprogram.ntk.recording import Recording
from reprogram.ntk.uses import Watch

CHUNK = 16
"""Samples to a forward pass; on a CPU larger tiles were no faster and took more memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """What one pass gave for B samples: source scores [B, S], target scores [B, T], the learned parts' derivatives."""

    said: Tensor
    scores: Tensor
    parts: dict[str, Pulled]


@final
class _Tap(Edit):
    """An edit whose results autograd can be asked about, without a gradient of its parameters."""

    def __init__(self, edit: Edit, hidden: bool) -> None:
        super().__init__()
        self.edit, self.site, self.operators, self.hidden = edit, edit.site, edit.operators, hidden
        self.calls: list[tuple[Tensor, Tensor | GradientEdge]] = []
        self.open = True  # a checkpointed block is run again in backward, which is no further call

    def forward(self, value: Tensor) -> Tensor:
        """The edited value."""
        if value.requires_grad:  # another learned edit is upstream
            result = self.edit(value)
            self._note(value, get_gradient_edge(result))
            return result
        with torch.no_grad():
            result = self.edit(value)
        result = result.detach().requires_grad_()
        self._note(value, result)
        return result.clone() if self.hidden else result  # a layer may write into what it is given

    def _note(self, value: Tensor, place: Tensor | GradientEdge) -> None:
        if self.open:
            self.calls.append((value.detach(), place))


def sweep(
    program: Program, x: Tensor, *, chunk: int = CHUNK, recording: Recording | None = None, learned: bool = True
) -> Iterator[Tile]:
    """Go over samples tile by tile.

    Args:
        program: in any mode; it is swept in eval mode.
        x: [N, ...], as `Split.fetch` gives them.
        chunk: samples to a tile.
        recording: what is to be kept of the source's own operations.
        learned: False leaves the program's own learned numbers out.

    Raises:
        CapabilityError: the source gives no gradients, or couples the samples of a batch; or something is learned about
            the class texts, or repeats samples.
        DataError: scores or gradients that are not finite.
    """
    check_source(program.source)
    texts = [e.site for e in program.input if e.site.startswith("text.") and learns(e)]
    if texts and learned:
        remedy = "Kernels are of what is learned in the samples themselves."
        raise CapabilityError(say("program", "must not learn at the text side to have a kernel", texts, remedy))
    with evaluating(program), exact_products():
        _check_apart(program, x[:3].to(program.source.device))
        start = 0
        while start < len(x):
            size = recording.tile(chunk) if recording is not None and recording.open else chunk
            part = x[start : start + size].to(program.source.device)
            yield _tile(program, part, recording, learned)
            start += size


def _tile(program: Program, x: Tensor, recording: Recording | None, learned: bool) -> Tile:
    sites = program.source.sites
    edits = [e if not (learned and learns(e)) else _Tap(e, sites[e.site] is not Location.INPUT) for e in program.input]
    mine = [e for e in edits if isinstance(e, _Tap)]
    watch = recording.watch() if recording is not None else None
    with torch.enable_grad():
        with watch if watch is not None else nullcontext():
            said = program.source(x, Input(*edits), program.output.reading)
        scores = program.output(said)
    for tap in mine:
        tap.open = False
    _check_finite(scores, "scores", program.source)
    anchors: list[Tensor | GradientEdge] = [place for tap in mine for _, place in tap.calls]
    grads = _backward(scores, anchors, watch and recording, watch)
    parts: dict[str, Pulled] = {}
    used = 0
    for number, edit in enumerate(edits):
        if isinstance(edit, _Tap):
            cotangents = grads[used : used + len(edit.calls)]
            used += len(edit.calls)
            parts[f"input.edits.{number}"] = pulled(edit.edit, [v for v, _ in edit.calls], cotangents)
    if learned and learns(program.output):
        parts["output"] = output_rows(program.output, _detached(said))
    for name, part in parts.items():
        _check_finite(part.rows, f"gradients of {name}", program.source)
    return Tile(said.logits.detach(), scores.detach(), parts)


def _backward(
    scores: Tensor, anchors: list[Tensor | GradientEdge], recording: Recording | None, watch: Watch | None
) -> list[Tensor]:
    """Gradients of the T scores at every anchor, [B, T, ...] each; the recording takes its own as they come."""
    places = [*anchors, *(recording.places(watch) if recording is not None else [])]
    targets = scores.shape[1]
    found: list[list[Tensor | None]] = []
    for t in range(targets if places and scores.requires_grad else 0):
        grads = torch.autograd.grad(scores[:, t].sum(), places, retain_graph=t < targets - 1, allow_unused=True)
        found.append(list(grads[: len(anchors)]))
        if recording is not None:
            recording.take(grads[len(anchors) :], len(scores))
    if recording is not None:
        recording.close_tile(len(scores))
    return [_stacked(row) for row in zip(*found, strict=True)] if found else [torch.empty(0) for _ in anchors]


def _stacked(row: Sequence[Tensor | None]) -> Tensor:
    known = next((g for g in row if g is not None), None)
    if known is None:
        return torch.empty(0)
    return torch.stack([torch.zeros_like(known) if g is None else g for g in row], 1)


def check_source(source: Source) -> None:
    """Refuse a source that has no gradients, or whose answer for one sample depends on the others.

    Raises:
        CapabilityError: it is such a source; the message says which layer.
    """
    if Capability.GRADIENTS not in source.capabilities:
        remedy = "ntk.zeroth_order_kernel estimates a kernel from outputs alone."
        raise CapabilityError(say("source", "must give gradients for a kernel", source.spec.ref, remedy))
    module = local_module(source)
    for path, layer in module.named_modules() if module is not None else ():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise CapabilityError(say(path, "must not use the statistics of the batch, which couple its samples",
                                      "a batch norm without running statistics"))  # fmt: skip
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
            layer_path = f"{source.spec.ref}: {path}"
            raise CapabilityError(say(layer_path, "must be in eval mode, or its samples are coupled", "training mode",
                                      "Call module.eval()."))  # fmt: skip


@torch.no_grad()
def _check_apart(program: Program, x: Tensor) -> None:
    """The first sample's scores must be its own, and the same every time."""
    if len(x) < 3:
        return
    one, other = program(x[[0, 1]])[:1].double(), program(x[[0, 2]])[:1].double()  # batches of one size round alike
    off = float((one - other).abs().max())
    loose = 1e3 * max(precision_of(program), torch.finfo(torch.float32).eps)
    if off > loose * max(1e-3, float(one.abs().max())):
        message = say("scores of one sample", "must not depend on the rest of the batch, nor on chance",
                      f"a difference of {off:.2g} beside another sample")  # fmt: skip
        raise CapabilityError(message)


def precision_of(program: Program) -> float:
    """The coarsest float arithmetic between a program's input and its scores, as eps."""
    kinds = [p.dtype for p in program.parameters()]
    module = local_module(program.source)
    if module is not None:
        kinds += [p.dtype for p in module.parameters()]
    return max((torch.finfo(k).eps for k in kinds if k.is_floating_point), default=torch.finfo(torch.float32).eps)


@contextmanager
def exact_products() -> Generator[None]:
    """Full float32 products: TF32 keeps 10 bits, which would be the kernel's noise."""
    before = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


def _detached(said: SourceOutput) -> SourceOutput:
    scores, features = (None if v is None else v.detach() for v in (said.scores, said.features))
    return SourceOutput(scores=scores, features=features)


def _check_finite(values: Float[Tensor, " *shape"], what: str, source: Source) -> None:
    if not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).flatten(1).any(1).sum())
        remedy = "Look for overflow (half precision?) and for samples that are not pictures."
        raise DataError(say(what, f"must be finite for a kernel of {source.spec.ref}", f"{bad} samples that are not",
                            remedy))  # fmt: skip
