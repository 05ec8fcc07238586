"""Sources with layers that gradients do not pass: what a kernel can still say of them, and how reprogramming fares."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reprogram.core.program import Program
from reprogram.experiments.claims import Claim, Row, ask, by_design
from reprogram.experiments.experiment import (
    PROGRAM_EIGENVALUE,
    SOURCE_EIGENVALUE,
    Experiment,
    cloud,
    of,
    values,
)
from reprogram.experiments.options import Options
from reprogram.experiments.zoo import Design, Family, Variant
from reprogram.ntk.zeroth_order import zeroth_order_kernel
from reprogram.report.experiment import Chart, Sheet

MADE: dict[Family, tuple[Variant, ...]] = {
    "cnn": ("float", "int8", "int2", "sign", "sign-through", "argmax", "argmax-through"),
    "mlp": ("float", "int8", "int2", "sign", "sign-through"),
}
QUICK: dict[Family, tuple[Variant, ...]] = {"cnn": ("float", "int2", "sign", "argmax-through")}
HARD = ("sign", "argmax")

SCALES = {"vp": 0.05, "fc": 0.002, "ilm_vp": 0.05, "blm": 0.05}
"""Steps of the zeroth-order estimate, in the units of what each method learns: a twentieth of a pixel's deviation."""

COLUMNS = ("source_accuracy", SOURCE_EIGENVALUE, PROGRAM_EIGENVALUE, "program_rank", "trace", "ce_rate",
           "zeroth_trace", "zeroth_trace_error", "zeroth_rate", "zeroth_rate_error", "before", "accuracy")  # fmt: skip


def designs(options: Options, seed: int) -> list[Design]:
    """A CNN and an MLP in every variant; rounded ones share the weights of the exact one."""
    chosen = QUICK if options.quick else MADE
    sizes = {"cnn": (2, 8) if options.quick else (3, 32), "mlp": (2, 128), "vit": (1, 16)}
    return [Design(family=family, depth=sizes[family][0], width=sizes[family][1], variant=variant, seed=seed)
            for family, variants in chosen.items() for variant in variants]  # fmt: skip


def extra(program: Program, x: Tensor, y: Tensor, options: Options) -> Mapping[str, Any]:
    """Whether a gradient reaches the program, and mean eigenvalue and descent rate of its kernel without gradients."""
    method = program.origin.method if program.origin else ""
    step = SCALES.get(method, 0.05)
    found = zeroth_order_kernel(program, x, step, options.scale.directions)
    gradient, slope = _gradient(program, x, y)
    trace, trace_error = found.trace()
    rate, rate_error = found.along(slope)
    entries = found.rows[0].numel()
    return {
        "gradient": gradient,
        "zeroth_scale": step,
        "zeroth_trace": trace / entries,
        "zeroth_trace_error": trace_error / entries,
        "zeroth_rate": rate,
        "zeroth_rate_error": rate_error,
        "zeroth_cap": found.cap,
    }


