"""Write a program to one file, read it back, and put its numbers into a program that was built again.

A file holds the learned and fitted numbers and a card; never the source, and nothing that runs. To get a program back,
a room above builds the parts from the card (`method`, `config`, `task`), then calls `check_source` and `restore`.
"""

import dataclasses
import enum
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, SupportsFloat, cast, final

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from reprogram._version import __version__
from reprogram.core.errors import ArtifactError, ConfigError, FingerprintError, say
from reprogram.core.method import Origin
from reprogram.core.program import Program
from reprogram.core.source import Source, SourceSpec
from reprogram.core.task import TaskSpec
from reprogram.store._json import canonical
from reprogram.store.card import (
    ExampleCard,
    ParametersCard,
    PreprocessingCard,
    ProgramCard,
    SampleCard,
    SourceCard,
    TaskCard,
    explain,
    from_json,
)
from reprogram.store.tensors import DEFAULT_LIMITS, Limits, read_tensors, write_tensors

_log = logging.getLogger("reprogram.store")


@final
@dataclass(frozen=True, slots=True, eq=False)
class StoredProgram:
    """What a program file holds.

    Attributes:
        card: everything but the numbers.
        tensors: the numbers, by their names in the program's `state_dict`.
        path: where they were read.
    """

    card: ProgramCard
    tensors: dict[str, Tensor]
    path: Path


def save(  # noqa: PLR0913 - each is one line of the card
    program: Program,
    path: str | os.PathLike[str],
    *,
    metrics: Mapping[str, object] | None = None,
    seed: int | None = None,
    citation: str = "",
    created: str | None = None,
    notes: Sequence[str] = (),
) -> ProgramCard:
    """Write a program to one file, in one step.

    Args:
        program: built by a method.
        path: the file, by custom `*.safetensors`; its directory must exist.
        metrics: figures to remember, by name.
        seed: of the fit.
        citation: BibTeX; by default that of the method's paper, where the program knows it.
        created: ISO 8601 in UTC, now by default; equal programs saved with equal times are equal files.
        notes: free text.

    Returns:
        The card that was written.

    Raises:
        ConfigError: the program cannot be built again (no method made it, or a setting is not plain data), it holds the
            source itself, or an argument is not what a card can hold.
        ArtifactError: a number is not finite, or the file cannot be written.
    """
    origin = program.origin
    if origin is None:
        requirement = "must come from a method, because a file holds its numbers and the method's name, not its code"
        remedy = "Write the parts as a method file, or save `program.state_dict()` yourself."
        raise ConfigError(say("program", requirement, "a program made by hand from parts", remedy))
    tensors = _state(program)
    _check_no_source(program, tensors)
    try:
        card = ProgramCard(
            library_version=__version__,
            created=created or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            method=origin.method,
            form=origin.form,
            config=_config(origin),
            taxonomy=program.taxonomy.axes(),
            source=_source_card(program.source.spec, program.source.fingerprint()),
            task=_task_card(origin.task) if origin.task else None,
            metrics={name: _metric(name, value) for name, value in (metrics or {}).items()},
            parameters=ParametersCard(**dataclasses.asdict(program.count())),
            citation=citation or origin.citation(),
            seed=seed,
            notes=list(notes),
        )
    except ValidationError as error:
        raise ConfigError(explain(error, "card")) from None
    write_tensors(path, tensors, card.model_dump(mode="json"))
    return card


