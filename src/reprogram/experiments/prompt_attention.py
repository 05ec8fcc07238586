"""One layer of attention with a learned prompt (Oymak et al. 2023, arXiv 2306.03435), on mixtures with known optima.

An example has T tokens and a label y = ±1. Its k relevant tokens are ``q* + y w*``; q* says that a token matters, w*
what it says. The others are ``c q* - m y w* + s z`` with normal noise z: their context c and how much they speak
against the label, m, belong to the example and are drawn from a few `Kind`s. q* and w* are the first two unit vectors.

Four models end in a linear head without bias, ``f = head . sum_t a_t x_t``, and differ in the weights a_t:

    softmax prompt   a = softmax(X p)
    linear prompt    a = X p / T
    self-attention   a = mean over queries i of softmax_j(x_i' W x_j)
    mean             a = 1 / T
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say

Params = dict[str, Tensor]
"""Of R independent models at once: "head" [R, d], "prompt" [R, d] or "product" [R, d, d]."""

Weights = Callable[[Float[Tensor, " n tokens d"], Params], Float[Tensor, " runs n tokens"]]


class Kind(NamedTuple):
    """Examples of one kind: their share, and c and m of their irrelevant tokens."""

    share: float
    context: float = 0.0
    against: float = 0.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Where examples come from.

    Attributes:
        tokens: T.
        relevant: k, of them.
        width: d, 2 or more.
        noise: s, standard deviation of irrelevant tokens in every direction.
        kinds: shares sum to 1.

    Raises:
        ConfigError: a number is out of range.
    """

    tokens: int
    relevant: int
    width: int
    noise: float
    kinds: tuple[Kind, ...] = (Kind(1.0),)

    def __post_init__(self) -> None:
        if not 0 < self.relevant < self.tokens:
            raise ConfigError(say("relevant", f"must be between 1 and {self.tokens - 1}", self.relevant))
        if self.width < 2 or self.noise < 0:
            raise ConfigError(say("width and noise", "must be at least 2 and 0", (self.width, self.noise)))
        if abs(sum(kind.share for kind in self.kinds) - 1) > 1e-9:
            raise ConfigError(say("kinds", "must have shares that sum to 1", [k.share for k in self.kinds]))

    @property
    def share(self) -> float:
        """Of relevant tokens, k / T."""
        return self.relevant / self.tokens


def draw(
    mixture: Mixture, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, " count tokens d"], Float[Tensor, " count"]]:
    """Examples and labels. Relevant tokens come first, which none of the models can know."""
    y = torch.randint(2, (count,), generator=generator) * 2.0 - 1
    shares = torch.tensor([kind.share for kind in mixture.kinds])
    kind = torch.multinomial(shares, count, replacement=True, generator=generator)
    return _examples(mixture, y, kind, generator), y


