"""From a recipe to torch's optimizer and loss."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Recipe
from reprogram.core.program import Program
from reprogram.fit.schedule import factor


def make_optimizer(program: Program, recipe: Recipe) -> torch.optim.Optimizer:
    """Torch's optimizer over the learned numbers, a group for each of `recipe.groups` and one for the rest.

    Raises:
        ConfigError: a group's prefix fits no learned number.
    """
    rest = {n: p for n, p in program.named_parameters() if p.requires_grad}
    groups: list[dict[str, object]] = []
    for group in recipe.groups:
        mine = [n for n in rest if n.startswith(group.prefix)]
        if not mine:
            raise ConfigError(say("recipe.groups", f"must name learned numbers among {sorted(rest)}", group.prefix))
        groups.append({"params": [rest.pop(n) for n in mine], "lr": group.lr, "base": group.lr, "gamma": group.gamma})
    if rest:
        groups.append({"params": list[nn.Parameter](rest.values()), "lr": recipe.lr, "base": recipe.lr, "gamma": None})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)


def set_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps_per_epoch: int) -> None:
    """Set every group's rate for this step of the whole fit."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor(recipe, step, steps_per_epoch, group["gamma"])


def losses(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of target scores [B, T] and labels [B]; "nll" expects log-probabilities."""
    return F.nll_loss if name == "nll" else F.cross_entropy