def read(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> StoredProgram:
    """Read a program file. It is checked throughout, and nothing in it is run.

    Args:
        path: the file.
        limits: how much it may ask for.

    Raises:
        ArtifactError: it is missing, damaged, foreign or too new; the message says which.
    """
    card, tensors = read_tensors(path, limits=limits)
    text = canonical(card).decode()
    return StoredProgram(from_json(text, limits=limits, where=f"{os.fspath(path)}: card"), tensors, Path(path))


def restore(program: Program, stored: StoredProgram) -> None:
    """Put a file's numbers into a program with the same parts.

    Args:
        program: built from the file's card; changed in place.
        stored: the file.

    Raises:
        ArtifactError: names, shapes or dtypes differ, or the program refuses the numbers. It is then as it was.
    """
    at, state = str(stored.path), _state(program)
    if set(state) != set(stored.tensors):
        lost, foreign = sorted(set(state) - set(stored.tensors)), sorted(set(stored.tensors) - set(state))
        came = f"{lost[:5]} missing and {foreign[:5]} unexpected"
        raise ArtifactError(say(at, "must hold the tensors of a program of its method", came))
    for name, mine in state.items():
        theirs = stored.tensors[name]
        if (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
            wanted = f"must hold {name!r} as {mine.dtype} of shape {tuple(mine.shape)}"
            raise ArtifactError(say(at, wanted, f"{theirs.dtype} of shape {tuple(theirs.shape)}"))
    before = {name: value.clone() for name, value in state.items()}
    try:
        program.load_state_dict(stored.tensors)
    except Exception as error:  # a part may have a loader of its own, which may raise anything
        with torch.no_grad():
            for name, value in state.items():
                value.copy_(before[name])
        raise ArtifactError(say(at, "must fit the program", str(error))) from error


def check_source(stored: StoredProgram, source: Source, force: bool = False) -> None:
    """Make sure that a source is the one a program was made for: same weights, same inputs and outputs.

    A program of fixed prompts in which nothing was learned or fitted fits any source of its kind; that is logged.

    Args:
        stored: the file.
        source: the one at hand.
        force: only warn.

    Raises:
        FingerprintError: it is another one, and `force` is off.
    """
    wanted, got = stored.card.source, _source_card(source.spec, source.fingerprint())
    fields = [
        n for n in ("fingerprint", "input_shape", "outputs", "preprocessing") if getattr(wanted, n) != getattr(got, n)
    ]
    if not fields:
        return
    if _fits_any(stored.card):
        _log.info("%s was made on %s and runs on %s: nothing in it depends on the source.", stored.path, wanted.ref,
                  got.ref)  # fmt: skip
        return
    requirement = f"must be the one that {stored.path} was made for, {_short(wanted, fields)}"
    remedy = f"Load {wanted.ref}, or use this source all the same with --force (force=True)."
    msg = say("source", requirement, _short(got, fields), remedy)
    if not force:
        raise FingerprintError(msg)
    _log.warning("%s Forced: its results may mean nothing.", msg)


def _fits_any(card: ProgramCard) -> bool:
    """Texts are put around texts, and nothing else: no number of the file came from the source."""
    fixed = card.taxonomy.get("configuration") == ["fixed"] and card.taxonomy.get("location") == ["input"]
    text = card.task is not None and card.task.modality == "text"
    return fixed and text and not card.parameters.allocated and not card.parameters.fitted


def _short(card: SourceCard, fields: Sequence[str]) -> str:
    """The reference, a short fingerprint, and whatever else differs."""
    rest = "".join(f", {name} {getattr(card, name)}" for name in fields if name != "fingerprint")
    return f"{card.ref} (fingerprint {card.fingerprint[:12]}{rest})"


def _state(program: Program) -> dict[str, Tensor]:
    state = cast("dict[str, object]", program.state_dict())
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ConfigError(say("program", "must keep nothing but tensors as its state", f"{name}: {type(value)}"))
    return cast("dict[str, Tensor]", state)


def _check_no_source(program: Program, tensors: Mapping[str, Tensor]) -> None:
    """A file must never carry the source along: no part may own its module or share its numbers."""
    known = [program.source, *getattr(program.source, "__dict__", {}).values()]
    theirs = {_address(t) for m in known if isinstance(m, nn.Module) for t in (*m.parameters(), *m.buffers())} - {0}
    for name, tensor in tensors.items():
        if _address(tensor) in theirs:
            remedy = "Keep a reference to the source in a tuple, or clone what you take from it."
            raise ConfigError(say("program", "must not hold the source itself in its state", name, remedy))


def _address(tensor: Tensor) -> int:
    """Where its memory begins; 0 if it has none."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else 0


def _config(origin: Origin) -> dict[str, Any]:
    config = origin.config
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ConfigError(say("config", "must be an instance of the method's dataclass", config))
    return cast("dict[str, Any]", _json(dataclasses.asdict(config), "config"))


def _json(value: object, where: str) -> object:
    """A setting as plain JSON: tuples become lists, paths and enums their text or number."""
    if isinstance(value, enum.Enum):
        return _json(value.value, where)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item, f"{where}.{number}") for number, item in enumerate(value)]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ConfigError(say(where, "must be text, a finite number, true, false, none, or lists of these", value))


def _metric(name: str, value: object) -> float | int | str | None:
    if value is None or isinstance(value, str) or type(value) is int:
        return value
    if not isinstance(value, SupportsFloat):
        raise ConfigError(say(f"metrics.{name}", "must be a number, text or none", value))
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _source_card(spec: SourceSpec, fingerprint: str) -> SourceCard:
    try:
        return SourceCard(
            ref=spec.ref,
            fingerprint=fingerprint,
            input_shape=spec.input_shape,
            outputs=spec.outputs,
            preprocessing=PreprocessingCard(**dataclasses.asdict(spec.preprocessing)),
        )
    except ValidationError as error:
        raise ConfigError(explain(error, "source")) from None


def _task_card(task: TaskSpec) -> TaskCard:
    sample = SampleCard(**dataclasses.asdict(task.sample))
    context = tuple(ExampleCard(texts=one.texts, answer=one.answer) for one in task.context)
    return TaskCard(name=task.name, classes=task.classes, sample=sample, modality=task.modality, context=context,
                    dense=task.dense)  # fmt: skip
