"""Questions to a server and their answers: from the cache where it has them, each asked once, kept as they come in."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, final

from reprogram.core.errors import SourceError
from reprogram.sources.endpoint_cache import SCHEMA, ReplyCache, digest
from reprogram.sources.endpoint_client import Client, Route
from reprogram.sources.endpoint_crew import StoppedError, side_by_side
from reprogram.sources.endpoint_limits import EndpointError

Reply = dict[str, Any]
Check = Callable[[Reply], None]


@final
@dataclass(frozen=True, slots=True)
class Question:
    """One request.

    Attributes:
        route: where to send it.
        body: what to send, without the model's name.
        sample: its number among equal ones.
        check: raises where the reply must not be believed; it is not kept then.
    """

    route: Route
    body: Mapping[str, Any]
    sample: int = 0
    check: Check | None = field(default=None, compare=False)

    def key(self, fingerprint: str) -> str:
        """Equal keys mean that one answer does for both. Pictures count by their SHA-256."""
        parts = {"schema": SCHEMA, "model": fingerprint, "route": self.route, "sample": self.sample}
        return digest(parts | {"body": _hashed(self.body)})


def _hashed(value: Any) -> Any:
    """The same with pictures replaced by their hashes."""
    if isinstance(value, Mapping):
        return {name: _hashed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hashed(item) for item in value]
    if isinstance(value, str) and value.startswith("data:image/"):
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    return value


@final
class Asker:
    """Asks one model of one server.

    Args:
        client: of the server.
        model: its name there.
        fingerprint: of the model, part of every key.
        cache: where answers are kept; None to keep none.
        threads: requests under way at most.
    """

    def __init__(self, client: Client, model: str, fingerprint: str, cache: ReplyCache | None, threads: int) -> None:
        self.client, self.model, self.fingerprint = client, model, fingerprint
        self.cache, self.threads = cache, threads
        self._lock = threading.Lock()
        self._flying: dict[str, Future[Reply]] = {}

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """The replies, in order. Equal questions are asked once.

        Raises:
            EndpointError: one cannot be had; those that came before it are kept.
            BudgetError: the user's allowance is used up.
        """
        keys = [question.key(self.fingerprint) for question in questions]
        unique = dict(zip(keys, questions, strict=True))
        found = self._kept(unique)
        missing = {key: question for key, question in unique.items() if key not in found}
        mine, others = self._claim(missing)
        try:
            replies = side_by_side(list(mine.items()), lambda job, stop: self._one(*job, stop), self.threads)
        except SourceError as problem:
            raise self._counted(problem, len(unique), len(unique) - len(missing), mine) from problem
        finally:
            self._release(mine)
        found |= dict(zip(mine, replies, strict=True)) | {key: future.result() for key, future in others.items()}
        return [found[key] for key in keys]

    def _kept(self, unique: Mapping[str, Question]) -> dict[str, Reply]:
        """Those in the cache that still pass their checks."""
        found: dict[str, Reply] = {}
        for key, reply in (self.cache.get(list(unique)) if self.cache is not None else {}).items():
            check = unique[key].check
            if check is not None:
                check(reply)
            found[key] = reply
            self.client.meter.hit(reply)
        return found

    def _claim(self, missing: Mapping[str, Question]) -> tuple[dict[str, Question], dict[str, Future[Reply]]]:
        """What this thread is to ask, and what another thread is asking at this moment."""
        mine: dict[str, Question] = {}
        others: dict[str, Future[Reply]] = {}
        with self._lock:
            for key, question in missing.items():
                if key in self._flying:
                    others[key] = self._flying[key]
                else:
                    mine[key], self._flying[key] = question, Future()
        return mine, others

    def _release(self, mine: Mapping[str, Question]) -> None:
        with self._lock:
            futures = [self._flying.pop(key) for key in mine]
        for future in futures:
            if not future.done():
                future.set_exception(EndpointError("Another thread asked this and was stopped."))

    def _one(self, key: str, question: Question, stop: threading.Event) -> Reply:
        try:
            reply = self.client.ask(question.route, {"model": self.model, **question.body}, stop)
            if question.check is not None:
                question.check(reply)
            if self.cache is not None:
                self.cache.put(key, reply)
        except StoppedError:
            raise
        except BaseException as problem:
            self._flying[key].set_exception(problem)
            raise
        self._flying[key].set_result(reply)
        return reply

    def _counted(self, problem: SourceError, asked: int, kept: int, mine: Mapping[str, Question]) -> SourceError:
        """The same error, with how far it got."""
        done = kept + sum(1 for key in mine if self._answered(key))
        where = "kept in the cache" if self.cache is not None else "lost, because there is no cache"
        said = type(problem)(f"{problem} {done} of {asked} answers came and are {where}.")
        if isinstance(said, EndpointError) and isinstance(problem, EndpointError):
            said.status = problem.status
        return said

    def _answered(self, key: str) -> bool:
        future = self._flying.get(key)
        return future is not None and future.done() and future.exception() is None
