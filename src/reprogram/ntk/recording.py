"""The source's own parameters: what a sweep recorded of them, and the Gram matrix made of it.

Operations are recorded for all samples and then turned into Gram matrices one after the other, so memory is the
inputs and gradients of the layers plus one tile of columns, never N * T * P.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reprogram.core.errors import CapabilityError, say
from reprogram.core.program import Program
from reprogram.core.source import Source, local_module
from reprogram.ntk.pull import flat_gradient
from reprogram.ntk.rules import RULES, WHOLE, Call, Operation, Piece, Positions, Product, one_target, pieces, prepared
from reprogram.ntk.spectrum import gram, product_gram
from reprogram.ntk.uses import Use, Watch

TILE = 5
"""Samples to a pass while recording."""


def module_of(source: Source) -> nn.Module:
    """The module behind a source.

    Raises:
        CapabilityError: it has none here, so its parameters cannot be differentiated.
    """
    module = local_module(source)
    if module is None:
        requirement = "must be a module in memory for a kernel of its parameters"
        raise CapabilityError(say("source", requirement, source.spec.ref, "Take the program kernel alone."))
    return module


@dataclass(slots=True, eq=False)
class _Held:
    """What is kept of one operation: rows [B, T, P] a tile, or pairs of inputs and gradients, a list a call."""

    rows: list[Tensor] = field(default_factory=list)
    calls: list[list[Call]] = field(default_factory=list)


@final
class Recording:
    """Collects what the Gram matrix of a module's operations needs, over a sweep.

    Where an operation has fewer parameters than results, its rows are made at once and the gradients let go; elsewhere
    inputs and gradients are kept until `gram`.

    Args:
        module: the source's.
        plan: operations to record; see `survey`.
        most: samples to record, the first ones; None for all.
    """

    def __init__(self, module: nn.Module, plan: frozenset[Operation], most: int | None = None) -> None:
        self.module, self.plan = module, plan
        self._sizes = {name: p.numel() for name, p in module.named_parameters()}
        self._left = most if most is not None else sys.maxsize
        self._held: dict[Operation, _Held] = defaultdict(_Held)
        self._inputs: dict[Operation, list[Use]] = {}
        self._rows: dict[Operation, list[Tensor]] = defaultdict(list)  # of this tile, [B, 1, P] a target
        self._grads: dict[Operation, list[list[Tensor]]] = defaultdict(list)  # of this tile, a list a target
        self._ready: dict[Operation, Tensor | None] = {}  # of this tile, inputs for `one_target`

    @property
    def open(self) -> bool:
        """More samples are wanted."""
        return self._left > 0

    def tile(self, chunk: int) -> int:
        """Samples that the next pass should take: few, because the gradients of all targets are held until it ends."""
        return min(chunk, TILE, self._left)

    def watch(self) -> Watch | None:
        """A mode to run the next tile's forward pass in, or None when enough samples are recorded."""
        return Watch(self.module, self.plan) if self.open else None

    def places(self, watch: Watch | None) -> list[Any]:
        """Where gradients are wanted, in the order of `take`."""
        self._inputs = defaultdict(list)
        for use in watch.uses if watch is not None else []:
            self._inputs[use.operation].append(use)
        return [u.edge for uses in self._inputs.values() for u in uses]

    def take(self, grads: Sequence[Tensor | None], batch: int) -> None:
        """Keep one target's gradients, [B, ...] each in the order of `places`; None where there is none."""
        left = iter(grads)
        for op, uses in self._inputs.items():
            mine = [_of(use, next(left)) for use in uses]
            rows = self._at_once(op, uses, mine)
            if rows is not None:
                self._rows[op].append(rows.unsqueeze(1))
            else:
                self._grads[op].append([_by_sample(g, batch).unsqueeze(1) for g in mine])

    def _at_once(self, op: Operation, uses: Sequence[Use], grads: Sequence[Tensor]) -> Tensor | None:
        if op in self._grads:  # an operation goes one way for all targets of a tile
            return None
        if op not in self._ready:
            can = len(uses) == 1 and self._is_reduced(op, grads)
            self._ready[op] = prepared(op, uses[0].value) if can else None
        value = self._ready[op]
        return None if value is None else one_target(op, value, grads[0])

    def close_tile(self, batch: int) -> None:
        """All targets of the tile have been taken."""
        for op, rows in self._rows.items():
            self._held[op].rows.append(torch.cat(rows, 1))
        while self._grads:
            op, by_target = self._grads.popitem()
            grads = [torch.cat(g, 1) for g in zip(*by_target, strict=True)]
            calls = [(_by_sample(u.value, batch), g) for u, g in zip(self._inputs[op], grads, strict=True)]
            if self._is_reduced(op, [g[:, 0] for g in grads]):
                rows = [cast("Tensor", piece) for piece in pieces(op, calls)]
                self._held[op].rows.append(torch.cat(rows, 2))
            else:
                self._held[op].calls.append(calls)
        self._inputs = {}
        self._ready.clear()
        self._rows.clear()
        self._left -= batch

    def _is_reduced(self, op: Operation, grads: Sequence[Tensor]) -> bool:
        """Rows are smaller than what they are made of, and can be joined over tiles; gradients are [B, ...]."""
        if op.kind == "embedding" or (op.kind == "linear" and grads[0].ndim == 2):
            return False
        return sum(self._sizes[n] for n in op.names()) < sum(g[0].numel() for g in grads)

    def gram(self) -> Tensor | None:
        """The sum of all operations' Gram matrices, [NT, NT] float64; each operation is let go once it is added."""
        total: Tensor | None = None
        while self._held:
            op, held = self._held.popitem()
            if held.rows:
                total = _add(total, torch.cat(held.rows))
                continue
            joined = [
                (torch.cat([v for v, _ in c]), torch.cat([g for _, g in c])) for c in zip(*held.calls, strict=True)
            ]
            del held
            for piece in pieces(op, joined):
                total = _add(total, piece)
        return total


