"""A method of your own in one file: learned contrast and brightness a channel, six numbers in all, read by BLM.

Put such a file into `src/reprogram/methods/`, or name its METHOD in the entry point group `reprogram.methods` of a
package of yours; `check_method` is the contract that the library's own methods pass too.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

import reprogram as rp
from reprogram.core.method import Origin, Paper
from reprogram.core.source import Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place
from reprogram.outputs import BayesianMap
from reprogram.testing import check_method, tiny_source, tiny_task


@final
class Tone(rp.Edit):
    """``value * (1 + contrast) + brightness``, one number of each a channel, both starting at zero."""

    site = "normalised"
    operators = frozenset({Operator.PARAMETRIC})

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.contrast = nn.Parameter(torch.zeros(channels, 1, 1))
        self.brightness = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, value: Tensor) -> Tensor:
        """The images in another tone."""
        return value * (1 + self.contrast) + self.brightness


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Pixels of the canvas (None: the source's own), and how to fit."""

    canvas: int | None = None
    recipe: rp.Recipe = rp.Recipe(lr=0.05, epochs=5, batch_size=16)


def build(source: Source, task: TaskSpec, config: Config) -> rp.Program:
    """``I = resize, tone``, ``O = Bayesian label mapping``."""
    size = source.spec.canvas(config.canvas)
    output = BayesianMap(source.spec.outputs, len(task.classes))
    origin = Origin(method=METHOD.name, config=config, task=task)
    return rp.Program([Place(size, size), Tone(task.sample.shape[0])], source, output, origin=origin)


METHOD = rp.Method(
    name="tone",
    summary="learned contrast and brightness",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.INPUT, Operator.PARAMETRIC, Alignment.STATISTICAL),
    paper=Paper(title="An example", authors="You", year=2026),
    config=Config,
    build=build,
)

if __name__ == "__main__":
    check_method(METHOD)
    task = tiny_task()
    result = rp.fit(rp.build(METHOD, tiny_source(), task), task)
    assert result.test is not None
    print(f"contract kept; test accuracy {result.test.accuracy:.0%} with {result.program.count().allocated} numbers")
