"""Which edits are bound to a source right now: per thread in forward, per graph in backward.

Hooks are registered on the frozen module once and read the slot at each call, so `torch.compile` traces through
them. An activation checkpoint runs its block again inside `backward`, when the forward is long over: the tensor
hook set by `Slot.hold` binds the same value again for exactly that backward pass, whichever thread runs it.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor

from reprogram.core.errors import BindingError

V = TypeVar("V")


class _Stack(threading.local):
    def __init__(self) -> None:
        self.values: tuple[object, ...] = ()


class Slot(Generic[V]):
    """Holds the value that one source's hooks must read.

    >>> slot = Slot[str]()
    >>> with slot.bind("a"):
    ...     slot.current()
    'a'
    >>> slot.current() is None
    True
    """

    def __init__(self) -> None:
        self._stack = _Stack()
        self._backward: dict[int, V] = {}

    def current(self) -> V | None:
        """The value bound in this thread, or by the graph whose backward this thread runs, or None."""
        if self._backward:
            held = self._backward.get(_graph_task())
            if held is not None:
                return held
        values = self._stack.values
        return values[-1] if values else None  # type: ignore[return-value]

    @contextmanager
    def bind(self, value: V) -> Generator[None]:
        """Bind `value` in this thread until the block ends. Bindings nest."""
        before = self._stack.values
        self._stack.values = (*before, value)
        try:
            yield
        finally:
            self._stack.values = before

    def hold(self, value: V, result: Tensor) -> None:
        """Bind `value` again while `result`'s graph is run backward.

        Raises (from that backward): `BindingError` when two different values are held by one backward pass, because
        a recomputed block could not tell which one it belongs to.
        """
        if result.requires_grad and not torch.compiler.is_compiling() and not _in_functional_transform():
            result.register_hook(lambda _: self._rebind(value))  # pyright: ignore

    def _rebind(self, value: V) -> None:
        task = _graph_task()
        held = self._backward.get(task)
        if held is None:
            self._backward[task] = value
            engine = torch.autograd.Variable._execution_engine  # pyright: ignore
            engine.queue_callback(lambda: self._backward.pop(task, None))  # pyright: ignore
        elif held is not value:
            msg = (
                "Two programs that edit hidden sites of one source are in one backward pass. "
                "Call backward for each program's loss on its own."
            )
            raise BindingError(msg)


def _graph_task() -> int:
    """The id of the backward pass this thread is inside, -1 outside; torch's own checkpoints rely on it too."""
    return torch._C._current_graph_task_id()  # pyright: ignore


def _in_functional_transform() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore
