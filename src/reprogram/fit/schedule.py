"""Learning rates as a function of the step alone, so that a resumed fit needs no scheduler state."""

import math

from reprogram.core.method import Recipe


def factor(recipe: Recipe, step: int, steps_per_epoch: int, gamma: float | None = None) -> float:
    """What the learning rate is multiplied by at a step (counted from 0 over the whole fit).

    >>> r = Recipe(schedule="multistep", epochs=100)
    >>> [factor(r, epoch * 7, 7) for epoch in (0, 49, 50, 71, 72)] == [1, 1, 0.1, 0.1, 0.1 * 0.1]
    True
    >>> round(factor(Recipe(schedule="cosine", epochs=2), 7, 7), 6)
    0.5
    >>> r = Recipe(schedule="polynomial", lr=10.0, end_lr=0.1, epochs=10)
    >>> [round(factor(r, step, 1), 4) for step in (0, 9)]
    [1.0, 0.01]
    """
    gamma = recipe.gamma if gamma is None else gamma
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    epoch = step // steps_per_epoch
    if recipe.schedule == "cosine":
        total = max(1, recipe.epochs * steps_per_epoch - recipe.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - recipe.warmup_steps) / total)))
    if recipe.schedule == "polynomial":
        end, done = recipe.end_lr / recipe.lr, min(1.0, step / (0.9 * recipe.epochs * steps_per_epoch))
        return float((1 - end) * (1 - done) ** 0.9 + end)
    if recipe.schedule == "multistep":
        passed = sum(epoch >= max(1, round(m * recipe.epochs)) for m in recipe.milestones)
        return float(gamma**passed)
    if recipe.schedule == "step":
        return float(gamma ** (epoch // recipe.step_epochs))
    return 1.0
