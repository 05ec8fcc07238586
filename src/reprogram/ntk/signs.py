"""Signs of failure, as plain warnings: what the kernel and the source's answers on the target data give away."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reprogram.ntk.spectrum import Spectrum

REACH = 0.5
BEYOND = 0.95
SATURATED = 0.95
NEARLY_SINGULAR = 1e-7
MARGIN = 10.0
"""How many roundings of the scores a program must be able to move them by; the random twin of a deep network is at 1,
healthy sources from 100 (bfloat16) to 10 million (float32)."""
FEWEST = 10
"""Samples from which a shuffle of the labels is a test; fewer have too few orders."""


def duplicates(x: Tensor) -> int:
    """How many samples are bit for bit copies of earlier ones.

    >>> duplicates(torch.tensor([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]]))
    1
    """
    return len(x) - len(torch.unique(x.flatten(1), dim=0))


def collapsed(said: Float[Tensor, " n source"]) -> float:
    """How many source classes the predictions spread over: the perplexity of the most likely class.

    >>> collapsed(torch.eye(4)), collapsed(torch.ones(4, 4))
    (4.0, 1.0)
    """
    shares = torch.bincount(said.argmax(1), minlength=said.shape[1]).double() / len(said)
    return math.exp(float(-(shares[shares > 0] * shares[shares > 0].log()).sum()))


def certainty(said: Float[Tensor, " n source"]) -> float:
    """The mean probability of the source's most likely class."""
    return float(said.double().softmax(1).max(1).values.mean())


def below_rounding(spectrum: Spectrum, scores: Float[Tensor, " n target"], eps: float) -> bool:
    """Whether what the program can do to the scores drowns in their rounding: they are as good as constant.

    The mean eigenvalue is the mean squared change of a score for a change of the program by 1 along its gradient. It is
    set against the square of a score's rounding, eps times the median size of a score (the median, because a label map
    may give a huge constant to classes that it never saw).

    >>> from reprogram.ntk.spectrum import spectrum
    >>> tiny = spectrum(1e-18 * torch.eye(2, dtype=torch.float64))
    >>> below_rounding(tiny, torch.ones(2, 1), 1e-7), below_rounding(tiny, 1e-6 * torch.ones(2, 1), 1e-7)
    (True, False)
    """
    return spectrum.mean <= (MARGIN * eps * float(scores.double().abs().median())) ** 2


def beyond_chance(spectrum: Spectrum, y: Int[Tensor, " n"], targets: int, seed: int, draws: int = 50) -> float:
    """Share of label shuffles whose energy under the kernel is below that of the true labels: 0.5 means no relation.

    y^T K y for the centred one-hot labels against the same for `draws` shuffles of them, from one decomposition.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.arange(len(y)), *(torch.randperm(len(y), generator=generator) for _ in range(draws))]
    hot = torch.nn.functional.one_hot(y.cpu(), targets).double()
    hot -= hot.mean(0)
    sets = torch.stack([hot[o].flatten() for o in orders], 1)
    weights = (spectrum.vectors.cpu().T @ sets).square()
    energy = spectrum.eigenvalues.cpu() @ weights
    return float((energy[1:] < energy[0]).double().mean())


def signs(
    program: Spectrum | None, source: Spectrum | None, said: Tensor, facts: dict[str, float], samples: int
) -> list[str]:
    """Warnings.

    Args:
        program: spectrum of the program kernel.
        source: of the source kernel.
        said: [N, S] what the source says on the samples.
        facts: "reachable", "beyond_chance", "below_rounding", "targets", "duplicates", as far as known.
        samples: N.
    """
    found: list[str] = []
    copies = int(facts.get("duplicates", 0))
    if copies:
        found.append(f"{copies} of {samples} samples are copies of others: as many blocks of the kernel are exactly "
                     "singular, so lambda_min is zero whatever the source. Take them out.")  # fmt: skip
    if program is not None:
        found += _program_signs(program, facts, samples)
    if source is not None and source.largest > 0:
        found += _kernel_signs(source)
    return found + _source_signs(said, facts)


def _program_signs(program: Spectrum, facts: dict[str, float], samples: int) -> list[str]:
    if program.largest <= 0:
        return ["The scores do not depend on what the program learns: its kernel is zero. Gradients will not train it "
                "(a hard layer in the source? an output map that was never fitted?)."]  # fmt: skip
    if facts.get("below_rounding"):
        return ["Nearly constant outputs: a program's change of size 1 moves the scores by no more than their own "
                f"rounding (mean eigenvalue {program.mean:.0e}), so gradients will hardly train it and its spectrum "
                "says nothing (a source with random weights? one whose signal dies on the way?)."]  # fmt: skip
    found: list[str] = []
    reach = facts.get("reachable", 1.0)
    if reach < REACH:
        rank = f"rank {program.rank} of {program.size}"
        found.append(f"Only {reach:.0%} of the label energy is in linear reach ({rank}): expect a training loss that "
                     "stops early; a program with more learned numbers would reach more.")  # fmt: skip
    if samples >= FEWEST and facts.get("beyond_chance", 1.0) < BEYOND:
        found.append("Domain mismatch: the kernel has no clearly higher energy for the true labels than for shuffled "
                     f"ones (above {facts['beyond_chance']:.0%} of shuffles).")  # fmt: skip
    return found


def _kernel_signs(source: Spectrum) -> list[str]:
    lowest = source.smallest
    if lowest is not None and lowest >= NEARLY_SINGULAR * source.largest:
        return []
    if lowest is not None:
        return ["Low lambda_min: the source's own kernel is nearly singular on these data (lambda_min is "
                f"{lowest / source.largest:.0e} of lambda_max): some samples look almost the same to it."]  # fmt: skip
    if source.cap < source.size:
        return [f"Low lambda_min: the source's own kernel is singular ({source.smallest_note}): it has too few numbers "
                "for the sample, or the label mapping too few independent outputs."]  # fmt: skip
    return ["Low lambda_min: the source's own kernel is singular on these data "
            f"({source.smallest_note}), so some samples look the same to it."]  # fmt: skip


def _source_signs(said: Tensor, facts: dict[str, float]) -> list[str]:
    found: list[str] = []
    if said.shape[1] < 2:  # a single score has no most likely class
        return found
    most = min(facts.get("targets", 2.0), *said.shape)  # nothing spreads over more classes than samples or scores
    spread, sure = collapsed(said), certainty(said)
    if spread < most / 2:
        found.append(f"Domain mismatch: the source's predictions fall into {spread:.1f} classes in effect where "
                     f"{most:.0f} could be: most target data look the same to it.")  # fmt: skip
    if sure > SATURATED:
        found.append(f"Over-trained source: it gives its first choice a probability of {sure:.2f} on average on data "
                     "that are not its own; saturated outputs have small gradients for a program.")  # fmt: skip
    return found
