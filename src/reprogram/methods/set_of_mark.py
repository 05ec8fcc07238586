"""Set-of-Mark: regions of the picture are numbered, so that a model can speak about them.

Yang et al., "Set-of-Mark Prompting Unleashes Extraordinary Visual Grounding in GPT-4V", 2023, arXiv:2310.11441.

Departures from the paper: regions come from a grid, given boxes or a segmentation by colour in place of SEEM and SAM
(for theirs, hand their masks to `inputs.marks.Marks`); labels are placed so that they never overlap, with lines to
what they mean where they stand outside of it; colours follow from the number. The labels are placed by ascending area
on what smaller regions left free, as in the paper; the published code treats every region alone. Results hang on the
model: many open models do not heed marks.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Output, Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.marks import Marks
from reprogram.inputs.marks_drawing import Style, name_of
from reprogram.inputs.marks_regions import Box, Boxes, Grid, Proposer, Segments
from reprogram.inputs.showing import Showing, asking, listed
from reprogram.outputs.marked import MarkedClasses, NamedAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        regions: "segments" by colour, a "grid", or "boxes".
        rows: of the grid.
        columns: of the grid.
        boxes: (left, top, right, bottom) in fractions, the same on every picture.
        most: segments at most.
        answer: "class": the model names the class and may cite marks. "mark": mark k stands for class k, and the model
            cites one; there must be as many regions as classes.
        question: what is asked; None for words of ours that name the classes.
        size: pixels of the longer side that pictures are brought to before they are marked.
        fill: alpha of the tint over regions (0.1, the code's default).
        edge: pixels of the regions' edges.
        font: pixels; None for what fits the picture.
        letters: a, b, c in place of 1, 2, 3.
        group: marks on one picture at most, 5 in the paper's benchmark; None for all.
        tokens: to be written at most.
        recipe: nothing is learned.
    """

    regions: Literal["segments", "grid", "boxes"] = "segments"
    rows: int = 3
    columns: int = 3
    boxes: tuple[Box, ...] = ()
    most: int = 12
    answer: Literal["class", "mark"] = "class"
    question: str | None = None
    size: int = 448
    fill: float = 0.1
    edge: int = 2
    font: int | None = None
    letters: bool = False
    group: int | None = None
    tokens: int = 128
    recipe: Recipe = Recipe(epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = prompt beside the picture, marks on it``, ``O = the class named, or the class of the mark cited``."""
    regions, most = _regions(config)
    labels = [name_of(k, letters=config.letters) for k in range(1, most + 1)]
    if config.answer == "mark" and (most != len(task.classes) or config.regions == "segments"):
        need = f"must give one fixed region for each of the {len(task.classes)} classes, for answers that are marks"
        raise ConfigError(say("regions", need, (config.regions, most)))
    writing = Writing(tokens=config.tokens)
    output: Output = (
        MarkedClasses(task.classes, writing, labels)
        if config.answer == "mark"
        else NamedAnswer(task.classes, writing, labels=labels)
    )
    style = Style(fill=config.fill, edge=config.edge, font=config.font, letters=config.letters)
    edits = [
        Showing(asking(config.question or _question(task, config, labels)), config.size),
        Marks(regions, style, group=config.group),
    ]
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


def _regions(config: Config) -> tuple[Proposer, int]:
    """Who proposes regions, and how many there can be."""
    if config.regions == "boxes":
        return Boxes(config.boxes), len(config.boxes)
    if config.regions == "grid":
        return Grid(config.rows, config.columns), config.rows * config.columns
    return Segments(most=config.most), config.most


def _question(task: TaskSpec, config: Config, labels: list[str]) -> str:
    if config.answer == "mark":
        legend = ", ".join(f"[{label}] {name}" for label, name in zip(labels, task.classes, strict=True))
        return f"Regions of the picture are marked: {legend}. Which one is it? Answer with its mark in brackets."
    kind = "letters" if config.letters else "numbers"
    return (
        f"Regions of the picture are marked with {kind}; cite them in brackets, such as [{labels[0]}]. "
        f"Is it {listed(task.classes)}? End with a line that says Answer: and one of these."
    )


METHOD = Method(
    name="set_of_mark",
    summary="regions of the picture are numbered, so that a model can speak about them",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.ADDITIVE, Operator.CONCATENATIVE,
                         Alignment.RULE_BASED),
    paper=Paper(
        title="Set-of-Mark Prompting Unleashes Extraordinary Visual Grounding in GPT-4V",
        authors="Jianwei Yang and Hao Zhang and Feng Li and Xueyan Zou and Chunyuan Li and Jianfeng Gao",
        year=2023, arxiv="2310.11441",
    ),
    config=Config,
    build=build,
    needs=frozenset({Capability.GENERATION, Capability.PICTURES}),
    paper_tags="fixed; input; concatenative; rule-based",
)  # fmt: skip
