"""Does a wider source have larger eigenvalues, and does it reprogram better?"""

from collections.abc import Sequence

from reprogram.experiments.claims import Claim, Row, ask
from reprogram.experiments.experiment import (
    PROGRAM_EIGENVALUE,
    SOURCE_EIGENVALUE,
    Experiment,
    cloud,
    curve,
    families,
    spectra,
)
from reprogram.experiments.options import Options
from reprogram.experiments.zoo import Design, Family
from reprogram.report.experiment import Axis, Chart

WIDTHS = (8, 16, 32, 64, 128)
DEPTHS: tuple[tuple[Family, int], ...] = (("mlp", 2), ("cnn", 3))


def designs(options: Options, seed: int) -> list[Design]:
    """MLPs of two hidden layers and CNNs of three convolutions, of each width."""
    widths = (8, 32) if options.quick else WIDTHS
    return [Design(family=family, depth=depth, width=width, seed=seed)
            for family, depth in DEPTHS for width in widths]  # fmt: skip


def claims(rows: Sequence[Row], method: str) -> list[Claim]:
    """What theory says of width, for the rows of one method."""
    made: list[Claim] = []
    for where, some in families(rows):
        at = f"{method}, {where}"
        made += [
            ask("Wider sources reprogram better", some, at, "width"),
            ask("Wider sources have a larger smallest eigenvalue", some, at, "width", SOURCE_EIGENVALUE),
            ask("A program on a wider source has a larger smallest eigenvalue", some, at, "width", PROGRAM_EIGENVALUE),
            ask("A larger smallest eigenvalue of the source's kernel means better reprogramming", some, at,
                SOURCE_EIGENVALUE),
            ask("A larger smallest eigenvalue of the program's kernel means better reprogramming", some, at,
                PROGRAM_EIGENVALUE),
        ]  # fmt: skip
    return made


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Eigenvalues, rank and accuracy over width, and eigenvalues against accuracy."""
    width = Axis(title="width of the source", log=True)
    eigen, share = Axis(title="smallest eigenvalue", log=True), Axis(title="target accuracy", share=True)
    return [
        curve(rows, "width", SOURCE_EIGENVALUE, (width, eigen), "source-eigenvalue",
              "Smallest eigenvalue of the source's kernel over width, median over seeds; none is drawn where it is "
              "zero."),
        curve(rows, "width", PROGRAM_EIGENVALUE, (width, eigen), "program-eigenvalue",
              "Smallest eigenvalue of the program's kernel over width."),
        curve(rows, "width", "program_rank", (width, Axis(title="rank")), "rank",
              "Numerical rank of the program's kernel: narrow sources are bottlenecks."),
        spectra(rows, "source_spectrum", "source-spectrum", "Eigenvalues of the source's kernel, first seed."),
        curve(rows, "width", "accuracy", (width, share), "accuracy", "Test accuracy after reprogramming over width."),
        cloud(rows, SOURCE_EIGENVALUE, "cloud-source", "Source's smallest eigenvalue against accuracy, every seed."),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    name="width",
    title="Width of the source, its kernel, and reprogramming",
    question="Theory has the smallest eigenvalue of a network's tangent kernel grow with its width. Does it here, "
    "after "
    "training, and does reprogramming get better with it?",
    designs=designs,
    claims=claims,
    charts=charts,
    caveats=("The theory is about random weights and widths without bound; these sources are trained and narrow.",),
)
