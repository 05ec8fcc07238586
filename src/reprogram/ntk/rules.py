"""The derivative of one operation's parameters, from its inputs and the gradients at its results.

For a weight W that meets an input a and whose result has the gradient g, one sample's derivative is ``sum over
positions of g a^T``. It is made a tile of columns at a time, so that the Gram matrix can add it up and drop it. A dense
layer without positions needs not even that: the Gram of outer products is the product of two small Grams.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = 1 << 22
"""Numbers in a tile of rows (32 MB in float64)."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A way a module uses parameters: what kind, which weight and bias, with what settings. Calls of it add up."""

    kind: str
    weight: str | None
    bias: str | None
    settings: tuple[Any, ...] = ()

    def names(self) -> list[str]:
        """The parameters."""
        return [n for n in (self.weight, self.bias) if n is not None]


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """Rows [N, T, R] and factors [N, Q] whose outer products are derivatives."""

    rows: Tensor
    factor: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Inputs [N, L, I] and gradients [N, T, O, L] of L positions whose sum of outer products, I * O numbers, is large.

    ``<sum_l g_l a_l^T, sum_k g'_k a'_k^T> = sum_lk <a_l, a'_k> <g_l, g'_k>``: cheaper than the products themselves
    where the positions are few.
    """

    values: Tensor
    grads: Tensor


Piece = Tensor | Product | Positions
Call = tuple[Tensor, Tensor]
"""An input [N, ...] and the gradients [N, T, ...] at the result, all samples together."""


def _linear(op: Operation, calls: Sequence[Call]) -> Iterator[Piece]:
    if len(calls) == 1 and calls[0][0].ndim == 2:
        value, grad = calls[0]
        yield Product(grad, F.pad(value, (0, 1), value=1.0) if op.bias else value)
        return
    value, grad = _side_by_side(calls)
    n, targets, _, out = grad.shape
    if _few_positions(targets, value.shape[1], value.shape[2], out):
        yield Positions(value, grad.transpose(2, 3))
        if op.bias:
            yield grad.sum(2)
        return
    step = max(1, COLUMNS // (n * targets * value.shape[-1]))
    for start in range(0, out, step):
        part = grad[..., start : start + step].transpose(2, 3).flatten(1, 2)  # [N, T out, L]
        yield torch.bmm(part, value).view(n, targets, -1)
    if op.bias:
        yield grad.sum(2)


def _few_positions(targets: int, positions: int, inner: int, outer: int) -> bool:
    """Whether `Positions` costs less than rows, for a pair of samples; its small products run at half the speed."""
    few = positions**2 * inner + targets * positions * (positions + targets) * outer
    return 2 * few < targets**2 * inner * outer


def _side_by_side(calls: Sequence[Call]) -> Call:
    """All calls' positions in a row: [N, L, in] and [N, T, L, out]."""
    values = [v.reshape(g.shape[0], -1, v.shape[-1]) for v, g in calls]
    grads = [g.reshape(*g.shape[:2], -1, g.shape[-1]) for _, g in calls]
    return torch.cat(values, 1), torch.cat(grads, 2)


