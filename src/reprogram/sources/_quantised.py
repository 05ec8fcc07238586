"""Quantised weights: what they are made of, and keeping gradients through them."""

from collections.abc import Generator
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from reprogram.core.errors import SourceError, say


def all_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every plain tensor that the module's outputs depend on, once each.

    Parameters and buffers; of those that wrap other tensors (torchao), what they wrap; and what layers keep beside
    their parameters and save with them, such as the scales of bitsandbytes.
    """
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    known = {n for n, _ in module.named_parameters(remove_duplicate=False)} | set(named)
    known |= {n for n, _ in module.named_buffers(remove_duplicate=False)}
    kept = {n: t for n, t in module.state_dict().items() if n not in known and isinstance(t, Tensor)}
    return dict(part for name, tensor in {**named, **kept}.items() for part in _plain(name, tensor.detach()))


def _plain(name: str, tensor: Tensor) -> Generator[tuple[str, Tensor]]:
    if not is_traceable_wrapper_subclass(tensor):
        yield name, tensor
        return
    for inner in tensor.__tensor_flatten__()[0]:
        yield from _plain(f"{name}.{inner}", getattr(tensor, inner))


def keep_gradients(module: nn.Module) -> None:
    """Stop bitsandbytes from packing 4-bit weights for inference only.

    On some CPUs its layers do that at their first forward pass in eval mode without gradients; later gradients through
    them are wrong, and nothing says so but a warning of torch.

    Raises:
        SourceError: it has happened already.
    """
    layers: list[tuple[str, Any]] = list(module.named_modules())
    for path, layer in layers:
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            state = getattr(getattr(layer, "weight", None), "quant_state", None)
            if getattr(state, "packing_format_for_cpu", False):
                remedy = "Load the model anew and wrap it before it runs."
                raise SourceError(say(path, "must not be packed for inference only, because gradients would be wrong",
                                      type(layer).__name__, remedy))  # fmt: skip
            layer.support_avx512bf16_for_cpu = False
