"""VTPrompt: what a question is about is boxed and named on the picture before the question is asked.

Jiang et al., "Joint Visual and Text Prompting for Improved Object-Centric Perception with Multimodal Large Language
Models", 2024, arXiv:2404.04514.

Departures from the paper: without a detector of your own (the paper has Grounded-SAM; hand yours to
`inputs.marks_concepts.ConceptBoxes`) boxes are proposed by a segmentation by colour or a grid, and the source itself is
asked which of them shows what, which is only as good as its eyes. The words of the prompts are ours.
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.marks_concepts import BOXES, ConceptBoxes
from reprogram.inputs.marks_regions import Grid, Proposer, Segments
from reprogram.inputs.showing import Showing, listed
from reprogram.outputs.marked import NamedAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings.

    Attributes:
        question: about the picture; None for what it shows. The classes to choose from are named after it.
        concepts: what to look for; empty to ask the source, which is step 1 of the paper.
        regions: "segments" by colour, or a "grid".
        rows: of the grid.
        columns: of the grid.
        most: segments at most.
        size: pixels of the longer side that pictures are brought to before they are marked.
        tokens: to be written at most, for each question.
        recipe: nothing is learned.
    """

    question: str | None = None
    concepts: tuple[str, ...] = ()
    regions: Literal["segments", "grid"] = "segments"
    rows: int = 3
    columns: int = 3
    most: int = 12
    size: int = 448
    tokens: int = 128
    recipe: Recipe = Recipe(epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = boxes around the question's concepts``, ``O = the class named``."""
    proposer: Proposer = Grid(config.rows, config.columns) if config.regions == "grid" else Segments(most=config.most)
    ask = f"{config.question or 'What does the picture show?'} It is {listed(task.classes)}."
    writing = Writing(tokens=config.tokens)
    boxes = ConceptBoxes(f"{ask} End with a line that says Answer: and one of these.", proposer,
                         concepts=config.concepts, style=BOXES, writing=writing)  # fmt: skip
    edits = [Showing("", config.size), boxes]
    output = NamedAnswer(task.classes, writing)
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


METHOD = Method(
    name="vtprompt",
    summary="what a question is about is boxed and named on the picture before the question is asked",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.ADDITIVE, Operator.CONCATENATIVE,
                         Alignment.RULE_BASED),
    paper=Paper(
        title="Joint Visual and Text Prompting for Improved Object-Centric Perception with Multimodal Large Language "
              "Models",
        authors="Songtao Jiang and Yan Zhang and Chenyi Zhou and Yeying Jin and Yang Feng and Jian Wu and Zuozhu Liu",
        year=2024, arxiv="2404.04514",
    ),
    config=Config,
    build=build,
    needs=frozenset({Capability.GENERATION, Capability.PICTURES}),
    paper_tags="fixed; input; concatenative; rule-based",
)  # fmt: skip
