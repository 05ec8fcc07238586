"""The smallest program there is, on a source that implements the core's protocol and nothing else."""

import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from reprogram.core.method import Origin, Recipe
from reprogram.core.program import Edit, Input, Output, Program
from reprogram.core.source import Capability, Preprocessing, Reading, SourceOutput, SourceSpec
from reprogram.core.task import Sample, TaskSpec
from reprogram.core.taxonomy import Alignment, Location, Operator


class TinySource:
    def __init__(self, ref: str = "tiny/source", *, seed: int = 0, outputs: int = 6) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module = nn.Sequential(nn.Flatten(), nn.Linear(12, outputs)).eval().requires_grad_(False)
        self._spec = SourceSpec(
            ref=ref,
            modality="image",
            input_shape=(3, 2, 2),
            outputs=outputs,
            preprocessing=Preprocessing(mean=(0.5, 0.5, 0.4), std=(0.1, 0.2, 0.3), interpolation="bilinear"),
        )

    @property
    def spec(self) -> SourceSpec:
        return self._spec

    @property
    def sites(self) -> Mapping[str, Location]:
        return {"input": Location.INPUT}

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.GRADIENTS})

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def fingerprint(self) -> str:
        state = self.module.state_dict()
        return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()

    def to(self, device: torch.device | str) -> "TinySource":
        return self

    def attach(self, sites: Iterable[str], reading: Reading = Reading()) -> None:
        pass

    @contextmanager
    def editing(self, input: Input) -> Generator[None]:
        yield

    def prepare(self, inputs: object, sample: Sample | None) -> Sequence[Tensor]:
        return list(inputs)

    def __call__(self, x: Tensor, input: Input, reading: Reading = Reading()) -> SourceOutput:
        return SourceOutput(scores=self.module(input(x)))


class Shift(Edit):
    """`x + delta`, with one learned number a pixel."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.site = "input"
        self.operators = frozenset({Operator.ADDITIVE})
        self.delta = nn.Parameter(torch.full((3, 2, 2), value))

    def forward(self, value: Tensor) -> Tensor:
        return value + self.delta


class Pick(Output):
    """Target class t is source class `map[t]`."""

    def __init__(self, targets: int) -> None:
        super().__init__()
        self.alignment = Alignment.STATISTICAL
        self.register_buffer("map", torch.arange(targets))

    def forward(self, output: SourceOutput) -> Tensor:
        return output.logits[:, self.map]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftConfig:
    size: int = 2
    scale: tuple[float, ...] = (0.1, 0.2)
    label: str = "é ü"
    recipe: Recipe = field(default_factory=Recipe)


TASK = TaskSpec(name="toy", classes=("cat", "dog", "日本"), sample=Sample(shape=(3, 2, 2)))


def tiny_program(
    source: TinySource | None = None, *, seed: int = 0, config: object = None, task: object = TASK
) -> Program:
    origin = Origin(method="shift", config=config or ShiftConfig(), task=task)
    program = Program([Shift()], source or TinySource(), Pick(3), origin=origin)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        program.input.edits[0].delta.copy_(torch.randn(3, 2, 2, generator=generator))
        program.output.map.copy_(torch.randperm(6, generator=generator)[:3])
    return program
