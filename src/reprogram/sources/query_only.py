"""Any source as a black box: it answers queries, counts them, and gives nothing else away."""

import hashlib
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, final

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Input
from reprogram.core.source import Reading, Source, SourceOutput
from reprogram.core.task import Sample
from reprogram.core.taxonomy import Location
from reprogram.core.texts import Batch, Texts
from reprogram.sources.endpoint_limits import BudgetError

Gives = Literal["logits", "probabilities", "top-k", "label"]

FLOOR = 1e-12
"""A probability is never taken to be smaller: its logarithm is finite."""


@final
class QueryOnly:
    """A local source behind a wall: scores in answer to inputs, as a server of the same model would give them.

    There are no gradients (answers are computed in inference mode from detached inputs), no site but "input", no
    features, no module. What a program learns at "input" is applied on the user's side of the wall.

    Attributes:
        spec: of the source inside, without width and depth. Unless it gives logits, its `ref` says what it gives
            ("...@label"), because programs fitted on labels are not programs for logits.
        sites: "input".
        capabilities: none.
        gives: what an answer is made of.
        budget: inputs it answers at most; None for any number.

    Fingerprint: that of the source inside for "logits", whose scores are the same; else derived from it, because equal
    fingerprints mean equal outputs.
    """

    def __init__(self, source: Source, gives: Gives, k: int, budget: int | None) -> None:
        self.__inside = source
        self.gives: Gives = gives
        self.budget = budget
        self._k, self._queries, self._lock = k, 0, threading.Lock()
        said = {"logits": "", "top-k": f"@top-{k}"}.get(gives, f"@{gives}")
        self.spec = replace(source.spec, ref=source.spec.ref + said, width=None, depth=0)
        self.sites: Mapping[str, Location] = MappingProxyType({"input": Location.INPUT})
        self.capabilities = frozenset[str]()

    @property
    def device(self) -> torch.device:
        """Where the source inside runs."""
        return self.__inside.device

    @property
    def queries(self) -> int:
        """Inputs answered so far."""
        with self._lock:
            return self._queries

    def fingerprint(self) -> str:
        """64 hex digits; see the class."""
        inner = self.__inside.fingerprint()
        return (
            inner if self.gives == "logits" else hashlib.sha256(f"{inner}|{self.gives}|{self._k}".encode()).hexdigest()
        )

    def to(self, device: torch.device | str) -> "QueryOnly":
        """Move the source inside."""
        self.__inside.to(device)
        return self

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        """Nothing is attached to a black box; what needs to be is refused.

        Raises:
            CapabilityError: another site than "input", or a reading of more than scores.
        """
        strange = sorted({s for s in (*sites, *reading.sites) if s != "input"})
        if strange or reading.features or reading.local:
            wanted = strange or ["features"]
            raise CapabilityError(say("source", "gives scores only and takes edits at `input` only", wanted))
        self.__inside.attach((), replace(reading, sites=(), plain=False))

    @contextmanager
    def editing(self, input: Input) -> Generator[None]:
        """Without hidden edits there is nothing to bind."""
        del input
        yield

    def prepare(self, inputs: object, sample: Sample | None) -> Sequence[Tensor] | Texts:
        """As the source inside does."""
        return self.__inside.prepare(inputs, sample)

    def __call__(self, x: Batch, input: Input, reading: Reading = Reading()) -> SourceOutput:
        """Scores [B, S] for inputs, the edits at "input" applied.

        Raises:
            BudgetError: so many inputs may not be asked any more; nothing was sent.
        """
        if isinstance(x, Tensor) and x.dtype is torch.uint8:
            x = x.float().div_(255)
        x = input(x, "input")
        self._count(len(x))
        sent = x.detach() if isinstance(x, Tensor) else x
        with torch.inference_mode():
            said = self.__inside(sent, Input(), replace(reading, sites=(), plain=False))
        scores = answer(said.logits, self.gives, self._k).clone()  # out of inference mode: an ordinary tensor
        at = {"input": x} if "input" in reading.sites and isinstance(x, Tensor) else {}
        return SourceOutput(scores=scores, at=at)

    def _count(self, inputs: int) -> None:
        with self._lock:
            if self.budget is not None and self._queries + inputs > self.budget:
                got = f"{self._queries} asked, {inputs} more wanted"
                raise BudgetError(say("budget", f"allows {self.budget} inputs", got))
            self._queries += inputs


def query_only(source: Source, gives: Gives = "logits", *, k: int = 5, budget: int | None = None) -> QueryOnly:
    """Any local source that gives class scores, as a black box: to try methods without gradients honestly.

    Args:
        source: it is not changed; others may go on using it.
        gives: "logits" as they are; "probabilities" (as logarithms, so that softmax gives them back); "top-k": the k
            highest probabilities, the rest of 1 shared equally among the others; "label": 1 for the best class (the
            first of equals) and 0 for all others, the least that any server gives.
        k: of "top-k"; at most S - 1 are given.
        budget: inputs it answers at most; None for any number.

    Raises:
        ConfigError: a setting is out of range.

    >>> import reprogram.testing as made
    >>> box = query_only(made.tiny_source(), "label", budget=8)
    >>> box(torch.rand(4, 3, 16, 16), Input()).logits.sum(1).tolist(), box.queries
    ([1.0, 1.0, 1.0, 1.0], 4)
    """
    if gives not in ("logits", "probabilities", "top-k", "label"):
        raise ConfigError(say("gives", "must be logits, probabilities, top-k or label", gives))
    for name, value in (("k", k), ("budget", 1 if budget is None else budget)):
        if value < 1:
            raise ConfigError(say(name, "must be 1 or more", value))
    return QueryOnly(source, gives, k, budget)


def answer(scores: Tensor, gives: Gives, k: int = 5) -> Tensor:
    """What of scores [B, S] a server gives away, again as scores.

    >>> answer(torch.tensor([[0.0, 2.0, 1.0]]), "label").tolist()
    [[0.0, 1.0, 0.0]]
    >>> [round(p, 6) for p in answer(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log(), "top-k", 1).exp()[0].tolist()]
    [0.4, 0.2, 0.2, 0.2]
    """
    scores = scores.float()
    if gives == "logits":
        return scores
    if gives == "label":
        return torch.nn.functional.one_hot(scores.argmax(1), scores.shape[1]).to(scores)
    probabilities = scores.softmax(1)
    if gives == "top-k" and k < scores.shape[1] - 1:
        best = probabilities.topk(k, dim=1)
        rest = (1 - best.values.sum(1, keepdim=True)).clamp_min(0) / (scores.shape[1] - k)
        probabilities = rest.expand_as(probabilities).scatter(1, best.indices, best.values)
    return probabilities.clamp_min(FLOOR).log()
