"""PIVOT: points are drawn on the picture, the model picks the best, and new ones are drawn around those.

Nasiriany et al., "PIVOT: Iterative Visual Prompting Elicits Actionable Knowledge for VLMs", 2024, arXiv:2402.07872.

Departures from the paper: the search is for a point of the picture rather than a robot's action, so that a task's
classes are the cells of a table over the picture (point -> class); ids that were not drawn are left out; circles never
overlap, for which a point that finds no place is left out; the spread at the start and the least spread are ours.
"""

from dataclasses import dataclass

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs.pivot import Pivot, Search
from reprogram.inputs.showing import Showing
from reprogram.outputs.marked import PointClasses


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings. Rounds and points are those of the demonstration code.

    Attributes:
        question: what the point is to be; None for where the picture's subject is.
        rows: of the table of classes; None for the most nearly square table.
        columns: of the same.
        rounds: of drawing, asking and fitting (n_iters).
        first: points in the first round.
        later: points in the others.
        keep: points to ask for.
        trials: searches that start anew (n_parallel_trials).
        spread: standard deviation at the start, in fractions of the picture.
        least: standard deviation that it never falls below.
        arrows: from the middle to the points.
        font: pixels; None for what fits the picture.
        size: pixels of the longer side that pictures are brought to before they are marked.
        tokens: to be written at most, for each question.
        seed: of the points.
        recipe: nothing is learned.
    """

    question: str | None = None
    rows: int | None = None
    columns: int | None = None
    rounds: int = 3
    first: int = 25
    later: int = 10
    keep: int = 3
    trials: int = 1
    spread: float = 0.3
    least: float = 0.02
    arrows: bool = True
    font: int | None = None
    size: int = 448
    tokens: int = 128
    seed: int = 0
    recipe: Recipe = Recipe(epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = the search``, ``O = the class of the cell in which the point lies``."""
    rows, columns = _table(len(task.classes), config.rows, config.columns)
    search = Search(
        rounds=config.rounds, first=config.first, later=config.later, keep=config.keep, trials=config.trials,
        spread=config.spread, least=config.least, arrows=config.arrows, font=config.font, seed=config.seed,
    )  # fmt: skip
    question = config.question or "Which of them are nearest to the picture's subject?"
    edits = [Showing("", config.size), Pivot(question, search, Writing(tokens=config.tokens))]
    output = PointClasses(task.classes, rows, columns)
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


def _table(classes: int, rows: int | None, columns: int | None) -> tuple[int, int]:
    """Rows and columns of a table with a cell for each class.

    >>> _table(12, None, None), _table(3, 3, None)
    ((3, 4), (3, 1))
    """
    if rows is None and columns is None:
        rows = max(n for n in range(1, classes + 1) if classes % n == 0 and n * n <= classes)
    rows, columns = rows or classes // (columns or 1), columns or classes // (rows or 1)
    if rows * columns != classes:
        raise ConfigError(say("rows, columns", f"must make a table of {classes} cells", (rows, columns)))
    return rows, columns


METHOD = Method(
    name="pivot",
    summary="points are drawn on the picture, the model picks the best, new ones are drawn around those",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.ADDITIVE, Operator.CONCATENATIVE,
                         Alignment.RULE_BASED),
    paper=Paper(
        title="PIVOT: Iterative Visual Prompting Elicits Actionable Knowledge for VLMs",
        authors="Soroush Nasiriany and Fei Xia and Wenhao Yu and Ted Xiao and others",
        year=2024, arxiv="2402.07872",
    ),
    config=Config,
    build=build,
    needs=frozenset({Capability.GENERATION, Capability.PICTURES}),
    paper_tags="fixed; input; concatenative; rule-based",
)  # fmt: skip
