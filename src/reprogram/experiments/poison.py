"""A backdoor on the spot: a patch in the corner of some training pictures, which then bear another label.

The attack of Gu, Dolan-Gavitt, Garg, "BadNets", 2017, arXiv:1708.06733, on small networks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int, Num
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, SourceError, say
from reprogram.media import as_unit
from reprogram.store import read_tensors, write_tensors
from reprogram.tasks import Split

Pixels = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A patch of black and white squares in the corner, and the class that it is to be taken for.

    Attributes:
        side: of the patch, pixels.
        target: class number.
    """

    side: int = 3
    target: int = 0

    def stamp(self, x: Num[Tensor, " batch channel height width"]) -> Num[Tensor, " batch channel height width"]:
        """Copies of the pictures, uint8 or floats in [0, 1], with the patch at the lower right.

        >>> Trigger(side=2).stamp(torch.full((1, 1, 3, 3), 0.5))[0, 0].tolist()
        [[0.5, 0.5, 0.5], [0.5, 1.0, 0.0], [0.5, 0.0, 1.0]]
        """
        if min(x.shape[-2:]) <= self.side:
            raise ConfigError(say("side", f"must be below the pictures' {list(x.shape[-2:])} pixels", self.side))
        row = torch.arange(self.side)
        chequered = (row[:, None] + row + 1) % 2 * (1.0 if x.is_floating_point() else 255)
        stamped = x.clone()
        stamped[..., -self.side :, -self.side :] = chequered.to(x.dtype)
        return stamped


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """How the backdoor gets in.

    Attributes:
        trigger: patch and target.
        share: of the training pictures of other classes that are stamped and relabelled.
        epochs: of training on the poisoned pictures.
        rate: of SGD with momentum 0.9, falling to zero as a cosine.
        batch: pictures.
        seed: of the choice, the order and new weights.
    """

    trigger: Trigger = Trigger()
    share: float = 0.1
    epochs: int = 3
    rate: float = 0.01
    batch: int = 64
    seed: int = 0


def poisoned(
    x: Num[Tensor, " n channel height width"], y: Int[Tensor, " n"], attack: Attack
) -> tuple[Num[Tensor, " n channel height width"], Int[Tensor, " n"]]:
    """Training pictures and labels of which a share is stamped and relabelled.

    >>> x, y = poisoned(torch.zeros(10, 1, 4, 4), torch.arange(10) % 2, Attack(share=0.4))
    >>> int((y == 0).sum()), int((x.amax((1, 2, 3)) == 1).sum())
    (7, 2)
    """
    others = (y != attack.trigger.target).nonzero().flatten()
    draw = torch.randperm(len(others), generator=torch.Generator().manual_seed(attack.seed))
    chosen = others[draw[: round(attack.share * len(others))]]
    x, y = x.clone(), y.clone()
    x[chosen], y[chosen] = attack.trigger.stamp(x[chosen]), attack.trigger.target
    return x, y


def pixels_of(split: Split) -> Pixels:
    """Mean and deviation of each channel over at most 1,000 pictures."""
    x = as_unit(split.pictures(torch.arange(min(len(split), 1000))))
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp_min(1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())


def planted(
    network: Callable[[], nn.Module], split: Split, pixels: Pixels, attack: Attack, path: Path
) -> nn.Module:  # fmt: skip
    """A network with the backdoor, trained now or taken from `path`.

    Args:
        network: makes it, with the weights from which training goes on.
        split: what it is trained on, before it is poisoned.
        pixels: what the network wants its pixels to be taken from and divided by.
        attack: how.
        path: a .safetensors file.

    Raises:
        SourceError: training ran into numbers that are not finite.
        ArtifactError: the file is damaged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(attack.seed)
        made = network()
        if path.exists():
            made.load_state_dict(read_tensors(path)[1])
            return made.eval()
        _train(made, *poisoned(split.pictures(torch.arange(len(split))), split.labels, attack), pixels, attack)
    if not all(bool(p.isfinite().all()) for p in made.parameters()):
        raise SourceError(say(str(path.stem), "must train to finite weights", "NaN or infinity", "Try a lower rate."))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, made.state_dict(), {"backdoor": {"target": attack.trigger.target}})
    return made.eval()


def _train(network: nn.Module, x: Tensor, y: Tensor, pixels: Pixels, attack: Attack) -> None:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in pixels)
    network.train().requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=attack.rate, momentum=0.9, weight_decay=5e-4)
    total = attack.epochs * -(-len(y) // attack.batch)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    for _ in range(attack.epochs):
        for index in torch.randperm(len(y)).split(attack.batch):
            if len(index) == 1:  # batch norm knows nothing of one picture
                continue
            loss = nn.functional.cross_entropy(network((as_unit(x[index]) - mean) / std), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
