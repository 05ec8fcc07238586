"""Ctrl-C (and SIGTERM, where the program handles it) waits for the end of a step, so that no half step is saved."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, final


@final
class Deferred:
    """While it is entered, the first signal is only noted; `act` then does what the signal would have done.

    A second signal acts at once. Outside the main thread, and for signals that nobody handles, nothing changes.
    """

    def __init__(self) -> None:
        self.pending: tuple[int, FrameType | None] | None = None
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> "Deferred":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def act(self) -> None:
        """Hand the noted signal to the handler it was meant for."""
        if self.pending is not None:
            (number, frame), self.pending = self.pending, None
            self._before[number](number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pending is not None:
            self._before[number](number, frame)
        self.pending = (number, frame)
