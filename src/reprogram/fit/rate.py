"""The learning-rate range test (Smith 2017, arXiv 1506.01186): a short fit whose rate grows until the loss explodes."""

import math
from dataclasses import dataclass, replace
from typing import final

import torch

from reprogram.core.errors import ConfigError, FitError, say
from reprogram.core.method import Recipe
from reprogram.core.program import Observing, Program, learns
from reprogram.fit.batches import shuffled
from reprogram.fit.feed import feed_for
from reprogram.fit.metrics import by_pixel
from reprogram.fit.optimizer import loss_of, losses, make_optimizer
from reprogram.fit.said import target_of
from reprogram.fit.state import mix
from reprogram.tasks import Task

SMOOTHING = 0.9
"""Of the exponential mean of the losses; about the last ten steps count."""

EXPLODED = 2.0
"""Times the smallest smoothed loss, beyond which the test stops."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RateCurve:
    """What the test saw.

    Attributes:
        rates: of every step.
        losses: smoothed, without the bias of the first steps.
        suggestion: the rate a third (on the log scale) of the way from where the loss begins to fall to where it is
            lowest, never more than a third of the latter: fast, and not at the edge.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def find_rate(
    program: Program, task: Task, *, low: float = 1e-5, high: float = 1.0, steps: int = 60, seed: int = 0
) -> RateCurve:
    """Try rates from `low` to `high`, growing by the same factor every step. The program is put back as it was.

    Args:
        program: with something to learn.
        task: its training split is read.
        low: first rate.
        high: last rate.
        steps: at most; fewer if the loss explodes.
        seed: of the order.

    Raises:
        ConfigError: nothing is learned, or the range is none.
        FitError: the loss is not finite at the first step already.
    """
    if not 0 < low < high or steps < 10:
        raise ConfigError(say("low, high, steps", "must be 0 < low < high and 10 steps or more", (low, high, steps)))
    if not learns(program):
        raise ConfigError(say("program", "must have something to learn", "nothing"))
    recipe = replace(program.origin.recipe if program.origin else Recipe(), lr=low, groups=())
    before = {name: value.detach().clone() for name, value in program.state_dict().items()}
    training = program.training
    with torch.random.fork_rng(devices=[]):
        try:
            rates, seen = _run(program, task, recipe, (low, high, steps, seed))
        finally:
            program.load_state_dict(before)
            program.train(training)
            program.zero_grad(set_to_none=True)
    return RateCurve(rates=tuple(rates), losses=tuple(seen), suggestion=suggest(rates, seen))


def suggest(rates: list[float], seen: list[float]) -> float:
    """The rate to take, from rates and smoothed losses.

    >>> rates = [10.0 ** (k / 10 - 4) for k in range(31)]
    >>> round(suggest(rates, [1.0] * 10 + [1 - 0.05 * k for k in range(11)] + [0.5 + 0.3 * k for k in range(10)]), 5)
    0.00251
    """
    bottom = min(range(len(seen)), key=seen.__getitem__)
    fall = seen[0] - seen[bottom]
    if bottom == 0 or fall <= 0:
        return rates[0]
    begins = next(i for i in range(bottom + 1) if seen[0] - seen[i] >= 0.1 * fall)
    between = math.log(rates[begins]) + (math.log(rates[bottom]) - math.log(rates[begins])) / 3
    return min(math.exp(between), rates[bottom] / 3)


def _run(
    program: Program, task: Task, recipe: Recipe, plan: tuple[float, float, int, int]
) -> tuple[list[float], list[float]]:
    low, high, steps, seed = plan
    optimizer, usual, feed = make_optimizer(program, recipe), losses(recipe.loss), feed_for(program)
    rows, rates, seen, mean = torch.empty(0, dtype=torch.int64), list[float](), list[float](), 0.0
    program.train()
    for step in range(steps):
        if len(rows) < recipe.batch_size:
            rows = torch.cat([rows, shuffled(task.train, recipe.batch_size, mix(seed, "rate", step))])
        index, rows = rows[: recipe.batch_size], rows[recipe.batch_size :]
        torch.manual_seed(mix(seed, "rate", step, "step"))
        out = feed.outputs(task.train, index, recipe.augment)
        target = target_of(out, task.train, index, program.source.device)
        if isinstance(program.output, Observing) and step == 0:
            program.output.observe(out, target)
            program.output.refresh()
        scores, target = by_pixel(program.output(out), target)
        loss = loss_of(program.output, out, scores, target, usual)
        value = float(loss.detach())
        if not math.isfinite(value):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        rates.append(low * (high / low) ** (step / (steps - 1)))
        seen.append(mean / (1 - SMOOTHING ** (step + 1)))
        if seen[-1] > EXPLODED * min(seen):
            break
        _descend(program, optimizer, loss, rates[-1], recipe.clip_norm)
    if not rates:
        raise FitError(say("loss", "must be finite before anything is learned", "nan", "Look at the data and start."))
    return rates, seen


def _descend(
    program: Program, optimizer: torch.optim.Optimizer, loss: torch.Tensor, rate: float, clip: float | None
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(program.parameters(), clip)
    optimizer.step()
