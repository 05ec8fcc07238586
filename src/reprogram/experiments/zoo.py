"""Sources trained on the spot: what is to be trained, how, and where a trained one is kept so that it is made once."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, SourceError, say
from reprogram.experiments.networks import FAMILIES, ArgmaxPool, Hard, quantise
from reprogram.media import as_unit
from reprogram.sources import ModuleSource
from reprogram.sources.module import wrap
from reprogram.store import read_tensors, write_tensors
from reprogram.tasks import Split, Task

Family = Literal["mlp", "cnn", "vit"]
Variant = Literal["float", "int8", "int2", "sign", "sign-through", "argmax", "argmax-through"]

BITS = {"int8": 8, "int2": 2}
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One source to be trained.

    Attributes:
        family: "mlp", "cnn" or "vit".
        depth: hidden layers, convolutions, or transformer layers.
        width: of each.
        variant: "float"; "int8" or "int2", the same weights rounded after training; "sign", hard thresholds in the
            place of ReLU; "argmax", pooling to positions. The latter two have zero gradients; with "-through" the same
            network passes surrogate gradients, the ones it was trained with.
        seed: of initial weights and order.
    """

    family: Family
    depth: int
    width: int
    variant: Variant = "float"
    seed: int = 0

    @property
    def design(self) -> str:
        """Name without the seed."""
        return f"{self.family}-{self.depth}x{self.width}" + (f"-{self.variant}" if self.variant != "float" else "")

    @property
    def name(self) -> str:
        """Name with the seed: `zoo/<name>` is the source's reference."""
        return f"{self.design}-seed{self.seed}"

    @property
    def weights(self) -> str:
        """Whose weights it has: variants that differ only after training share them."""
        trained = "float" if self.variant in BITS else self.variant.removesuffix("-through")
        return f"{self.family}-{self.depth}x{self.width}-{trained}-seed{self.seed}"

    def network(self, shape: tuple[int, ...], outputs: int, *, through: bool | None = None) -> nn.Module:
        """The untrained network; `through` overrides what the variant says of its gradients."""
        through = self.variant.endswith("-through") if through is None else through
        kind = {"sign": Hard, "argmax": ArgmaxPool}.get(self.variant.removesuffix("-through"))
        if kind is ArgmaxPool and self.family != "cnn":
            raise ConfigError(say("family", "must be cnn for a pooling layer", self.family))
        hard = kind(through=through) if kind else None
        return FAMILIES[self.family](shape, outputs, self.depth, self.width, hard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How every source of an experiment is trained: Adam, a fifth of the rate in the last epoch.

    Attributes:
        images: of the source task's train split, at most.
        test: of its test split, at most.
        epochs: passes.
        rate: of Adam.
    """

    images: int = 2000
    test: int = 1000
    epochs: int = 6
    rate: float = 2e-3


def trained(design: Design, task: Task, training: Training, folder: Path) -> ModuleSource:
    """The source, trained now or taken from `folder`, where each set of weights is one file.

    Args:
        design: what it is.
        task: what it is trained on; its labels become the source's.
        training: how.
        folder: made if need be.

    Raises:
        SourceError: training ran into numbers that are not finite.
        ArtifactError: a file in `folder` is damaged.
    """
    mean, std = _pixels(task.train)
    path = folder / f"{design.weights}-{_mark(task, training)}.safetensors"
    if path.exists():
        _, state = read_tensors(path)
    else:
        state = _train(design, task, training, (mean, std)).state_dict()
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(path, state, {"design": asdict(design), "training": asdict(training)})
    with torch.random.fork_rng(devices=[]):
        network = design.network(task.spec.sample.shape, len(task.classes))
    network.load_state_dict(state)
    if design.variant in BITS:
        quantise([p for p in network.parameters() if p.ndim > 1], BITS[design.variant])
    accuracy = _accuracy(network, task.limit(test=training.test).test, mean, std)
    return wrap(network, input_shape=task.spec.sample.shape, labels=task.classes, preprocess=(mean, std),
                ref=f"zoo/{design.name}", width=design.width, accuracy=accuracy)  # fmt: skip


def _mark(task: Task, training: Training) -> str:
    """Weights of other data or another training are others."""
    return hashlib.sha256(f"{task.train.digest()} {training}".encode()).hexdigest()[:12]


def _train(
    design: Design, task: Task, training: Training, pixels: tuple[tuple[float, ...], tuple[float, ...]]
) -> nn.Module:
    split = task.limit(train=training.images, seed=0).train
    x, y = _normalised(split, *pixels), split.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(design.seed)
        network = design.network(task.spec.sample.shape, len(task.classes), through=True).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=training.rate)
        for epoch in range(training.epochs):
            for group in optimizer.param_groups:
                group["lr"] = training.rate / (5 if epoch == training.epochs - 1 else 1)
            for index in torch.randperm(len(y)).split(BATCH):
                loss = nn.functional.cross_entropy(network(x[index]), y[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    if not all(bool(p.isfinite().all()) for p in network.parameters()):
        raise SourceError(say(design.name, "must train to finite weights", "NaN or infinity", "Try a lower rate."))
    return network


def _pixels(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel over at most 1,000 images."""
    x = _floats(split, torch.arange(min(len(split), 1000)))
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp_min(1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())


def _normalised(split: Split, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    x = _floats(split, torch.arange(len(split)))
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def _floats(split: Split, index: Tensor) -> Tensor:
    return as_unit(split.pictures(index))


@torch.no_grad()
def _accuracy(network: nn.Module, split: Split, mean: tuple[float, ...], std: tuple[float, ...]) -> float | None:
    if not len(split):
        return None
    network.eval()
    x = _normalised(split, mean, std)
    right = sum(
        int((network(x[i]).argmax(1) == split.labels[i]).sum()) for i in torch.arange(len(split)).split(4 * BATCH)
    )
    return right / len(split)
