"""From a recipe to torch's optimizer and loss."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Recipe
from reprogram.core.program import Judging, Output, Program
from reprogram.core.source import SourceOutput
from reprogram.fit.schedule import factor

STILL = 0.005
"""A loss that fell by a smaller share than this over all epochs has not moved."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From target scores [B, T] and labels [B] to a scalar."""

_log = logging.getLogger("reprogram")


@final
class NormalisedGradient(torch.optim.Optimizer):
    """``p <- p - lr * g / ||g||_2``, the norm over all numbers of a group: every step has the length `lr`.

    The update of EVP (Wu et al. 2022, arXiv 2212.10556) and TVP (2024, arXiv 2404.11207). A gradient of exact zeros
    has no direction and moves nothing.

    >>> p = nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3e-9, 4e-9])
    >>> NormalisedGradient([{"params": [p], "lr": 10.0}]).step()
    >>> p.tolist()
    [-6.0, -8.0]
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float = 1.0) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step for every group; no closure is called."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            norm = torch.stack([p.grad.double().square().sum() for p in moved]).sum().sqrt() if moved else 0.0
            if float(norm) > 0:
                for p in moved:
                    p.sub_((p.grad.double() * (group["lr"] / norm)).to(p.dtype))


def make_optimizer(program: Program, recipe: Recipe) -> torch.optim.Optimizer:
    """Torch's optimizer over the learned numbers, a group for each of `recipe.groups` and one for the rest.

    Raises:
        ConfigError: a group's prefix fits no learned number, or the recipe's optimizer takes no gradients.
    """
    if recipe.zeroth_order:
        raise ConfigError(say("recipe.optimizer", "must be one that takes gradients here", recipe.optimizer))
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
    if recipe.optimizer == "normalised":
        return NormalisedGradient(groups)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)


def set_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps_per_epoch: int) -> None:
    """Set every group's rate for this step of the whole fit."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor(recipe, step, steps_per_epoch, group["gamma"])


def losses(name: str) -> Loss:
    """The loss of target scores [B, T] and labels [B]; "nll" expects log-probabilities."""
    return F.nll_loss if name == "nll" else F.cross_entropy


def loss_of(output: Output, said: SourceOutput, scores: Tensor, target: Tensor, usual: Loss) -> Tensor:
    """How wrong scores are: by the output's own judgement, if it has one, else by the recipe's loss."""
    return output.loss(said, scores, target) if isinstance(output, Judging) else usual(scores, target)


def warn_if_still(history: Sequence[Mapping[str, Any]], lr: float) -> None:
    """Say so when all this training has not moved the loss: the rate is too small, or nothing can be learned."""
    losses = [row["loss"] for row in history if "loss" in row]
    if len(losses) < 2 or losses[-1] < losses[0] * (1 - STILL):
        return
    _log.warning("The loss has not moved: %.4g in the first epoch, %.4g in the last. Try another lr (now %g; "
                 "`find_rate` or --find-rate proposes one).", losses[0], losses[-1], lr)  # fmt: skip