def _gradient(program: Program, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """Squared norm of the loss's gradient by the learned numbers, and its gradient by the outputs [N, T]."""
    program.eval()
    learned = [p for p in program.parameters() if p.requires_grad]
    scores = program(x)
    slope = (scores.detach().softmax(1) - torch.nn.functional.one_hot(y, scores.shape[1])) / len(y)
    found = torch.autograd.grad((scores * slope).sum(), learned, allow_unused=True)
    return sum(float(g.square().sum()) for g in found if g is not None), slope


def claims(rows: Sequence[Row], method: str) -> list[Claim]:
    """What the scores say over the variants of one method."""
    soft = [r for r in rows if r["variant"] not in HARD]
    smooth = [r for r in rows if r["variant"] in ("float", "int8", "int2")]
    kernel = "A larger smallest eigenvalue of the {} kernel means better reprogramming"
    return [
        ask(kernel.format("source's"), smooth, f"{method}, exact and rounded weights", SOURCE_EIGENVALUE),
        ask(kernel.format("program's"), smooth, f"{method}, exact and rounded weights", PROGRAM_EIGENVALUE),
        ask("A higher descent rate without gradients means better reprogramming", soft,
            f"{method}, all but those without gradients", "zeroth_rate"),
        ask("Better sources reprogram better", soft, f"{method}, all but those without gradients", "source_accuracy"),
    ]  # fmt: skip


def remarks(rows: Sequence[Row]) -> list[str]:
    """What holds by the numbers for hard layers and their surrogate gradients."""
    made: list[str] = []
    for method in values(rows, "method"):
        for variant in HARD:
            hard = of(rows, method=method, variant=variant)
            made += [_hard(hard, method, variant), *_blind(rows, method, variant)] if hard else []
            pairs = _pairs(rows, method, variant)
            made += [_through(pairs, method, variant)] if pairs else []
        for bits in ("int8", "int2"):
            made += _rounded(rows, method, bits)
    return made


def _hard(rows: Sequence[Row], method: str, variant: str) -> str:
    still = sum(r["gradient"] == 0 for r in rows)
    stayed = sum(r.get("moved") is False for r in rows)
    gains = [r["accuracy"] - r["before"] for r in rows if r["accuracy"] is not None]
    slopes = sum(r["zeroth_trace"] > 3 * r["zeroth_trace_error"] for r in rows)
    parts = [
        f"{variant}, {method}: the gradient is exactly zero in {still} of {len(rows)} sources; the program's kernel "
        f"is then "
        "zero and says nothing of them, neither good nor bad.",
        f"Fitting by gradients left every learned number where it was in {stayed} of {len(rows)}",
        f"and changed test accuracy by {_mean(gains):+.1%} on average (a label map is counted, not learned)." if gains
        else "and gave no result.",
        f"Differences at a finite step see slopes in {slopes} of {len(rows)}.",
    ]  # fmt: skip
    return " ".join(parts)


def _blind(rows: Sequence[Row], method: str, variant: str) -> list[str]:
    """The source's kernel is that of the layers after the last hard one only, which flatters it."""
    exact = {(r["family"], r["seed"]): r.get(SOURCE_EIGENVALUE) for r in of(rows, method=method, variant="float")}
    hard = of(rows, method=method, variant=variant)
    pairs = [(exact.get((r["family"], r["seed"])), r.get(SOURCE_EIGENVALUE)) for r in hard]
    known = [(e, h) for e, h in pairs if e is not None and h is not None]
    larger = sum(h > e for e, h in known)
    if not known:
        return []
    return [f"{variant}, {method}: the source's own kernel sees only the layers after the last hard one; its smallest "
            f"eigenvalue is larger than that of the exact source in {larger} of {len(known)}, although nothing before "
            "those layers can be moved: do not compare it."]  # fmt: skip


def _pairs(rows: Sequence[Row], method: str, variant: str) -> list[tuple[Row, Row]]:
    """The same weights without and with surrogate gradients."""
    hard, through = of(rows, method=method, variant=variant), of(rows, method=method, variant=f"{variant}-through")
    same = ("family", "depth", "width", "seed")
    found = [(h, t) for h in hard for t in through if all(h[k] == t[k] for k in same)]
    return [(h, t) for h, t in found if h["accuracy"] is not None and t["accuracy"] is not None]


def _through(pairs: Sequence[tuple[Row, Row]], method: str, variant: str) -> str:
    gains = [t["accuracy"] - h["accuracy"] for h, t in pairs]
    better = sum(g > 0 for g in gains)
    return (f"{variant}, {method}: surrogate gradients through the very same networks reach {_mean(gains):+.1%} of "
            f"accuracy "
            f"against none, better in {better} of {len(gains)}.")  # fmt: skip


def _rounded(rows: Sequence[Row], method: str, variant: str) -> list[str]:
    exact = {(r["family"], r["seed"]): r for r in of(rows, method=method, variant="float")}
    pairs = [(exact[r["family"], r["seed"]], r) for r in of(rows, method=method, variant=variant)
             if (r["family"], r["seed"]) in exact]  # fmt: skip
    pairs = [(f, r) for f, r in pairs if f["accuracy"] is not None and r["accuracy"] is not None]
    if not pairs:
        return []
    change, own = _mean([r["accuracy"] - f["accuracy"] for f, r in pairs]), _mean(
        [(r["source_accuracy"] or 0) - (f["source_accuracy"] or 0) for f, r in pairs]
    )  # fmt: skip
    return [f"{variant}, {method}: against exact weights, accuracy after reprogramming changes by {change:+.1%}, that "
            f"of the "
            f"source on its own data by {own:+.1%}; gradients by the input stay exact."]  # fmt: skip


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Both kinds of score against accuracy."""
    return [
        cloud(
            rows, SOURCE_EIGENVALUE, "cloud-source", "Source's smallest eigenvalue against accuracy, where it exists."
        ),
        cloud(rows, "zeroth_trace", "zeroth-trace", "Mean eigenvalue by differences against accuracy, every source."),
        cloud(rows, "zeroth_rate", "zeroth-rate", "Descent rate by differences against accuracy, every source."),
    ]


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """What each variant gives."""
    made: list[Sheet] = []
    for method in values(rows, "method"):
        means = by_design(of(rows, method=method), COLUMNS)
        lines = [(m["design"], _share(m["source_accuracy"]), _number(m["trace"]), _number(m["program_rank"]),
                  _number(m["zeroth_trace"], m["zeroth_trace_error"]), _number(m["ce_rate"]),
                  _number(m["zeroth_rate"], m["zeroth_rate_error"]), _share(m["before"]), _share(m["accuracy"]))
                 for m in means]  # fmt: skip
        made.append(Sheet(
            title=f"Layers that gradients do not pass, {method}",
            heads=("source", "own accuracy", "mean eigenvalue", "rank", "the same by differences",
                   "descent rate", "the same by differences", "accuracy before", "accuracy after"),
            rows=lines,
            note="Medians over seeds. Figures by differences have their standard error; their rank is at most the "
                 "number "
            "of directions, so no smallest eigenvalue is taken from them. With surrogate gradients the kernel is that "
            "of "
            "the surrogate; differences know nothing of it.",
        ))  # fmt: skip
    return made


def _number(value: float | None, error: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" + (f" ± {error:.1g}" if error is not None else "")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


EXPERIMENT = Experiment(
    name="layers",
    title="Sources with layers that gradients do not pass",
    question="Hard thresholds and positions have no gradients, rounded weights have. What can the analysis still say "
    "of such "
    "sources, and how does reprogramming fare on them?",
    designs=designs,
    claims=claims,
    charts=charts,
    sheets=sheets,
    remarks=remarks,
    extra=extra,
    caveats=(
        "Differences at a finite step measure slopes at that step's scale, which for hard layers grow as it shrinks; "
        "they "
        "compare only at the same step.",
        "Reprogramming without any gradients (by differences alone) was not tried.",
    ),
)
