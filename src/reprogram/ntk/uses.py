"""Watching where a frozen module uses its parameters: which operation, with what input, and the gradient at its result.

A function mode sees every torch function of one thread, whatever class of layer calls it, so a convolution with its own
padding, a weight that is tied, or a bare `F.linear` in somebody's block are all found, and a parameter that is used in
any other way is known to be (and goes through torch.func instead).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from reprogram.ntk.rules import Operation


@dataclass(slots=True, eq=False)
class Use:
    """An operation was called on `value`; `edge` is where the gradient at its result, of such a shape, is to be had."""

    operation: Operation
    value: Tensor
    edge: Tensor | GradientEdge
    shape: torch.Size
    kind: torch.dtype


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Any, ...]:
    return "linear", input, weight, bias, ()


def _conv(  # noqa: PLR0913, PLR0917 (torch's own signature)
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...]:  # fmt: skip
    sides = weight.ndim - 2
    kernel = tuple(weight.shape[2:])
    stride, dilation = _several(stride, sides), _several(dilation, sides)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(p, p) for p in _several(0 if padding == "valid" else padding, sides)]
    return "conv", input, weight, bias, (kernel, stride, tuple(pads), dilation, groups)


def _batch_norm(  # noqa: PLR0913, PLR0917 (torch's own signature)
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> tuple[Any, ...]:  # fmt: skip
    kind = "other" if training or running_mean is None or running_var is None else "batch_norm"
    return kind, input, weight, bias, (running_mean, running_var, eps)


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Any, ...]:
    return "group_norm", input, weight, bias, (num_groups, eps)


def _layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Any, ...]:  # fmt: skip
    return "layer_norm", input, weight, bias, (tuple(normalized_shape), eps)


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> tuple[Any, ...]:
    return "rms_norm", input, weight, None, (tuple(normalized_shape), eps)


def _embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, *_: Any, **__: Any) -> tuple[Any, ...]:
    return "embedding", input, weight, None, (padding_idx,)


_READERS: dict[Any, Callable[..., tuple[Any, ...]]] = {
    F.linear: _linear,
    torch.conv1d: _conv,
    torch.conv2d: _conv,
    F.batch_norm: _batch_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.embedding: _embedding,
}


@final
class Watch(TorchFunctionMode):
    """Active while the module runs forward.

    Args:
        module: whose parameters are meant.
        only: record these operations; None for all.

    Attributes:
        uses: in the order of the calls.
        strange: names of parameters that were used in a way no rule covers.
    """

    def __init__(self, module: nn.Module, only: frozenset[Operation] | None = None) -> None:
        super().__init__()
        self._names = {id(p): name for name, p in module.named_parameters()}
        self._only = only
        self.uses: list[Use] = []
        self.strange: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note the use, and where its gradient will be."""
        kwargs = kwargs or {}
        named = [self._names[id(a)] for a in (*args, *kwargs.values()) if id(a) in self._names]
        result = func(*args, **kwargs)
        if not named or not isinstance(result, Tensor) or not torch.is_grad_enabled():
            # reads of an attribute, such as weight.shape, come here too and are nobody's business
            self.strange.update(named if isinstance(result, Tensor) and result.is_floating_point() else ())
            return result
        reader = _READERS.get(func)
        kind, value, weight, bias, settings = reader(*args, **kwargs) if reader else ("other", None, None, None, ())
        mine = (self._name(weight), self._name(bias))
        if kind == "other" or sum(n is not None for n in mine) != len(named) or not _known(weight, bias, mine):
            self.strange.update(named)
            return result
        return self._note(Operation(kind, *mine, settings), cast("Tensor", value), result)

    def _note(self, operation: Operation, value: Tensor, result: Tensor) -> Tensor:
        if self._only is not None and operation not in self._only:
            return result
        if result.requires_grad:
            self.uses.append(Use(operation, value.detach(), get_gradient_edge(result), result.shape, result.dtype))
            return result
        leaf = result.detach().requires_grad_()  # the first layers: nothing before them has a gradient
        self.uses.append(Use(operation, value.detach(), leaf, result.shape, result.dtype))
        return leaf.clone()  # an activation may write into it

    def _name(self, parameter: Tensor | None) -> str | None:
        return self._names.get(id(parameter))


def _known(weight: Tensor | None, bias: Tensor | None, names: tuple[str | None, str | None]) -> bool:
    """A weight that is made from a parameter (standardised, say) while the bias is one would be half known."""
    return (weight is None or names[0] is not None) and (bias is None or names[1] is not None)


def _several(value: Any, sides: int) -> tuple[int, ...]:
    return (value,) * sides if isinstance(value, int) else tuple(value) * (sides if len(value) == 1 else 1)
