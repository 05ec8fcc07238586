"""Does a deeper source have larger eigenvalues, and does it reprogram better? With thresholds on the eigenvalues."""

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
    threshold_remarks,
    threshold_sheets,
)
from reprogram.experiments.options import Options
from reprogram.experiments.zoo import Design, Family
from reprogram.report.experiment import Axis, Chart

DEPTHS = (1, 2, 3, 4, 6)
WIDTHS: tuple[tuple[Family, int], ...] = (("mlp", 128), ("cnn", 32))


def designs(options: Options, seed: int) -> list[Design]:
    """MLPs of width 128 and CNNs of width 32, of each depth."""
    depths = (1, 3) if options.quick else DEPTHS
    return [Design(family=family, depth=depth, width=width, seed=seed)
            for family, width in WIDTHS for depth in depths]  # fmt: skip


def claims(rows: Sequence[Row], method: str) -> list[Claim]:
    """What the paper says of depth, and of eigenvalues, for the rows of one method."""
    made: list[Claim] = []
    for where, some in families(rows):
        at = f"{method}, {where}"
        made += [
            ask("Deeper sources reprogram better", some, at, "depth"),
            ask("Deeper sources have a larger smallest eigenvalue", some, at, "depth", SOURCE_EIGENVALUE),
            ask("A larger smallest eigenvalue of the source's kernel means better reprogramming", some, at,
                SOURCE_EIGENVALUE),
            ask("A larger smallest eigenvalue of the program's kernel means better reprogramming", some, at,
                PROGRAM_EIGENVALUE),
            ask("The smallest eigenvalues of source and program go together", some, at, SOURCE_EIGENVALUE,
                PROGRAM_EIGENVALUE),
            ask("Better sources reprogram better", some, at, "source_accuracy"),
        ]  # fmt: skip
    return made


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Eigenvalues and accuracy over depth, and against each other."""
    depth = Axis(title="depth of the source")
    eigen, share = Axis(title="smallest eigenvalue", log=True), Axis(title="target accuracy", share=True)
    return [
        curve(rows, "depth", SOURCE_EIGENVALUE, (depth, eigen), "source-eigenvalue",
              "Smallest eigenvalue of the source's kernel over depth, median over seeds."),
        curve(rows, "depth", PROGRAM_EIGENVALUE, (depth, eigen), "program-eigenvalue",
              "Smallest eigenvalue of the program's kernel over depth; none is drawn where it is zero by structure or "
              "below the noise."),
        spectra(rows, "source_spectrum", "source-spectrum", "Eigenvalues of the source's kernel, first seed."),
        spectra(rows, "program_spectrum", "program-spectrum", "Eigenvalues of the program's kernel above the noise."),
        curve(rows, "depth", "accuracy", (depth, share), "accuracy", "Test accuracy after reprogramming over depth."),
        cloud(rows, SOURCE_EIGENVALUE, "cloud-source", "Source's smallest eigenvalue against accuracy, every seed."),
        cloud(rows, PROGRAM_EIGENVALUE, "cloud-program", "Program's smallest eigenvalue against accuracy, every seed."),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    name="depth",
    title="Depth of the source, its kernel, and reprogramming",
    question="Do the eigenvalues of the tangent kernel grow with the depth of the source, and does a threshold on the "
    "smallest one tell sources that reprogram well from those that do not?",
    designs=designs,
    claims=claims,
    charts=charts,
    sheets=threshold_sheets,
    remarks=threshold_remarks,
    caveats=(
        "Depth, source accuracy and eigenvalues go together in such series, so none of them is shown to be a cause.",
    ),
    ready=True,
)
