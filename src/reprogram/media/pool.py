"""Work on many files at once: decoding releases the interpreter's lock, so plain threads use all cores."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_WINDOW = 1024


def default_workers() -> int:
    """As many threads as cores this process may use, at most 8."""
    count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return max(1, min(8, count))


def in_threads(work: Callable[[T], R], items: Sequence[T], workers: int | None = None) -> Iterator[R]:
    """`work(item)` for every item, results in order; not more than a window of them is held at a time.

    >>> list(in_threads(len, ["a", "bb", "ccc"], workers=2))
    [1, 2, 3]

    Raises whatever `work` raises, for the first item that fails.
    """
    workers = workers or default_workers()
    if workers == 1 or len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(min(workers, len(items))) as pool:
        for start in range(0, len(items), _WINDOW):
            yield from pool.map(work, items[start : start + _WINDOW])