def _of(use: Use, grad: Tensor | None) -> Tensor:
    """One target's gradient at a use."""
    return torch.zeros(use.shape, dtype=use.kind, device=use.value.device) if grad is None else grad


def _add(total: Tensor | None, piece: Piece) -> Tensor:
    if isinstance(piece, Product):
        part = product_gram(piece.rows, piece.factor)
    elif isinstance(piece, Positions):
        part = _over_positions(piece)
    else:
        part = gram(piece)
    return part if total is None else total.add_(part)


def _over_positions(piece: Positions) -> Tensor:
    """The Gram matrix of sums over positions, one sample against those up to it at a time."""
    values, grads = piece.values.double(), piece.grads.double()
    n, targets, out, positions = grads.shape
    result = values.new_zeros(n, targets, n, targets)
    stacked = grads.reshape(n, targets * out, positions)
    for i in range(n):
        meets = values[: i + 1] @ values[i].T  # [m, L, L]: inputs of the others against this one's
        moved = torch.bmm(stacked[: i + 1], meets).view((i + 1) * targets, out * positions)
        rows = (grads[i].reshape(targets, -1) @ moved.T).view(targets, i + 1, targets)
        result[i, :, : i + 1] = rows
        result[: i + 1, :, i] = rows.permute(1, 2, 0)
    return result.view(n * targets, -1)


def survey(program: Program, x: Tensor) -> tuple[frozenset[Operation], list[str]]:
    """Find out which operations can be recorded, on a few samples.

    A parameter goes by the rules if every use of it is one operation's, and if the first sample's scores have no
    gradient in what the operation keeps for the other samples (so the batch comes first there).

    Args:
        program: what is to be swept.
        x: up to three samples, [B, ...].

    Returns:
        Operations, and the names of the parameters left over.
    """
    module = module_of(program.source)
    watch = Watch(module)
    with torch.enable_grad(), watch:
        said = program.source(x, program.input, program.output.reading)
    with torch.enable_grad():
        first = program.output(said)[0].sum()
    uses = watch.uses
    places: list[Any] = [u.edge for u in uses]
    grads = torch.autograd.grad(first, places, allow_unused=True) if uses and first.requires_grad else []
    bad = {u.operation for u, g in zip(uses, grads, strict=True) if not _batch_first(u, g, len(x))}
    owners: dict[str, set[Operation]] = defaultdict(set)
    for use in uses:
        for name in use.operation.names():
            owners[name].add(use.operation)
    for name, ops in owners.items():
        if len(ops) > 1 or name in watch.strange:
            bad |= ops
    good = frozenset(u.operation for u in uses) - bad
    done = {name for op in good for name in op.names()}
    return good, [name for name, _ in module.named_parameters() if name not in done]


def _batch_first(use: Use, grad: Tensor | None, batch: int) -> bool:
    rows = len(use.value)
    if use.operation.kind not in RULES or rows % batch or (use.operation.kind in WHOLE and rows != batch):
        return False
    if grad is None:
        return True
    return len(grad) % batch == 0 and not bool(grad[len(grad) // batch :].any())


def _by_sample(value: Tensor, batch: int) -> Tensor:
    """[B, ...] from (samples x anything, ...)."""
    return value if len(value) == batch else value.reshape(batch, -1, *value.shape[1:])


def rest_gram(program: Program, x: Tensor, names: Sequence[str]) -> Tensor:
    """The Gram matrix of parameters without a rule, one output of one sample at a time: right for every module, slow.

    Args:
        program: swept.
        x: [N, ...].
        names: parameters of the source's module.

    Raises:
        CapabilityError: the module cannot be called with other parameters than its own.
    """
    module = module_of(program.source)
    own = dict(module.named_parameters())
    numbers = {name: own[name].detach().clone().requires_grad_() for name in names}
    rows: list[Tensor] = []
    for sample in x.to(program.source.device).split(1):
        scores = _with(program, module, numbers, sample)[0]
        rows.append(torch.stack([flat_gradient(score, list(numbers.values())) for score in scores]))
    return gram(torch.stack(rows))


def _with(program: Program, module: nn.Module, numbers: dict[str, Tensor], x: Tensor) -> Tensor:
    """Scores with some of the source's parameters replaced, for this call only."""

    class Replaced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source = module

        def forward(self, x: Tensor) -> Tensor:
            return program(x)

    named: dict[str, Tensor] = {f"source.{name}": value for name, value in numbers.items()}
    try:
        with torch.enable_grad():
            return cast("Tensor", functional_call(Replaced(), named, (x,)))
    except (RuntimeError, TypeError) as problem:
        message = say("source", "must be a module whose parameters can be stood in for", type(module).__name__,
                      f"It said: {problem}")  # fmt: skip
        raise CapabilityError(message) from problem
