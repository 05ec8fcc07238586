"""Changing the weights instead: copies of a source with a new head, all or some of whose numbers are trained.

What programs are held against in `efficiency`. The source itself is never touched; a copy without its hooks is.
"""

import ctypes
import gc
import importlib
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, SourceError, missing_extra, say
from reprogram.core.source import Source, local_module
from reprogram.fit.batches import shuffled
from reprogram.inputs import Place
from reprogram.sources.module import _bare_copy, _linear_head
from reprogram.tasks import Split, Task

RANK = 8
"""Of the LoRA matrices; their scale is twice that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How weights are trained: AdamW, cosine to zero, the best epoch on validation.

    Attributes:
        lr: rate of the new head and of whatever was added.
        inner: rate of the source's own numbers.
        epochs: passes over the training split.
        batch_size: pictures a step.
        seed: of the new head and the order.
    """

    lr: float
    inner: float
    epochs: int
    batch_size: int = 50
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What came out.

    Attributes:
        accuracy: on test, in the best state on validation.
        val_accuracy: of that state.
        trainable: numbers that were trained.
    """

    accuracy: float
    val_accuracy: float
    trainable: int


@final
class Copy(nn.Module):
    """A copy of a source's network with a new last layer: pictures [B, channel, h, w] in [0, 1] to [B, T].

    Args:
        source: whose network is copied, without the hooks of its sites.
        classes: T.
        canvas: pixels that pictures are brought to.
        seed: of the new layer.

    Raises:
        CapabilityError: the source is no image network that runs here.
        SourceError: its scores do not come from a linear layer.
    """

    def __init__(self, source: Source, classes: int, canvas: int, seed: int) -> None:
        super().__init__()
        module = local_module(source)
        if module is None or source.spec.modality != "image":
            raise CapabilityError(say("source", "must be an image network that runs here", source.spec.ref))
        self.head_path = _linear_head(module, source.spec.outputs)
        if not self.head_path:
            raise SourceError(say("source", "must have a linear last layer to be replaced", source.spec.ref))
        self.network = _bare_copy(module)
        old = self.network.get_submodule(self.head_path)
        assert isinstance(old, nn.Linear)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network.set_submodule(self.head_path, nn.Linear(old.in_features, classes).to(source.device))
        self.place = Place(canvas, canvas)
        mean, std = source.spec.preprocessing.mean, source.spec.preprocessing.std
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1).to(source.device), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1).to(source.device), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @property
    def head(self) -> nn.Module:
        """The new layer."""
        return self.network.get_submodule(self.head_path)

    def forward(self, x: Tensor) -> Tensor:
        """Target scores."""
        x = x.float().div(255) if x.dtype is torch.uint8 else x
        ready = (self.place(x) - self.mean) / self.std
        return self.network(ready.contiguous(memory_format=torch.channels_last))


def full(copy: Copy) -> None:
    """All numbers; batch norm statistics move, too."""
    copy.requires_grad_(True)
    copy.network.train()


def last_layers(copy: Copy, blocks: Sequence[str]) -> None:
    """The head and the last block of the network: what comes after `blocks[-1]` begins, in the order of its parts.

    Raises:
        SourceError: the network has no blocks that we know of.
    """
    if not blocks:
        remedy = 'Name them: wrap(..., sites="layers.*").'
        raise SourceError(say("sites", "must name the network's blocks", list(blocks), remedy))
    names = [name for name, _ in copy.network.named_parameters()]
    first = next(i for i, name in enumerate(names) if name.startswith(f"{blocks[-1]}."))
    for _, parameter in list(copy.network.named_parameters())[first:]:
        parameter.requires_grad_(True)


def new_head(copy: Copy) -> None:
    """The head alone: a linear probe on features."""
    copy.head.requires_grad_(True)


def lora(copy: Copy) -> None:
    """Low-rank additions to linear and convolution layers by PEFT, and the head (Hu et al. 2021, arXiv 2106.09685).

    Convolutions in groups, and ones that pad by rules of their own, are left alone. Convolutions of one pixel that a
    network has as a class of its own are put in as torch's, which computes the same.

    Raises:
        MissingExtraError: peft is not installed.
        SourceError: no layer can be added to.
    """
    try:
        peft = importlib.import_module("peft")
    except ImportError as problem:
        raise missing_extra("peft", "dev", "LoRA") from problem
    _plain_pointwise(copy.network)
    targets = [name for name, part in copy.network.named_modules() if _can_be_added_to(part) and name != copy.head_path]
    if not targets:
        raise SourceError(say("network", "must have linear layers or plain convolutions for LoRA", "none"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets)
        peft.inject_adapter_in_model(config, copy.network)
    copy.head.requires_grad_(True)


def _plain_pointwise(network: nn.Module) -> None:
    """Replace subclasses of convolutions of one pixel by torch's own, with the same weights."""
    for name, part in list(network.named_modules()):
        if not isinstance(part, nn.Conv2d) or type(part) is nn.Conv2d:
            continue
        if part.kernel_size == part.stride == (1, 1) and part.groups == 1 and part.padding in (0, (0, 0)):
            twin = nn.Conv2d(part.in_channels, part.out_channels, 1, bias=part.bias is not None)
            twin.weight, twin.bias = part.weight, part.bias
            network.set_submodule(name, twin.train(part.training))


