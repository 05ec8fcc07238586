"""Optimizers that need values of a loss only: they propose points, are told the losses there, and move on.

    found = SpsaGc(torch.zeros(3), lr=0.1)
    for _ in range(100):
        trials = found.ask()                               # [P, d]
        found.tell(torch.stack([loss(w) for w in trials])) # [P]
    found.values                                           # [d]

Nothing here knows of programs or sources. Random numbers are a function of the seed and of the step, so that the few
tensors of `state_dict` are all an exact resumption needs. CMA-ES is in `zeroth_order_cma`.
"""

from collections.abc import Mapping
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ArtifactError, ConfigError, FitError, say
from reprogram.core.method import Search
from reprogram.fit.state import mix


@runtime_checkable
class AskTell(Protocol):
    """An optimizer of d numbers that asks for losses."""

    @property
    def values(self) -> Tensor:
        """Where it is now, [d]."""
        ...

    @property
    def weights(self) -> Tensor:
        """[P], of sum 1: the mean of the trials with these weights is `values` (or expected to be)."""
        ...

    def ask(self) -> Tensor:
        """The trials of this step, [P, d]. Asked twice, it says the same."""
        ...

    def tell(self, losses: Tensor, factor: float = 1.0) -> None:
        """The losses of these trials, [P]: make a step. `factor` multiplies the learning rate, where there is one."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All that is needed to go on."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it up again."""
        ...


