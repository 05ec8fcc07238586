"""From a gradient at an edit's output to the gradient of its learned numbers, for one sample after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from reprogram.core.errors import CapabilityError, say
from reprogram.core.program import Edit, Output
from reprogram.core.pulling import Pulling
from reprogram.core.source import SourceOutput
from reprogram.outputs import Linear


@dataclass(frozen=True, slots=True, eq=False)
class Pulled:
    """Derivatives of a part's learned numbers for B samples and T outputs.

    Attributes:
        rows: [B, T, R].
        factor: [B, Q], or None. With one, the derivative is the outer product of row and factor, R * Q numbers.
        eye: the derivative is, besides, a product with the identity over targets: rows are [B, 1, R], and output t has
            numbers of its own, T * R in all (a linear output).
        route: how it was found, for people.
    """

    rows: Tensor
    factor: Tensor | None = None
    eye: bool = False
    route: str = ""


def pulled(edit: Edit, values: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Pulled:
    """The derivative of an edit's learned numbers.

    Args:
        edit: in eval mode.
        values: what it was given, [B, ...], one a call.
        cotangents: [B, T, ...] at its results, one a call.

    Raises:
        CapabilityError: the edit makes several rows of a sample, or one of several.
    """
    strange = [(len(v), len(c)) for v, c in zip(values, cotangents, strict=True) if len(c) and len(v) != len(c)]
    if strange:
        raise CapabilityError(say("edit", "must give a row for each sample to have a kernel", strange[0]))
    if len(values) == 1 and isinstance(edit, Pulling) and len(cotangents[0]):
        rows, factor = edit.pull(values[0], cotangents[0])
        return Pulled(_precise(rows), None if factor is None else _precise(factor), route="closed form")
    done = [generic_rows(edit, v, c) for v, c in zip(values, cotangents, strict=True) if len(c)]
    if not done:  # no score depends on it at all
        batch = len(values[0]) if values else 0
        return Pulled(torch.zeros(batch, 1, _count(edit)), route="never reached")
    return Pulled(_precise(sum(done[1:], done[0])), route="autograd")


def generic_rows(edit: nn.Module, value: Tensor, cotangent: Tensor) -> Tensor:
    """Rows [B, T, P] of any edit, through torch.func.

    Args:
        edit: a module whose learned parameters are meant.
        value: [B, ...] as it went in.
        cotangent: [B, T, ...] at what came out.
    """
    learned = {name: p.detach() for name, p in edit.named_parameters() if p.requires_grad}

    def one(sample: Tensor, seeds: Tensor) -> Tensor:
        pull = vjp(lambda numbers: functional_call(edit, numbers, (sample.unsqueeze(0),))[0], learned)[1]
        (grads,) = vmap(pull)(seeds)
        return torch.cat([g.flatten(1) for g in grads.values()], 1)

    try:
        return vmap(one)(value, cotangent)
    except RuntimeError:  # something in the edit cannot be vectorised: a branch on values, an operation in place
        return torch.stack([_one_by_one(edit, *pair) for pair in zip(value, cotangent, strict=True)])


def _one_by_one(edit: nn.Module, sample: Tensor, seeds: Tensor) -> Tensor:
    """Rows [T, P] of one sample."""
    learned = [p for p in edit.parameters() if p.requires_grad]
    with torch.enable_grad():
        result = edit(sample.detach().unsqueeze(0))[0]
    return torch.stack([flat_gradient(torch.sum(result * seed), learned) for seed in seeds])


def output_rows(output: Output, said: SourceOutput) -> Pulled:
    """The derivative of a learned output map, given what the source said, [B, S].

    A linear output ``y = v W^T + b`` has the derivative (v, 1) for its own target and 0 for the others, so nothing is
    computed at all; others go through autograd, one output at a time.
    """
    if isinstance(output, Linear):
        value = said.features if output.reads_features else said.scores
        assert value is not None
        scaled = (_precise(value) - output.mean) / output.std
        return Pulled(nn.functional.pad(scaled, (0, 1), value=1.0).unsqueeze(1), eye=True, route="closed form")
    learned = [p for p in output.parameters() if p.requires_grad]
    batch = len(said.logits)
    with torch.enable_grad():
        rows = [torch.stack([flat_gradient(y, learned) for y in output(_row(said, n))[0]]) for n in range(batch)]
    return Pulled(_precise(torch.stack(rows)), route="autograd, one output at a time")


def flat_gradient(y: Tensor, numbers: Sequence[Tensor]) -> Tensor:
    """The gradient of a scalar as one vector, [P]; zeros where it does not depend on a number."""
    grads: Sequence[Tensor | None] = [None] * len(numbers)
    if y.requires_grad:
        grads = torch.autograd.grad(y, numbers, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(numbers, grads, strict=True)])


def _row(said: SourceOutput, n: int) -> SourceOutput:
    scores, features = (None if v is None else v[n : n + 1] for v in (said.scores, said.features))
    return SourceOutput(scores=scores, features=features)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