def _can_be_added_to(part: nn.Module) -> bool:
    return type(part) is nn.Linear or (type(part) is nn.Conv2d and part.groups == 1)


def tune(copy: Copy, task: Task, tuning: Tuning) -> Tuned:
    """Train whatever requires gradients.

    Args:
        copy: changed in place; ends in its best state on validation.
        task: data.
        tuning: how.

    Raises:
        CapabilityError: nothing requires gradients.
    """
    mine = [p for p in copy.parameters() if p.requires_grad]
    if not mine:
        raise CapabilityError(say("copy", "must have numbers to train", "none"))
    optimizer = torch.optim.AdamW(_groups(copy, tuning), weight_decay=0.01)
    steps = math.ceil(len(task.train) / tuning.batch_size) * tuning.epochs
    training, best, state = copy.network.training, -1.0, dict[str, Tensor]()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for epoch in range(tuning.epochs):
        copy.network.train(training)
        order = shuffled(task.train, tuning.batch_size, tuning.seed * 1000 + epoch)
        for start in range(0, len(order), tuning.batch_size):
            _step(copy, task.train, order[start : start + tuning.batch_size], optimizer)
            schedule.step()
        reached = score(copy, task.val)
        if reached > best:
            best, state = reached, {k: v.detach().clone() for k, v in copy.state_dict().items()}
    copy.load_state_dict(state)
    return Tuned(accuracy=score(copy, task.test), val_accuracy=best, trainable=sum(p.numel() for p in mine))


def _groups(copy: Copy, tuning: Tuning) -> list[dict[str, object]]:
    """The head and what was added at one rate, the source's own numbers at another."""
    own, new = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in copy.network.named_parameters():
        if parameter.requires_grad:
            added = name.startswith(f"{copy.head_path}.") or "lora_" in name
            (new if added else own).append(parameter)
    return [{"params": p, "lr": lr} for p, lr in ((new, tuning.lr), (own, tuning.inner)) if p]


def _step(copy: Copy, split: Split, index: Tensor, optimizer: torch.optim.Optimizer) -> None:
    device = next(copy.parameters()).device
    images = split.fetch(index)
    assert isinstance(images, Tensor)
    if len(images) < 2 and copy.network.training:  # batch norm needs two
        return
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(copy(images.to(device)), split.labels[index].to(device)).backward()
    optimizer.step()


@torch.no_grad()
def score(copy: Copy, split: Split) -> float:
    """Accuracy on a split; NaN of an empty one."""
    copy.network.eval()
    device, right = next(copy.parameters()).device, 0
    for index in torch.arange(len(split)).split(50):
        images = split.fetch(index)
        assert isinstance(images, Tensor)
        right += int((copy(images.to(device)).argmax(1).cpu() == split.labels[index]).sum())
    return right / len(split) if len(split) else math.nan


@final
class Peak:
    """Memory that is in use at the most while it is entered, beyond what was at the start; bytes.

    On CUDA what torch allocated; else the resident size of the process, looked at every few milliseconds, on Linux.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes = device, None
        self._done, self._thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)
        self._start = self._most = 0
        self.bytes: int | None = None
        self.seconds = 0.0

    def __enter__(self) -> "Peak":
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
        elif sys.platform == "linux":
            _trim()
            self._start = self._most = _resident()
            self._thread.start()
        self._begun = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._begun
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._start
        elif self._thread.is_alive():
            self._done.set()
            self._thread.join()
            self.bytes = max(0, self._most - self._start)

    def _watch(self) -> None:
        while not self._done.wait(0.003):
            self._most = max(self._most, _resident())


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def _trim() -> None:
    """Give freed memory back, so that what was used before does not hide what is used now."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


Approach = Callable[[Copy], None]
