"""Several jobs side by side in threads, of which the first failure and Ctrl-C end all."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class StoppedError(Exception):
    """Somebody wants the requests under way to end; never leaves this package."""


def side_by_side(jobs: Sequence[T], run: Callable[[T, threading.Event], R], threads: int) -> list[R]:
    """`run` of every job, in order, several at a time.

    After the first failure no new job begins; those under way end, and the failure is raised. Ctrl-C ends at once: the
    threads are daemons, so that none of them holds the program up.
    """
    crew = _Crew(jobs, run)
    workers = [threading.Thread(target=crew.work, daemon=True) for _ in range(min(threads, len(jobs)))]
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            while not crew.done.acquire(timeout=0.5):  # wakes up, so that Ctrl-C is heard
                pass
    except BaseException:
        crew.stop.set()
        raise
    if crew.failures:
        raise crew.failures[0]
    return [crew.results[number] for number in range(len(jobs))]


class _Crew(Generic[T, R]):
    """Jobs, and what came of them."""

    def __init__(self, jobs: Sequence[T], run: Callable[[T, threading.Event], R]) -> None:
        self.waiting, self.run = deque(enumerate(jobs)), run
        self.results: dict[int, R] = {}
        self.failures: list[BaseException] = []
        self.stop, self.done = threading.Event(), threading.Semaphore(0)
        self._lock = threading.Lock()

    def work(self) -> None:
        """What one thread does."""
        try:
            while (job := self._next()) is not None:
                self.results[job[0]] = self.run(job[1], self.stop)
        except StoppedError:
            pass
        except BaseException as problem:  # handed to the caller's thread
            self.failures.append(problem)
            self.stop.set()
        finally:
            self.done.release()

    def _next(self) -> tuple[int, T] | None:
        with self._lock:
            return None if self.stop.is_set() or not self.waiting else self.waiting.popleft()