def population(
    mixture: Mixture,
) -> tuple[Float[Tensor, " n tokens d"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """All examples there are without noise, their labels, and their shares.

    Raises:
        ConfigError: the mixture has noise, so there is no end of them.
    """
    if mixture.noise > 0:
        raise ConfigError(say("noise", "must be 0 for all examples to be listed", mixture.noise))
    kinds = len(mixture.kinds)
    y, kind = torch.tensor([1.0, -1.0]).repeat(kinds), torch.arange(kinds).repeat_interleave(2)
    shares = torch.tensor([k.share / 2 for k in mixture.kinds])[kind]
    return _examples(mixture, y, kind, torch.Generator()), y, shares


def _examples(mixture: Mixture, y: Tensor, kind: Tensor, generator: torch.Generator) -> Tensor:
    shape = (len(y), mixture.tokens, mixture.width)
    x = mixture.noise * torch.randn(shape, generator=generator)
    x[:, : mixture.relevant] = 0
    x[:, : mixture.relevant, 0] += 1
    x[:, : mixture.relevant, 1] += y[:, None]
    context, against = (torch.tensor([float(k[i]) for k in mixture.kinds])[kind] for i in (1, 2))
    x[:, mixture.relevant :, 0] += context[:, None]
    x[:, mixture.relevant :, 1] -= (against * y)[:, None]
    return x


# -- models ------------------------------------------------------------------------------------------------------------


def _softmax_prompt(x: Tensor, params: Params) -> Tensor:
    return torch.einsum("ntd,rd->rnt", x, params["prompt"]).softmax(-1)


def _linear_prompt(x: Tensor, params: Params) -> Tensor:
    return torch.einsum("ntd,rd->rnt", x, params["prompt"]) / x.shape[1]


def _self_attention(x: Tensor, params: Params) -> Tensor:
    queries = torch.einsum("ntd,rde->rnte", x, params["product"])
    return torch.einsum("rnte,nse->rnts", queries, x).softmax(-1).mean(2)


def _mean(x: Tensor, params: Params) -> Tensor:
    return x.new_full((len(params["head"]), *x.shape[:2]), 1 / x.shape[1])


PROMPT, LINEAR, SELF, MEAN = "softmax prompt", "linear prompt", "self-attention", "mean"

MODELS: dict[str, Weights] = {
    PROMPT: _softmax_prompt, LINEAR: _linear_prompt, SELF: _self_attention, MEAN: _mean,
}  # fmt: skip
"""The weights a [R, N, T] of each model."""


def scores(model: str, x: Float[Tensor, " n tokens d"], params: Params) -> Float[Tensor, " runs n"]:
    """The number f whose sign is the answer."""
    pooled = torch.einsum("rnt,ntd->rnd", MODELS[model](x, params), x)
    return torch.einsum("rnd,rd->rn", pooled, params["head"])


def begin(model: str, width: int, spread: float, generator: torch.Generator, runs: int = 1) -> Params:
    """Normal starts of standard deviation `spread` for so many runs."""
    shapes: dict[str, tuple[int, ...]] = {"head": (runs, width)}
    if model in (PROMPT, LINEAR):
        shapes["prompt"] = (runs, width)
    if model == SELF:
        shapes["product"] = (runs, width, width)
    return {name: spread * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """How a model is fitted, by the logistic loss of all examples in each step.

    Attributes:
        steps: of them.
        rate: of a step.
        adam: Adam with the rate falling along a cosine, where the question is what a model can do at all; else plain
            gradient descent, where it is what gradient descent finds.
    """

    steps: int
    rate: float
    adam: bool = False


def descend(
    model: str,
    data: tuple[Tensor, Tensor, Tensor],
    params: Params,
    how: Descent,
    look: Callable[[int, Params], None] = lambda _step, _params: None,
) -> Float[Tensor, " runs"]:
    """Fit in place; the runs do not see one another.

    Args:
        model: one of `MODELS`.
        data: examples [N, T, d], labels [N], shares [N] that sum to 1.
        params: starts of R runs.
        how: the steps.
        look: is called before each step and after the last.

    Returns:
        The last loss of every run, nats.
    """
    x, y, shares = data
    learned = [p.requires_grad_() for p in params.values()]
    optimizer = (torch.optim.Adam if how.adam else torch.optim.SGD)(learned, lr=how.rate)
    end = how.steps if how.adam else 10**9  # a cosine over so many steps is a constant
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, end)
    for step in range(how.steps):
        look(step, params)
        loss = _losses(model, x, y, shares, params).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    look(how.steps, params)
    for p in learned:
        p.requires_grad_(False)
    return _losses(model, x, y, shares, params)


def _losses(model: str, x: Tensor, y: Tensor, shares: Tensor, params: Params) -> Tensor:
    return nn.functional.softplus(-y * scores(model, x, params)) @ shares


@torch.no_grad()
def right(model: str, data: tuple[Tensor, Tensor, Tensor], params: Params) -> Float[Tensor, " runs"]:
    """Share of examples with f on the label's side."""
    x, y, shares = data
    return (scores(model, x, params) * y > 0).double() @ shares.double()


@torch.no_grad()
def relevant_mass(
    model: str, x: Float[Tensor, " n tokens d"], relevant: int, params: Params
) -> Float[Tensor, " runs"]:  # fmt: skip
    """Attention on relevant tokens, mean over examples."""
    return MODELS[model](x, params)[..., :relevant].sum(-1).mean(-1)


# -- what can be derived -----------------------------------------------------------------------------------------------


def prompt_accuracy(mixture: Mixture, kappa: float) -> float:
    """Accuracy of the prompt ``kappa q*`` with the head w*, irrelevant tokens being noise alone; for many tokens.

    The label's side gets ``k e^kappa`` and the noise a normal number of variance ``s^2 sum_j e^(2 kappa s z_j)``, whose
    sum over T - k tokens tends to ``(T - k) e^(2 kappa^2 s^2)``. Exact at kappa = 0, which is the mean.

    >>> spec = Mixture(tokens=64, relevant=8, width=2, noise=0.8)
    >>> round(prompt_accuracy(spec, 0.0), 4), round(prompt_accuracy(spec, best_prompt(spec)), 4)
    (0.9093, 0.9759)
    """
    k, s = mixture.relevant, mixture.noise
    ratio = k * math.exp(kappa - (kappa * s) ** 2) / (s * math.sqrt(mixture.tokens - k))
    return (1 + math.erf(ratio / math.sqrt(2))) / 2


def best_prompt(mixture: Mixture) -> float:
    """The kappa that makes `prompt_accuracy` largest: ``1 / (2 s^2)``."""
    return 1 / (2 * mixture.noise**2)


def prompt_mass(mixture: Mixture, kappa: float) -> float:
    """Attention on relevant tokens with the prompt ``kappa q*``, under the same conditions; largest at ``1 / s^2``.

    >>> spec = Mixture(tokens=64, relevant=8, width=2, noise=0.5)
    >>> prompt_mass(spec, 0.0), round(prompt_mass(spec, 4.0), 3)
    (0.125, 0.514)
    """
    k, rest = mixture.relevant, mixture.tokens - mixture.relevant
    mine = k * math.exp(kappa)
    return mine / (mine + rest * math.exp((kappa * mixture.noise) ** 2 / 2))


def pull(mixture: Mixture) -> float:
    """``k/T - (1 - k/T) E[m]``: the label's mean signal in an average over tokens.

    Gradient descent from (nearly) zero gives the head this sign along w* in its first step; with a head along +w* the
    prompt's first step is towards q*, with one along -w* away from it.
    """
    return mixture.share - (1 - mixture.share) * sum(kind.share * kind.against for kind in mixture.kinds)


def ceiling(model: str, mixture: Mixture, angles: int = 720) -> float | None:
    """The best accuracy that a model can have without noise; None where we do not know it.

    Without noise, tokens are one of two vectors, so the mean depends on one angle and the linear prompt on two; these
    are searched. The softmax prompt gets all right if relevant tokens have the largest context. Self-attention: see
    `self_attention_signal`.

    Args:
        model: one of `MODELS`.
        mixture: without noise.
        angles: so many in a circle.

    Raises:
        ConfigError: the mixture has noise.
    """
    x, y, shares = population(mixture)
    if model == PROMPT:
        return 1.0 if max(kind.context for kind in mixture.kinds) < 1 else None
    if model == SELF:
        return _self_ceiling(mixture)
    turn = torch.arange(angles) * (2 * math.pi / angles) + 1e-3
    way = torch.stack([turn.cos(), turn.sin()], 1)
    plane = x[..., :2]
    if model == MEAN:
        found = torch.einsum("ad,nd->an", way, plane.mean(1))
        return float(((found * y > 0).float() @ shares).max())
    products = torch.einsum("ntd,nte->nde", plane, plane) / x.shape[1]
    found = torch.einsum("ad,nde,be->abn", way, products, way[: angles // 2])
    return float(((found * y > 0).float() @ shares).max())


def self_attention_signal(share: float, m: float, a: Float[Tensor, " any"]) -> Float[Tensor, " any"]:
    """What self-attention's output is of ``r = q* + y w*`` when all other tokens are ``-m r``, for ``a = r' W r``.

    Every score follows from a: -m a between the two sorts, m^2 a among the others. Relevant queries give relevant keys
    the weight u, the others v, so the output is ``[share (u - m (1 - u)) + (1 - share) (v - m (1 - v))] r``.
    """
    odds = math.log(share / (1 - share))
    u, v = (odds + a * (1 + m)).sigmoid(), (odds - a * m * (1 + m)).sigmoid()
    return share * (u - m * (1 - u)) + (1 - share) * (v - m * (1 - v))


def _self_ceiling(mixture: Mixture) -> float | None:
    """If the signal is negative for every a, no W gets both that kind and a silent one (tokens at 0) right.

    There the output is a positive multiple of r. So the head's sign is wrong for one of the two, for each label.
    """
    silent = sum(k.share for k in mixture.kinds if k.context == 0 == k.against)
    contrary = [k for k in mixture.kinds if k.against > 0 and k.context == -k.against]
    a = torch.cat([-torch.logspace(3, -6, 4000), torch.zeros(1), torch.logspace(-6, 3, 4000)]).double()
    lost = sum(k.share for k in contrary if float(self_attention_signal(mixture.share, k.against, a).max()) < 0)
    return 1 - min(silent, lost) if min(silent, lost) > 0 else None
