"""From one task's soft prompt to another's: which is most alike, and starting from it (SPoT, PPT)."""

from collections.abc import Sequence
from math import inf

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Program
from reprogram.inputs.soft_prompt import SoftPrompt


def prompt_of(program: Program) -> SoftPrompt:
    """The program's soft prompt.

    Raises:
        ConfigError: it has none, or several.
    """
    found = [edit for edit in program.input if isinstance(edit, SoftPrompt)]
    if len(found) != 1:
        kinds = [type(edit).__name__ for edit in program.input]
        raise ConfigError(say("program", "must have one SoftPrompt among its edits", kinds))
    return found[0]


def similarity(one: Float[Tensor, " n d"], other: Float[Tensor, " m d"]) -> float:
    """Cosine of the mean tokens of two prompts, which may differ in length (Vu et al. 2022, section 3.2).

    >>> similarity(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[2.0, 2.0]]))
    0.7071...
    """
    return float(F.cosine_similarity(one.detach().double().mean(0), other.detach().double().mean(0), dim=0))


def most_similar(target: Program, sources: Sequence[Program]) -> list[tuple[int, float]]:
    """Numbers of the source tasks' programs and the similarity of their prompts to the target's, the most alike first.

    As in SPoT, the target's prompt should have been trained for a few steps by then: a fresh one says nothing.

    Raises:
        ConfigError: a program has no soft prompt, or one of another width.
    """
    mine = prompt_of(target).values
    found = [(number, similarity(mine, _fitting(mine, source))) for number, source in enumerate(sources)]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


@torch.no_grad()
def transfer(target: Program, *sources: Program, weights: Sequence[float] | None = None) -> None:
    """Start the target's soft prompt from a source task's, or from the weighted mean of several. Changed in place.

    A shorter source prompt is repeated, a longer one cut.

    Args:
        target: to be fitted.
        sources: fitted on the same source model.
        weights: of the sources, such as their similarities; None for equal ones. Divided by their sum.

    Raises:
        ConfigError: no source, weights that do not fit, a program without a soft prompt, or one of another width.
    """
    shares = [1.0] * len(sources) if weights is None else [float(w) for w in weights]
    if not sources or len(shares) != len(sources) or min(shares) < 0 or not 0 < sum(shares) < inf:
        got = f"{len(sources)} programs, weights {weights}"
        raise ConfigError(say("sources", "must be at least one program, with a weight of 0 or more each", got))
    mine = prompt_of(target).values
    total = torch.zeros_like(mine)
    for share, source in zip(shares, sources, strict=True):
        theirs = _fitting(mine, source).detach().to(mine)
        index = torch.arange(len(mine), device=mine.device) % len(theirs)
        total += share / sum(shares) * theirs[index]
    mine.copy_(total)


def _fitting(mine: Tensor, program: Program) -> Tensor:
    theirs = prompt_of(program).values
    if theirs.shape[1] != mine.shape[1]:
        remedy = "Take one that was fitted on the same source model."
        raise ConfigError(say("source prompt", f"must be of width {mine.shape[1]}", theirs.shape[1], remedy))
    return theirs
