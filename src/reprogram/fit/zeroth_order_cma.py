"""CMA-ES through pycma (Hansen, extra: zeroth): many samples around a mean, which moves to the better half."""

import importlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import ArtifactError, ConfigError, FitError, missing_extra, say
from reprogram.core.method import Search
from reprogram.fit.state import mix
from reprogram.fit.zeroth_order import taken

QUIET = -9
"""pycma's word for no output at all."""


@final
class CmaEs:
    """Covariance matrix adaptation (Hansen and Ostermeier 2001; separable: Ros and Hansen 2008).

    Its state is a log: the start and all losses so far. A resumption asks and tells again what was asked and told,
    which gives the same bits and needs no pickle; that takes the time of the optimizer alone, some milliseconds a step.

    Args:
        start: the first mean, [d].
        search: `radius`, the first standard deviation; `draws`, the population (0: ``4 + 3 ln d``, rounded down);
            `separable_above`.
        seed: of the samples; numpy's own state is neither read nor changed.

    Raises:
        ConfigError: a population of fewer than 2, or fewer than 2 numbers.
        MissingExtraError: pycma is not installed.

    >>> found = CmaEs(torch.ones(3), search=Search(radius=0.5, draws=6))
    >>> for _ in range(60):
    ...     found.tell(found.ask().square().sum(1))
    >>> bool(found.values.norm() < 1e-3)
    True
    """

    def __init__(self, start: Float[Tensor, " d"], *, search: Search = Search(draws=0), seed: int = 0) -> None:
        if len(start) < 2 or search.draws == 1:
            got = f"{len(start)} numbers, draws={search.draws}"
            raise ConfigError(say("cma_es", "needs 2 numbers to learn and 2 draws (or 0 for its own choice)", got))
        self._start, self._search, self._seed = start.detach().clone(), search, seed
        self._begin()

    @property
    def values(self) -> Float[Tensor, " d"]:
        """The mean, which under noise is better than the best trial seen."""
        return torch.as_tensor(self._strategy.mean).to(self._start)

    @property
    def weights(self) -> Float[Tensor, " trial"]:
        """All trials are drawn alike."""
        return torch.full((self._strategy.popsize,), 1 / self._strategy.popsize)

    def ask(self) -> Float[Tensor, " trial d"]:
        """The population."""
        return torch.stack([torch.as_tensor(one) for one in self._population()]).to(self._start)

    def tell(self, losses: Float[Tensor, " trial"], factor: float = 1.0) -> None:
        """Step; CMA-ES has no learning rate, so `factor` has no meaning here."""
        del factor
        if losses.shape != (self._strategy.popsize,):
            raise ConfigError(say("losses", f"must be {self._strategy.popsize} numbers", list(losses.shape)))
        if not bool(losses.isfinite().all()):
            raise FitError(say("losses", "must be finite", losses.tolist(), "Try a smaller radius."))
        self._told(losses.detach().double().cpu())

    def state_dict(self) -> dict[str, Tensor]:
        """The start, and the losses [steps, P]."""
        none = torch.empty(0, self._strategy.popsize, dtype=torch.float64)
        return {"start": self._start, "losses": torch.stack(self._log) if self._log else none}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Do all of it again.

        Raises:
            ArtifactError: it is not from an optimizer like this one.
        """
        losses = state.get("losses")
        if losses is None or losses.ndim != 2 or losses.shape[1] != self._strategy.popsize:
            got = None if losses is None else list(losses.shape)
            raise ArtifactError(say("optimizer.losses", f"must be [steps, {self._strategy.popsize}]", got))
        self._start = taken(state, "start", self._start)
        self._begin()
        for row in losses.double().cpu():
            self._told(row)

    def _population(self) -> list[Any]:
        if self._asked is None:
            with self._own_numbers("ask"):
                self._asked = list(self._strategy.ask())
        return self._asked

    def _told(self, losses: Tensor) -> None:
        population = self._population()
        with self._own_numbers("tell"):
            self._strategy.tell(population, losses.tolist())
        self._log.append(losses.clone())
        self._asked = None

    def _begin(self) -> None:
        try:
            cma, numpy = importlib.import_module("cma"), importlib.import_module("numpy")
        except ImportError as problem:
            raise missing_extra("cma", "zeroth", 'optimizer="cma_es"') from problem
        draw = numpy.random.default_rng(mix(self._seed, "cma"))
        options: dict[str, Any] = {
            "randn": lambda *shape: draw.standard_normal(shape), "seed": numpy.nan, "verbose": QUIET,
            "verb_log": 0, "CMA_diagonal": len(self._start) > self._search.separable_above,
        }  # fmt: skip
        if self._search.draws:
            options["popsize"] = self._search.draws
        start = self._start.double().cpu().numpy()
        self._numbers: Any = numpy.random
        self._asked: list[Any] | None = None
        self._log: list[Tensor] = []
        with self._own_numbers("begin"):
            self._strategy: Any = cma.CMAEvolutionStrategy(start, self._search.radius, options)

    @contextmanager
    def _own_numbers(self, where: str) -> Generator[None]:
        """Besides the samples, pycma rounds some of its counts at random, from numpy's global state."""
        before = self._numbers.get_state()
        self._numbers.seed(mix(self._seed, where, len(self._log)) % 2**32)
        try:
            yield
        finally:
            self._numbers.set_state(before)