class _Estimating:
    """What optimizers that follow an estimate of the gradient share: w, a running mean m, the number of the step."""

    def __init__(self, start: Tensor, lr: float, momentum: float, search: Search, seed: int) -> None:
        _check_draws(search)
        self._values, self._moved = start.detach().clone(), torch.zeros_like(start)
        self._step = 1
        self._lr, self._momentum, self._search, self._seed = lr, momentum, search, seed

    @property
    def values(self) -> Float[Tensor, " d"]:
        """Where it is, w."""
        return self._values

    def state_dict(self) -> dict[str, Tensor]:
        """w, m and the number of the step."""
        return {"values": self._values, "moved": self._moved, "step": torch.tensor(self._step)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them back.

        Raises:
            ArtifactError: they are not from an optimizer like this one.
        """
        self._values, self._moved = taken(state, "values", self._values), taken(state, "moved", self._moved)
        self._step = int(taken(state, "step", torch.tensor(1)))


@final
class SpsaGc(_Estimating):
    """Simultaneous perturbation with gradient correction (BlackVIP; Oh et al. 2023, arXiv 2303.14773, section 4.2).

    In step k = 1, 2, ... with ``a_k = lr / (k + o) ** alpha`` and ``c_k = c / k ** gamma``, for every draw a direction
    D of numbers +-U(0.5, 1) with a fair sign:

        g_j = mean over draws of (L(w + c_k D) - L(w - c_k D)) / (2 c_k D_j)
        m <- beta m + g            (m = g in the first step)
        w <- w - a_k (g + beta m)

    Exactly unbiased for a quadratic L, whatever c_k is.

    Args:
        start: w, [d].
        lr: a; 0.01 in the published configuration.
        momentum: beta; 0.9 there.
        search: c, alpha, gamma, o and the number of draws.
        seed: of the directions.

    Raises:
        ConfigError: no draws.

    >>> found = SpsaGc(torch.zeros(2), lr=0.1)
    >>> found.ask().shape  # two for each of five draws
    torch.Size([10, 2])
    """

    def __init__(
        self, start: Float[Tensor, " d"], *, lr: float = 0.01, momentum: float = 0.9, search: Search = Search(),
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(start, lr, momentum, search, seed)

    @property
    def weights(self) -> Float[Tensor, " trial"]:
        """Each pair lies around w, so that all trials count alike."""
        return torch.full((2 * self._search.draws,), 0.5 / self._search.draws)

    def ask(self) -> Float[Tensor, " trial d"]:
        """``w + c D`` of all draws, then ``w - c D`` of all draws."""
        away = self._radius() * self._directions()
        return torch.cat([self._values + away, self._values - away])

    def estimate(self, losses: Float[Tensor, " trial"]) -> Float[Tensor, " d"]:
        """g, from the losses of the trials."""
        draws, directions = self._search.draws, self._directions()
        slopes = (losses[:draws].double() - losses[draws:].double()) / (2 * self._radius())
        return (slopes.to(directions).unsqueeze(1) / directions).mean(0)

    def tell(self, losses: Float[Tensor, " trial"], factor: float = 1.0) -> None:
        """Step."""
        _check_losses(losses, 2 * self._search.draws)
        gradient = self.estimate(losses)
        rate = factor * self._lr / (self._step + self._search.offset) ** self._search.decay
        self._moved = self._momentum * self._moved + gradient
        self._values = self._values - rate * (gradient + self._momentum * self._moved)
        self._step += 1

    def _radius(self) -> float:
        return self._search.radius / self._step**self._search.radius_decay

    def _directions(self) -> Float[Tensor, " draw d"]:
        draw, shape = (
            torch.Generator().manual_seed(mix(self._seed, "spsa", self._step)),
            (self._search.draws, len(self._values)),
        )
        size = 0.5 + 0.5 * torch.rand(shape, generator=draw)
        sign = torch.randint(0, 2, shape, generator=draw) * 2 - 1
        return (size * sign).to(self._values)


@final
class OneSided(_Estimating):
    """Averaged one-sided differences: random gradient-free descent (BAR; Tsai et al. 2020, arXiv 2007.08714).

        g = b / q  *  sum of (L(w + beta u_i) - L(w)) / beta * u_i
        m <- momentum m + g,    w <- w - lr m

    with u_i uniform on the unit sphere and b = d, which makes g unbiased for a quadratic L (BAR: beta = 0.1; BlackVIP's
    port of it: beta = 0.01, q = 5, u = N(0, sigma^2 I) / ||.||, which is the same distribution for every sigma), or
    with u_i from N(0, I) and b = 1. A smaller b (`search.scale`) trades length for variance.

    Args:
        start: w, [d].
        lr: learning rate.
        momentum: of the steps; 0 as published.
        search: beta (`radius`), q (`draws`), `directions` and `scale`.
        seed: of the directions.

    Raises:
        ConfigError: no draws.

    >>> OneSided(torch.zeros(2), lr=0.1).ask().shape  # w itself, and five others
    torch.Size([6, 2])
    """

    def __init__(
        self, start: Float[Tensor, " d"], *, lr: float = 0.01, momentum: float = 0.0, search: Search = Search(),
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(start, lr, momentum, search, seed)

    @property
    def weights(self) -> Float[Tensor, " trial"]:
        """The first trial is w."""
        return torch.eye(1, self._search.draws + 1).squeeze(0)

    def ask(self) -> Float[Tensor, " trial d"]:
        """w, then ``w + beta u`` of all draws."""
        away = self._search.radius * self._directions()
        return torch.cat([self._values.unsqueeze(0), self._values + away])

    def estimate(self, losses: Float[Tensor, " trial"]) -> Float[Tensor, " d"]:
        """g, from the losses of the trials."""
        directions, search = self._directions(), self._search
        unbiased = float(len(self._values)) if search.directions == "sphere" else 1.0
        scale = unbiased if search.scale is None else search.scale
        slopes = scale * (losses[1:].double() - losses[0].double()) / search.radius
        return (slopes.to(directions).unsqueeze(1) * directions).mean(0)

    def tell(self, losses: Float[Tensor, " trial"], factor: float = 1.0) -> None:
        """Step."""
        _check_losses(losses, self._search.draws + 1)
        self._moved = self._momentum * self._moved + self.estimate(losses)
        self._values = self._values - factor * self._lr * self._moved
        self._step += 1

    def _directions(self) -> Float[Tensor, " draw d"]:
        draw = torch.Generator().manual_seed(mix(self._seed, "one-sided", self._step))
        u = torch.randn(self._search.draws, len(self._values), generator=draw, dtype=torch.float64)
        if self._search.directions == "sphere":
            u = u / u.norm(dim=1, keepdim=True)
        return u.to(self._values)


def taken(state: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """One tensor of a saved state, a copy, where `like` is.

    Raises:
        ArtifactError: it is missing, or of another shape.
    """
    found = state.get(name)
    if found is None or found.shape != like.shape:
        got = None if found is None else list(found.shape)
        raise ArtifactError(say(f"optimizer.{name}", f"must be of the shape {list(like.shape)}", got))
    return found.detach().clone().to(like)


def _check_draws(search: Search) -> None:
    if search.draws < 1:
        raise ConfigError(say("recipe.search.draws", "must be 1 or more", search.draws))


def _check_losses(losses: Tensor, trials: int) -> None:
    if losses.shape != (trials,):
        raise ConfigError(say("losses", f"must be {trials} numbers, one for each trial", list(losses.shape)))
    if not bool(losses.isfinite().all()):
        raise FitError(say("losses", "must be finite", losses.tolist(), "Try a smaller lr or radius."))
