"""All that a fit must remember to go on after a kill as if nothing had happened.

Randomness needs no memory: the order of an epoch and the random numbers of a step are functions of the seed and of
where the fit is. What remains is the program, the optimizer, the label statistics, the best state and some counters.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from reprogram.core.errors import ArtifactError, say
from reprogram.core.method import Recipe
from reprogram.core.program import Observing, Program
from reprogram.store import Limits, read_tensors, write_tensors
from reprogram.tasks import Task

KIND = "checkpoint"
LIMITS = Limits(header_bytes=64 << 20)  # a row of history for each of a great many epochs


@runtime_checkable
class Stateful(Protocol):
    """An optimizer whose state is a few named tensors."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """All that is needed to go on."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it up again."""
        ...


Optimizer = torch.optim.Optimizer | Stateful


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counters; epoch and step are those to do next.

    Attributes:
        epoch: from 0.
        step: of the epoch, from 0.
        loss: sum over the inputs of this epoch.
        right: inputs of this epoch classified right.
        seen: inputs of this epoch.
        best: (epoch, accuracy, loss) on validation, None before the first.
        waited: epochs since.
        history: one row an epoch.
        seconds: spent in training so far, over all resumptions.
        events: bytes of the event file.
        stopped: early stopping has struck.
        scaler: state of the gradient scaler, empty unless in fp16.
        queries: inputs sent to the source for training, by a fit without gradients.
        asked: inputs it sent for validation.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: int = 0
    seen: int = 0
    best: list[float] | None = None
    waited: int = 0
    history: list[dict[str, Any]] = field(default_factory=lambda: [])
    seconds: float = 0.0
    events: int = 0
    stopped: bool = False
    scaler: dict[str, Any] = field(default_factory=lambda: {})
    queries: int = 0
    asked: int = 0

    def improves(self, accuracy: float | None, loss: float, *, validated: bool) -> bool:
        """A new epoch's validation accuracy (None: it could not be scored) and loss are the best so far.

        Without validation data every epoch is better than the one before.
        """
        if self.best is None or not validated:
            return True
        return accuracy is not None and (accuracy > self.best[1] or (accuracy == self.best[1] and loss < self.best[2]))


def mix(seed: int, *where: int | str) -> int:
    """A 63-bit seed for one place of a fit.

    >>> mix(0, "order", 1) == mix(0, "order", 1), mix(0, "order", 1) == mix(0, "order", 2)
    (True, False)
    """
    text = "/".join(map(str, (seed, *where)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def identity(program: Program, task: Task, recipe: Recipe, seed: int) -> dict[str, Any]:
    """What must be equal for a resumption to make sense, but for the source and the precision."""
    origin = program.origin
    return {
        "seed": seed,
        "recipe": repr(recipe),
        "method": repr((origin.method, origin.config)) if origin else "",
        "train": task.train.digest(),
        "val": task.val.digest(),
    }


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """Reads and writes the state of a fit.

    Attributes:
        path: the file; replaced atomically.
        identity: what must be equal for a resumption to make sense: seed, recipe, data, source, method.
    """

    path: Path
    identity: dict[str, Any]

    def save(self, progress: Progress, program: Program, optimizer: Optimizer | None, extra: dict[str, Tensor]) -> None:
        """Write everything. `extra` holds the best state under "best.<name>"."""
        tensors = {f"program.{k}": v for k, v in program.state_dict().items()} | extra
        if isinstance(program.output, Observing):
            tensors |= {f"statistics.{k}": v for k, v in program.output.statistics().items()}
        tensors |= {f"optimizer.{k}": v for k, v in (_optimizer_tensors(optimizer) if optimizer else {}).items()}
        card = {"identity": self.identity, "progress": asdict(progress)}
        write_tensors(self.path, {k: v.detach().cpu() for k, v in tensors.items()}, card, kind=KIND, limits=LIMITS)

    def load(self, program: Program, optimizer: Optimizer | None) -> tuple[Progress, dict[str, Tensor]]:
        """Put the state back; returns the counters and the best state.

        Raises:
            ArtifactError: the file is damaged or belongs to another fit.
        """
        card, tensors = read_tensors(self.path, kind=KIND, limits=LIMITS)
        theirs, counters = cast("dict[str, Any]", card["identity"]), cast("dict[str, Any]", card["progress"])
        other = sorted(k for k in {*self.identity, *theirs} if self.identity.get(k) != theirs.get(k))
        if other:
            remedy = "Fit to another --out, or start again without --resume."
            raise ArtifactError(say(str(self.path), f"must come from the same fit, but {other} differ", theirs, remedy))
        program.load_state_dict(_part(tensors, "program."))
        if isinstance(program.output, Observing):
            program.output.load_statistics(_part(tensors, "statistics."))
        if optimizer:
            _load_optimizer(optimizer, _part(tensors, "optimizer."))
        return Progress(**counters), _part(tensors, "best.")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    if not isinstance(optimizer, torch.optim.Optimizer):
        return dict(optimizer.state_dict())
    rows = optimizer.state_dict()["state"]
    return {f"{i}.{k}": v for i, row in rows.items() for k, v in row.items() if isinstance(v, Tensor)}


def _load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        optimizer.load_state_dict(tensors)
        return
    rows: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        rows.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": rows, "param_groups": optimizer.state_dict()["param_groups"]})
