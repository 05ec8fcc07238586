"""How well do kernel scores predict reprogramming over different architectures, against plain source accuracy?"""

from collections.abc import Sequence

from reprogram.experiments.claims import Claim, Row, ask
from reprogram.experiments.experiment import (
    LOWER_IS_BETTER,
    PROGRAM_EIGENVALUE,
    SCORES,
    SOURCE_EIGENVALUE,
    Experiment,
    cloud,
    families,
    of,
    spectra,
    values,
)
from reprogram.experiments.options import Options
from reprogram.experiments.zoo import Design
from reprogram.report.experiment import Chart, Sheet

SIZES = {
    "mlp": ((1, 64), (2, 128), (4, 128)),
    "cnn": ((2, 16), (3, 32), (4, 48)),
    "vit": ((1, 32), (2, 48), (3, 64)),
}
QUICK_SIZES = {"mlp": ((1, 32),), "cnn": ((2, 8),), "vit": ((1, 16),)}
PREDICTORS = ("source_lambda_min", "program_lambda_min", "gf_loss", "gf_loss_relative", "ce_rate", "loo_accuracy",
              "alignment", "effective_rank", "source_accuracy")  # fmt: skip


def designs(options: Options, seed: int) -> list[Design]:
    """Three sizes each of MLP, CNN and ViT."""
    sizes = QUICK_SIZES if options.quick else SIZES
    return [Design(family="mlp", depth=d, width=w, seed=seed) for d, w in sizes["mlp"]] + [
        Design(family="cnn", depth=d, width=w, seed=seed) for d, w in sizes["cnn"]
    ] + [Design(family="vit", depth=d, width=w, seed=seed) for d, w in sizes["vit"]]  # fmt: skip


def claims(rows: Sequence[Row], method: str) -> list[Claim]:
    """Every predictor against accuracy, over all designs of one method."""
    return [ask(f"{SCORES[s].capitalize()} predicts the order of accuracy", rows, f"{method}, all designs", s,
                higher=s not in LOWER_IS_BETTER) for s in PREDICTORS]  # fmt: skip


def charts(rows: Sequence[Row]) -> list[Chart]:
    """The main predictors against accuracy."""
    chosen = (SOURCE_EIGENVALUE, PROGRAM_EIGENVALUE, "gf_loss", "source_accuracy")
    clouds = [
        cloud(rows, s, s.replace("_", "-"), f"{SCORES[s].capitalize()} against accuracy, every seed.") for s in chosen
    ]
    return [
        *clouds,
        spectra(rows, "source_spectrum", "source-spectrum", "Eigenvalues of the source's kernel, first seed."),
    ]


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Rank correlations of every predictor, over all designs and within each family."""
    made: list[Sheet] = []
    for method in values(rows, "method"):
        groups = families(of(rows, method=method))
        lines = [(SCORES[s], *(_cell(ask("", some, "", s, higher=s not in LOWER_IS_BETTER)) for _, some in groups))
                 for s in PREDICTORS]  # fmt: skip
        made.append(Sheet(
            title=f"Rank correlation with accuracy, {method}", heads=("score", *(name for name, _ in groups)),
            rows=lines,
            note="Spearman with its 90 % bootstrap interval and the number of designs; signed so that above 0 means "
                 "that "
            "the score says the right thing. Families of three designs say next to nothing.",
        ))  # fmt: skip
    return made


def _cell(claim: Claim) -> str:
    if claim.spearman is None:
        return "–"
    span = f" ({claim.interval[0]:+.2f} to {claim.interval[1]:+.2f})" if claim.interval else ""
    return f"{claim.spearman:+.2f}{span}, {claim.designs}"


EXPERIMENT = Experiment(
    name="architectures",
    title="Prediction against outcome over architectures",
    question="Do scores of the tangent kernel, taken before any training, put CNNs, MLPs and vision transformers in "
    "the "
    "order of the accuracy that reprogramming reaches, and better than plain source accuracy does?",
    designs=designs,
    claims=claims,
    charts=charts,
    sheets=sheets,
    caveats=(
        "Nine scores are compared on the same few designs: one of them looking good is to be expected by luck.",
        "Kernels of different architectures have different scales of logits; absolute scores reward confident sources.",
    ),
    ready=True,
)
