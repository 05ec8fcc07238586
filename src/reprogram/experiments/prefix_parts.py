"""What a prefix does to one attention layer, taken apart (Petrov et al. 2024, arXiv 2310.19698, section 4).

Let head h of a layer weigh the n prefix tokens by ``P_ij`` and the content by ``A_ij`` (one softmax over both), and let
``a_i = sum_j P_ij`` be the prefix's mass at position i. Then, with the same queries, keys and values as without prefix,

    out_i = a_i * sum_j (P_ij / a_i) v_j + (1 - a_i) * out_i^base,        A_ij / (1 - a_i) = A_ij^base

because a softmax over more entries only rescales the old ones. The first term is a mean of the n prefix values: one
fixed direction for n = 1, at most n of them for n tokens, whatever the content.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.program import Input
from reprogram.core.source import Reading
from reprogram.inputs import Prefix
from reprogram.sources import LanguageSource
from reprogram.sources.transformers_watch import Attended, watching

_TOKENS = Reading(tokens=True)


def weights(
    seen: Attended,
) -> tuple[Float[Tensor, " batch heads tokens n"], Float[Tensor, " batch heads tokens tokens"]]:
    """Attention weights in float64: P on the prefix (n = 0 without one) and A on the content; rows of both sum to 1."""
    repeat = seen.query.shape[1] // seen.key.shape[1]
    query = seen.query.double() * seen.scaling
    own = query @ seen.key.double().repeat_interleave(repeat, 1).transpose(2, 3)
    above = torch.ones(own.shape[-2:], dtype=torch.bool, device=own.device).triu(1)
    own = own.masked_fill(above, -torch.inf)
    before = own[..., :0]
    if seen.before is not None:
        before = query @ seen.before.keys.detach().double().repeat_interleave(repeat, 1).transpose(2, 3)
    both = torch.cat([before, own], -1).softmax(-1)
    return both[..., : before.shape[-1]], both[..., before.shape[-1] :]


def attended(source: LanguageSource, ids: Tensor, input: Input) -> dict[int, Attended]:
    """What every layer's attention does with token ids [1, tokens] and the edits of `input`."""
    with torch.no_grad(), watching(source) as seen:
        source(ids, input, _TOKENS)
    return seen


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a prefix in one layer did there, over heads and positions.

    Attributes:
        identity: largest deviation of the layer's output from the identity above, over the largest output.
        relative: largest change of the relative attention over content, ``A / (1 - a)``, in the prefix's own layer.
        later: mean over the layers after it of the total variation between relative attention with and without; None
            for the last layer.
        rank: the largest ratio of singular value n + 1 to the first, of what the prefix adds at all positions, over
            heads: 0 up to rounding if the additions span at most n directions.
        mass: mean of a_i.
        pull: size of the change of the output over the size of the output without prefix.
    """

    identity: float
    relative: float
    later: float | None
    rank: float
    mass: float
    pull: float


def take_apart(
    source: LanguageSource, ids: Tensor, prefix: Float[Tensor, " n one two heads width"], layer: int
) -> Taken:
    """Put a prefix before the keys and values of one layer and measure what follows.

    Args:
        source: a causal model, in float32 or better.
        ids: [1, S].
        prefix: [n, 1, 2, key heads, width]; the positions of the content do not move.
        layer: where.
    """
    base = attended(source, ids, Input())
    mine = attended(source, ids, Input(Prefix(prefix, shift=False, site=f"kv.{layer}")))
    here, old = mine[layer], base[layer].output.transpose(1, 2).double()
    on_prefix, on_content = weights(here)
    mass = on_prefix.sum(-1, keepdim=True)  # a
    repeat = here.query.shape[1] // here.key.shape[1]
    values = prefix[:, 0, 1].detach().double().transpose(0, 1).repeat_interleave(repeat, 0)  # [heads, n, width]
    out = here.output.transpose(1, 2).double()
    wrong = (out - (on_prefix @ values + (1 - mass) * old)).abs().max() / out.abs().max()
    change = _relative(on_content) - weights(base[layer])[1]
    drifts = [_relative(weights(mine[i])[1]) - weights(base[i])[1] for i in range(layer + 1, len(base))]
    later = [float(d.abs().sum(-1).mean() / 2) for d in drifts]
    return Taken(
        identity=float(wrong), relative=float(change.abs().max()), later=sum(later) / len(later) if later else None,
        rank=_beyond(out - (1 - mass) * old, len(prefix)), mass=float(mass.mean()),
        pull=float((out - old).norm() / old.norm()),
    )  # fmt: skip


def _relative(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)


def _beyond(added: Tensor, n: int) -> float:
    """The (n + 1)-th singular value over the first of [positions, width], the largest over heads."""
    values = torch.linalg.svdvals(added)
    return float((values[..., n] / values[..., 0]).max()) if values.shape[-1] > n else 0.0


def prompt_mass(source: LanguageSource, ids: Tensor, input: Input) -> tuple[list[float], list[float]]:
    """Per layer: the mass that attention gives what stands before the text, and the text's own first token.

    Args:
        source: a causal model.
        ids: [1, S].
        input: whose prefixes and start prompts are meant.

    Returns:
        Two lists of means over heads and over positions 2 to S (the first sees nothing but itself of the text).
    """
    seen = attended(source, ids, input)
    prompt, first = [], []
    for i in range(len(seen)):
        on_prompt, on_content = weights(seen[i])
        prompt.append(float(on_prompt[:, :, 1:].sum(-1).mean()))
        first.append(float(on_content[:, :, 1:, 0].mean()))
    return prompt, first