def _conv(op: Operation, calls: Sequence[Call]) -> Iterator[Piece]:
    groups = op.settings[-1]
    pairs = [(_patches(op, v), g.reshape(*g.shape[:2], groups, g.shape[2] // groups, -1)) for v, g in calls]
    columns = torch.cat([p for p, _ in pairs], 3)  # [N, groups, in / groups * kernel, L]
    grad = torch.cat([g for _, g in pairs], 4)  # [N, T, groups, out / groups, L]
    n, targets, _, out, _ = grad.shape
    if op.bias:
        yield grad.sum(-1).flatten(2)
    step = max(1, COLUMNS // (n * targets * columns.shape[2]))
    if groups == 1 and _few_positions(targets, columns.shape[3], columns.shape[2], out):
        yield Positions(columns[:, 0].transpose(1, 2), grad[:, :, 0])
        return
    if groups == 1:
        turned = columns[:, 0].transpose(1, 2)
        for start in range(0, out, step):
            part = grad[:, :, 0, start : start + step].flatten(1, 2)  # [N, T out, L]
            yield torch.bmm(part, turned).view(n, targets, -1)
        return
    step = max(1, step // out)
    for start in range(0, groups, step):
        some = slice(start, start + step)
        left = grad[:, :, some].transpose(1, 2).flatten(2, 3).flatten(0, 1)  # [N groups, T out, L]
        right = columns[:, some].flatten(0, 1).transpose(1, 2)  # [N groups, L, K]
        rows = torch.bmm(left, right).view(n, -1, targets, out * right.shape[-1])
        yield rows.transpose(1, 2).flatten(2)


def _patches(op: Operation, value: Tensor) -> Tensor:
    """What each position of the result reads, [N, groups, in / groups * kernel, L]."""
    kernel, stride, pads, dilation, groups = op.settings
    flat_pads = [p for pair in reversed(pads) for p in pair]
    value = F.pad(value, flat_pads) if any(flat_pads) else value
    if value.ndim == 3:  # one dimension is two with a height of 1
        value = value.unsqueeze(2)
        kernel, stride, dilation = ((1, *k) for k in (kernel, stride, dilation))
    if kernel == (1, 1):
        flat = value[..., :: stride[0], :: stride[1]].flatten(2)
    else:
        flat = F.unfold(value.contiguous(), kernel, dilation=dilation, stride=stride)
    return flat.view(len(value), groups, -1, flat.shape[-1])


def _batch_norm(op: Operation, calls: Sequence[Call]) -> Iterator[Piece]:
    mean, var, eps = op.settings

    def scaled(value: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (value.ndim - 2))
        return (value - mean.view(shape)) * (var + eps).rsqrt().view(shape)

    yield from _per_channel(op, [(scaled(v), g) for v, g in calls])


def _group_norm(op: Operation, calls: Sequence[Call]) -> Iterator[Piece]:
    groups, eps = op.settings
    yield from _per_channel(op, [(F.group_norm(v, groups, eps=eps), g) for v, g in calls])


def _per_channel(op: Operation, calls: Sequence[Call]) -> Iterator[Piece]:
    """A gain and a bias a channel, channels second."""
    if op.weight:
        yield _total([torch.einsum("ntcl,ncl->ntc", g.flatten(3) if g.ndim > 3 else g.unsqueeze(3),
                                   v.reshape(len(v), v.shape[1], -1)) for v, g in calls])  # fmt: skip
    if op.bias:
        yield _total([g.flatten(3).sum(3) if g.ndim > 3 else g for _, g in calls])


def _layer_norm(op: Operation, calls: Sequence[Call]) -> Iterator[Piece]:
    shape, eps = op.settings
    size = torch.Size(shape).numel()
    norm = F.layer_norm if op.kind == "layer_norm" else F.rms_norm

    def flat(grad: Tensor) -> Tensor:
        return grad.reshape(*grad.shape[:2], -1, size)

    if op.weight:
        values = [(norm(v, list(shape), eps=eps).reshape(len(g), -1, size), g) for v, g in calls]  # pyright: ignore
        yield _total([torch.einsum("ntlc,nlc->ntc", flat(g), v) for v, g in values])
    if op.bias:
        yield _total([flat(g).sum(2) for _, g in calls])


def _embedding(op: Operation, calls: Sequence[Call]) -> Iterator[Piece]:
    """Only the rows of tokens that occur; the padding token's row does not learn."""
    (padding,) = op.settings
    places = torch.cat([v.reshape(len(g), -1) for v, g in calls], 1)  # [N, L]
    grad = torch.cat([g.reshape(*g.shape[:2], -1, g.shape[-1]) for _, g in calls], 2)  # [N, T, L, d]
    n, targets, _, width = grad.shape
    tokens = places.unique()
    tokens = tokens if padding is None else tokens[tokens != padding]
    for some in tokens.split(max(1, COLUMNS // (n * targets * width))):
        hot = (places.unsqueeze(1) == some.view(1, -1, 1)).to(grad.dtype)  # [N, k, L]
        yield torch.einsum("ntld,nkl->ntkd", grad, hot).flatten(2)


def _total(rows: Sequence[Tensor]) -> Tensor:
    return sum(rows[1:], rows[0])


RULES: dict[str, Callable[[Operation, Sequence[Call]], Iterator[Piece]]] = {
    "linear": _linear,
    "conv": _conv,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "embedding": _embedding,
}


def prepared(op: Operation, value: Tensor) -> Tensor | None:
    """What `one_target` needs of an operation's input, [B, L, C], without a copy of the gradients; None if it cannot.

    Args:
        op: a batch norm, or a convolution of one pixel, is meant.
        value: [B, C, H, W], in channels-last memory.
    """
    if value.ndim != 4 or not value.is_contiguous(memory_format=torch.channels_last):
        return None
    if op.kind == "batch_norm":
        mean, var, eps = op.settings
        return (value.permute(0, 2, 3, 1).flatten(1, 2) - mean) * (var + eps).rsqrt()
    if op.kind == "conv" and op.settings[0] == (1, 1) and op.settings[-1] == 1 and not any(map(any, op.settings[2])):
        stride = op.settings[1]
        return value[..., :: stride[0], :: stride[1]].permute(0, 2, 3, 1).flatten(1, 2)
    return None


def one_target(op: Operation, value: Tensor, grad: Tensor) -> Tensor:
    """Rows [B, P] of one target.

    Args:
        op: of the kinds that `prepared` knows.
        value: [B, L, C] from there.
        grad: [B, O, H, W] at the result.
    """
    g = grad.permute(0, 2, 3, 1).flatten(1, 2)  # [B, L, O]
    bias = [g.sum(1)] if op.bias else []
    if op.kind == "conv":  # columns in the order of `pieces`, so that tiles of either way fit together
        return torch.cat([*bias, torch.bmm(g.transpose(1, 2), value).flatten(1)], 1)
    return torch.cat([*([(g * value).sum(1)] if op.weight else []), *bias], 1)


WHOLE = frozenset({"conv", "batch_norm", "group_norm"})
"""Kinds whose rule needs the first axis to be the samples; the others take (samples x anything) there, too."""


def pieces(op: Operation, calls: Sequence[Call]) -> Iterator[Piece]:
    """An operation's derivative, tile by tile: rows [N, T, p], or a `Product`."""
    yield from RULES[op.kind](op, calls)
