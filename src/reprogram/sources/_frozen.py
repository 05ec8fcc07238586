"""What all sources that run here share: a frozen module, its fingerprint, and hooks that are set once."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reprogram.core.errors import CapabilityError, say
from reprogram.core.taxonomy import Location
from reprogram.sources._quantised import all_tensors

DERIVED = "reprogram_derived"
"""Attribute of a module: names of its buffers that were computed from weights, and so differ in their last bits from
one kind of processor to another. What they are computed from says what they are."""


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all parameters and buffers but `DERIVED`, 64 hex digits."""
    digest = hashlib.sha256()
    derived = {f"{path}.{name}".lstrip(".") for path, m in module.named_modules() for name in getattr(m, DERIVED, ())}
    for name, t in sorted(all_tensors(module).items()):
        if name in derived:
            continue
        digest.update(f"{name}|{t.dtype}|{tuple(t.shape)}|".encode())
        digest.update(t.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def freeze(module: nn.Module) -> nn.Module:
    """Eval mode, and no parameter asks for gradients. Quantised (integer) parameters never did."""
    module.eval()
    for parameter in module.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(False)
    return module


Acting = Callable[[Any, str], Any]
"""From a value and its site to the edited value."""


@final
class EditSites:
    """The sites inside a module, and the hooks that let edits act there.

    Args:
        module: the frozen module.
        blocks: paths of the modules whose inputs are "hidden.0", "hidden.1", ...
        current: what the call under way in this thread makes of a value at a site (an `Input`, or a call that also
            keeps values); None outside of one.
        embedding: what the first block reads is a site of its own, "embedding", whose edits act before "hidden.0"; or
            the path of the module whose input it is, where something (a layer norm) comes before the first block.
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[str],
        current: Callable[[], "Acting | None"],
        *,
        embedding: bool | str = False,
    ) -> None:
        self._paths = dict(module.named_modules())
        self._blocks = tuple(blocks)
        self._first = embedding if isinstance(embedding, str) else self._blocks[0] if blocks else ""
        self._current = current
        self._attached: set[str] = set()
        sites = {"embedding": Location.EMBEDDING} if embedding and blocks else {}
        sites |= {f"hidden.{i}": Location.HIDDEN for i in range(len(self._blocks))}
        sites |= {path: Location.HIDDEN for path in self._paths if path}
        self.sites: Mapping[str, Location] = MappingProxyType(sites)

    def attach(self, site: str) -> None:
        """Set the hook of a site, unless it is set already.

        Raises:
            CapabilityError: the site is unknown.
        """
        if site in self._attached:
            return
        if site not in self.sites:
            raise CapabilityError(say("site", "must be one of `source.sites`", site))
        number = site.removeprefix("hidden.")
        if site not in self._paths and (site == "embedding" or number.isdecimal()):
            block = self._paths[self._first if site == "embedding" else self._blocks[int(number)]]
            # "embedding" acts before "hidden.0", whichever was attached first
            block.register_forward_pre_hook(self._before(site), with_kwargs=True, prepend=site == "embedding")
        else:
            self._paths[site].register_forward_hook(self._after(site))
        self._attached.add(site)

    def _before(self, site: str) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            input = self._current()
            if input is None:
                return None
            if args:
                return (input(args[0], site), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": input(kwargs["hidden_states"], site)}

        return hook

    def _after(self, site: str) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
            input = self._current()
            if input is None:
                return result
            if isinstance(result, tuple):  # some libraries' blocks return (hidden, attention, ...)
                return (input(result[0], site), *result[1:])
            return input(result, site)

        return hook


def checkpoint_blocks(module: nn.Module, blocks: Sequence[str]) -> None:
    """Let blocks forget what is inside them during the forward pass and compute it again in the backward pass.

    Transformers' own switch only works in training mode, which a frozen model never is in.
    """
    paths = dict(module.named_modules())
    for path in blocks:
        block = paths[path]
        block.forward = _checkpointed(block.forward)  # type: ignore[method-assign]


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def longest_list(module: nn.Module) -> tuple[str, ...]:
    """Paths of the entries of the longest list of modules of one class: a transformer's blocks.

    >>> longest_list(nn.Sequential(nn.ModuleList([nn.Tanh(), nn.Tanh()]), nn.ModuleList([nn.ReLU() for _ in range(3)])))
    ('1.0', '1.1', '1.2')
    """
    best: tuple[str, ...] = ()
    for path, part in module.named_modules():
        if not isinstance(part, nn.ModuleList) or len(part) <= len(best) or len({type(m) for m in part}) != 1:
            continue
        if not isinstance(part[0], nn.ModuleList):  # which would be a list of stages
            best = tuple(f"{path}.{i}" if path else str(i) for i in range(len(part)))
    return best


def first_tensor(result: Any) -> Tensor:
    """The tensor of a result that is one, or starts with one."""
    return result[0] if isinstance(result, tuple) else result
