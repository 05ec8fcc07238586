"""Each figure of a diagnosis in words: what it predicts, and how far to trust it.

The trust sentences are measured, not hoped: docs/lab holds the runs. Short form: lambda_min told configurations apart
and not seeds; no initial figure of a low-rank program beat a short probe; nothing here is an accuracy.
"""

from collections.abc import Mapping

from reprogram.ntk.diagnosis import Reading
from reprogram.ntk.sketch import SketchResult
from reprogram.ntk.spectrum import Spectrum

RANKS = "Use it to rank sources on the identical sample, method and mapping; it grows with the source's logit scale."
FREE = "It does not depend on the scale of the logits."

WORDS = {
    "gf_loss": (
        "loss of gradient flow",
        "The squared loss a sample that is left after gradient flow for a time of 10, if the kernel stayed as it is.",
        f"It chose best among trained sources; random networks had the smallest of all. {RANKS}",
    ),
    "gf_loss_relative": (
        "the same, time per mean eigenvalue",
        "The share of the squared loss left when every source is trained for as long as its mean eigenvalue asks.",
        f"{FREE} It leaves out that confident sources learn faster, which is often real.",
    ),
    "reachable": (
        "reachable label energy",
        "The share of the centred labels that any amount of linearised training can fit; the rest stays as loss.",
        "Exact for the linearised program on this sample; real training changes the kernel and can go beyond it.",
    ),
    "alignment": (
        "kernel-target alignment",
        "How fast the labels are learned in the first steps: 1 if the kernel were the labels' own.",
        f"{FREE} It ranked sources weakly in the replication (Spearman 0.1 to 0.4).",
    ),
    "effective_rank": (
        "effective rank",
        "Directions in which the outputs can be moved with similar ease.",
        f"{FREE} Higher is not always better: untrained sources have high ones.",
    ),
    "condition": (
        "condition",
        "Steps of gradient descent at its best size, up to a factor, until the slowest direction in reach is fitted.",
        f"{FREE} Adam is less sensitive to it.",
    ),
    "loo_accuracy": (
        "leave-one-out accuracy, linearised",
        "The accuracy of the linearised program on each sample when it is fitted to all the others.",
        "Of so few samples only; trained programs did better and in another order, so it is no forecast.",
    ),
    "ce_rate": (
        "first-step rate of cross-entropy",
        "How fast cross-entropy falls at the very first step of gradient descent (the squared gradient).",
        f"One step only. {RANKS}",
    ),
}


def readings(
    values: Mapping[str, float | None],
    program: Spectrum | None,
    source: Spectrum | None,
    samples: tuple[int, int],
    *,
    lost: bool = False,
) -> tuple[Reading, ...]:
    """The figures in words, in the order in which a reader wants them.

    Args:
        values: by the names of `Diagnosis.scores`.
        program: spectrum of the program kernel.
        source: spectrum of the source kernel.
        samples: N of the one and of the other.
        lost: the program moves the scores by less than their rounding.
    """
    rows: list[Reading] = []
    if source is not None:
        predicts = "How well the source can be moved at all on these data; the paper's quantity."
        trust = f"Of {samples[1]} samples. It ordered sources trained alike, but stood highest for random networks."
        rows.append(_smallest("source lambda_min", values["source_lambda_min"], source, predicts, trust))
    if program is not None:
        rows += [_smallest("program lambda_min", values["program_lambda_min"], program,
                           "The slowest direction of training this program by gradient descent.", RANKS, lost=lost),
                 _rank(program)]  # fmt: skip
        rows += [Reading(name=name, value=values[key], shown=_shown(key, values[key]), predicts=predicts, trust=trust)
                 for key, (name, predicts, trust) in WORDS.items()]  # fmt: skip
        rows.append(Reading(name="program lambda_max", value=program.largest, shown=f"{program.largest:.3g}",
                            predicts=f"Gradient descent on the squared loss is stable {_step(program.largest)}.",
                            trust=f"Exact for the linearised program. {RANKS}"))  # fmt: skip
    return tuple(rows)


def _smallest(
    name: str, value: float | None, spectrum: Spectrum, predicts: str, trust: str, *, lost: bool = False
) -> Reading:
    note = "lost in the rounding of the scores" if lost else spectrum.smallest_note
    shown = f"{value:.3g}" if value is not None else note
    if value is None:
        kept = None if lost else spectrum.smallest_kept
        shown += f"; smallest above the floor {kept:.3g}" if kept is not None else ""
        trust = "No figure is given where it would be rounding noise; read the rank and the reachable energy instead."
    return Reading(name=name, value=value, shown=shown, predicts=predicts, trust=trust)


def _rank(spectrum: Spectrum) -> Reading:
    most = f" (at most {spectrum.cap} by structure)" if spectrum.cap < spectrum.size else ""
    return Reading(
        name="program rank",
        value=float(spectrum.rank),
        shown=f"{spectrum.rank} of {spectrum.size}{most}",
        predicts="How many independent demands on the outputs the program can meet.",
        trust=f"Counted above a noise floor of {spectrum.floor:.1e}; exact apart from eigenvalues at the floor.",
    )


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if key in ("reachable", "loo_accuracy", "gf_loss_relative") else f"{value:.3g}"


def _step(largest: float) -> str:
    return f"below a step of {2 / largest:.3g}" if largest > 0 else "at any step: nothing moves"


def of_sketch(found: SketchResult) -> tuple[Reading, ...]:
    """Figures of a sketch, each with its error bar; the smallest eigenvalue is not among them."""
    trust = f"From a sketch of {found.columns} columns on {found.samples:,} samples, with its error bar; no lambda_min."
    rows = [
        ("trace", found.trace, "The squared gradients of all scores by the learned numbers, summed; exact."),
        ("lambda_max", found.largest, "Gradient descent on all samples diverges above a step of 2 over it."),
        ("alignment", found.alignment, "Kernel-target alignment on all samples."),
        ("log-determinant", found.logdet, "The volume of the kernel: a smooth stand-in for its smallest eigenvalue."),
        *((f"label loss at time {t:.3g}", e, "Squared loss of the labels left after gradient flow from scores of zero.")
          for t, e in zip(found.times, found.flow_loss, strict=True)),
    ]  # fmt: skip
    return tuple(
        Reading(name=f"{name}, {found.samples:,} samples", value=e.value, shown=f"{e.value:.3g} ± {e.error:.2g}",
                predicts=predicts, trust=trust)
        for name, e, predicts in rows
    )  # fmt: skip
