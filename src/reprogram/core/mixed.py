"""Many programs in one batch over one source: row by row, each input goes through a program of its own."""

from collections.abc import Sequence
from typing import Protocol, cast, final, runtime_checkable

import torch
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Input, Program
from reprogram.core.source import Reading, Source, SourceOutput
from reprogram.core.texts import Batch


@runtime_checkable
class MixingSource(Source, Protocol):
    """A source that can run rows of one batch through different inputs."""

    def mixed(self, x: Batch, inputs: Sequence[Input], rows: Tensor, reading: Reading) -> SourceOutput:
        """`f(I_r(x_r))` for every row r of the batch, where `rows` [B] says which of `inputs` I_r is."""
        ...


@final
class Mixed:
    """Programs that share a batch.

    Every row is answered by its own program: prompts of other lengths, templates and label words included. What a
    source cannot mix is an error when the mixture is made; no row is ever answered by another row's program.

    Args:
        programs: all on one source.

    Raises:
        ConfigError: there are none, or they are on several sources.
        CapabilityError: the source cannot mix, or a program does what cannot be mixed.

    Example:
        mixed = Mixed([sentiment, topic])
        scores = mixed(texts, torch.tensor([0, 1, 1]))   # scores[0]: [2 classes], scores[1]: [4 classes], ...
    """

    def __init__(self, programs: Sequence[Program]) -> None:
        if not programs or any(p.source is not programs[0].source for p in programs):
            raise ConfigError(say("programs", "must be one or more on one source", len(programs)))
        source = programs[0].source
        if not isinstance(source, MixingSource):
            raise CapabilityError(say("source", "must be able to mix programs in a batch", source.spec.ref))
        self.programs = tuple(programs)
        self._source = source
        self.reading = _joint([p.output.reading for p in programs])

    @torch.no_grad()
    def __call__(self, x: Batch, rows: Tensor) -> list[Tensor]:
        """Target scores of every row, [T of its program].

        Args:
            x: B inputs.
            rows: [B], the number of each row's program.

        Raises:
            ConfigError: a row names no program.
        """
        if rows.shape != (len(x),) or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self.programs)):
            need = f"must name one of {len(self.programs)} programs for each of {len(x)} inputs"
            raise ConfigError(say("rows", need, cast("list[int]", rows.tolist())[:8]))  # pyright: ignore[reportUnknownMemberType]
        said = self._source.mixed(x, [p.input for p in self.programs], rows, self.reading)
        scores: dict[int, Tensor] = {}
        for number, program in enumerate(self.programs):
            mine = (rows == number).nonzero()[:, 0]
            if len(mine):
                for row, score in zip(cast("list[int]", mine.tolist()), program.output(_rows(said, mine)), strict=True):  # pyright: ignore[reportUnknownMemberType]
                    scores[row] = score
        return [scores[row] for row in range(len(rows))]


def _joint(readings: Sequence[Reading]) -> Reading:
    if any(r.continuations or r.tokens or r.choices or r.writing for r in readings):
        need = "must read one score a token of the vocabulary, or features, to be mixed"
        got = "one that reads several places, labels of several tokens, choices or texts"
        raise CapabilityError(say("output", need, got, "Run these programs one after another."))
    return Reading(features=any(r.features for r in readings))


def _rows(said: SourceOutput, rows: Tensor) -> SourceOutput:
    rows = rows.to(said.logits.device)
    return SourceOutput(scores=said.logits[rows], features=None if said.features is None else said.features[rows])
