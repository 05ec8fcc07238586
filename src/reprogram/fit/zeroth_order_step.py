"""A step of a fit without gradients: many trials of the learned numbers, asked of the source on one batch.

What all trials share is done once: fetching, augmenting, and the edits before the first that learns. The edited inputs
of all trials are stacked, and the source answers them in as few calls as fit (`Search.chunk`). Every trial sees the
same random numbers (dropout, places of patches), so that losses differ by the trial alone, and everything is in fp32.

Statistics of labels (label maps) need no queries of their own: they observe the mean of the trials' outputs, which is
the output at the present values itself for "one_sided", and equal to it up to the square of the radius for the others.
Batch norm within edits is moved by the present values only, never by trials; the source is not asked for that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from reprogram.core.conversation import Conversing
from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.method import Recipe
from reprogram.core.program import Input, Program, learns
from reprogram.core.source import Capability, SourceOutput
from reprogram.fit.feed import Cached, Feed, Live, augmented, scoring_batch
from reprogram.fit.metrics import by_pixel
from reprogram.fit.optimizer import loss_of, losses
from reprogram.fit.options import FitOptions
from reprogram.fit.said import divided, joined, parts, target_of, with_parts
from reprogram.fit.state import Progress, mix
from reprogram.fit.zeroth_order import AskTell, OneSided, SpsaGc
from reprogram.fit.zeroth_order_cma import CmaEs
from reprogram.tasks import Split

Observe = Callable[[SourceOutput, Tensor], None]
"""Show an output and its labels to the statistics."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What a step found: the mean loss of the trials, and how many of the batch their mean scores get right."""

    loss: float
    right: int
    seen: int


@final
class Searcher:
    """Moves a program's learned numbers by losses alone.

    Args:
        program: with something to learn.
        recipe: whose optimizer is one of `core.method.ZEROTH_ORDER`.
        options: of the fit.
        seed: of the fit.
        feed: where outputs come from if I learns nothing.

    Raises:
        ConfigError: another precision than fp32, or compilation: differences of losses drown in rounding.
    """

    def __init__(self, program: Program, recipe: Recipe, options: FitOptions, seed: int, feed: Feed) -> None:
        if options.precision != "fp32" or options.compile:
            remedy = "Differences between close losses drown in rounding."
            got = f"precision={options.precision}, compile={options.compile}"
            raise ConfigError(say("options", f"must be fp32, not compiled, for {recipe.optimizer}", got, remedy))
        self._program, self._recipe, self._feed = program, recipe, feed
        self._parameters = [p for p in program.parameters() if p.requires_grad]
        self._loss = losses(recipe.loss)
        self._once = isinstance(feed, Cached)
        self._lead, self._moved, self._rest = _parts(program.input)
        talks = any(isinstance(e, Conversing) for e in program.input)
        self._stacks = isinstance(feed, Live) and not talks and not any(map(learns, self._rest))
        start = torch.cat([p.detach().flatten() for p in self._parameters])
        self.optimizer = make_ask_tell(start, recipe, mix(seed, "search"))
        self._chunk = recipe.search.chunk or scoring_batch(program.source.device)

    def cost(self, rows: int, progress: Progress, split: int) -> int:
        """Inputs that a step on some rows of a split sends to the source; where I learns nothing, all of it once."""
        if self._once:
            return 0 if progress.queries else split
        trials = len(self.optimizer.weights)
        plain = rows if self._program.output.reading.plain else 0
        return rows * trials + plain * (1 if self._stacks else trials)

    def scored(self, rows: int, progress: Progress) -> int:
        """Inputs that scoring a validation split sends to the source."""
        return 0 if self._once and progress.asked else rows

    def left(self, progress: Progress) -> int | None:
        """Inputs that may still be sent for training; None for any number."""
        allowed = self._recipe.queries
        return None if allowed is None else max(0, allowed - progress.queries)

    def short(self, progress: Progress, rows: int) -> str:
        """Why the next step cannot be made on `rows` or a whole batch of them; empty if it can."""
        left = self.left(progress)
        if left is None or self.cost(min(rows, self._recipe.batch_size), progress, rows) <= left:
            return ""
        return f"{progress.queries} of {self._recipe.queries} queries are spent, and a step needs more."

    def step(self, split: Split, index: Tensor, *, seed: int, observe: Observe | None, factor: float) -> Stepped:
        """Ask, show the mean to the statistics, judge, tell, and put the new values into the program.

        If a loss is not finite, so is the one that is returned, and the program keeps its values.
        """
        trials, device = self.optimizer.ask(), self._program.source.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            try:
                said = self._said(split, index, trials, seed)
                if observe is not None:
                    said = list(said)
                    mean = _mean(said, self.optimizer.weights)
                    observe(mean, target_of(mean, split, index, device))
                found, stepped = self._judged(said, split, index, trials)
            finally:
                self.put(self.optimizer.values)
            if bool(found.isfinite().all()):
                self.optimizer.tell(found, factor)
                self.put(self.optimizer.values)
        return stepped

    @torch.no_grad()
    def put(self, values: Tensor) -> None:
        """Values [d] into the program's learned numbers."""
        pieces = values.split([p.numel() for p in self._parameters])
        for parameter, part in zip(self._parameters, pieces, strict=True):
            parameter.copy_(part.view_as(parameter))

    def _judged(
        self, said: Iterator[SourceOutput] | list[SourceOutput], split: Split, index: Tensor, trials: Tensor
    ) -> tuple[Tensor, Stepped]:
        output, found, mean = self._program.output, list[Tensor](), torch.zeros(())
        target = torch.empty(0)
        for trial, one, weight in zip(trials, said, self.optimizer.weights.tolist(), strict=True):
            self.put(trial)
            scores = output(one)
            scores, target = by_pixel(scores, target_of(one, split, index, scores.device))
            found.append(loss_of(output, one, scores, target, self._usual).double().cpu())
            mean = mean.to(scores.device) + weight * scores
        losses = torch.stack(found)
        right = int((mean.argmax(1) == target).sum())
        return losses, Stepped(loss=float(self.optimizer.weights.double() @ losses), right=right, seen=len(target))

    def _usual(self, scores: Tensor, target: Tensor) -> Tensor:
        return self._loss(scores.double(), target)

    def _said(self, split: Split, index: Tensor, trials: Tensor, seed: int) -> Iterator[SourceOutput]:
        """What the source says under each trial, in order."""
        if self._once:
            one = self._feed.outputs(split, index)
            yield from (one for _ in trials)
            return
        program, device, augment = self._program, self._program.source.device, self._recipe.augment
        x = split.fetch(index) if self._stacks else None
        if not isinstance(x, Tensor):
            for trial in trials:
                self.put(trial)
                torch.manual_seed(seed)
                yield self._feed.outputs(split, index, augment)
            return
        x = augmented(x, augment).to(device)
        assert isinstance(x, Tensor)
        plain = program.plain(x) if program.output.reading.plain else None
        x = x.float().div_(255) if x.dtype is torch.uint8 else x
        x = self._lead(x)
        kept = list(self._moved.buffers())
        if any(b.is_floating_point() for b in kept):  # batch norm keeps of a step what it sees at the present values
            torch.manual_seed(seed)
            self._moved(x)
        before = [b.clone() for b in kept]
        together = max(1, self._chunk // len(index))
        for several in trials.split(together):
            stacked = torch.cat([self._edited(x, trial, seed) for trial in several])
            said = joined([self._ask(part) for part in stacked.split(self._chunk)])
            for buffer, value in zip(kept, before, strict=True):
                buffer.copy_(value)
            yield from (replace(part, plain=plain) for part in divided(said, len(index)))

    def _edited(self, x: Tensor, trial: Tensor, seed: int) -> Tensor:
        self.put(trial)
        torch.manual_seed(seed)
        return self._moved(x)

    def _ask(self, x: Tensor) -> SourceOutput:
        reading = replace(self._program.output.reading, plain=False)
        return self._program.source(x, self._rest, reading)


def check_gradients(program: Program, *, searches: bool) -> None:
    """Refuse to learn edits by gradients that the source does not give.

    Raises:
        CapabilityError: that is what the recipe asks for.
    """
    if any(map(learns, program.input)) and not searches and Capability.GRADIENTS not in program.source.capabilities:
        remedy = 'Fit with recipe.optimizer="spsa_gc", "one_sided" or "cma_es".'
        raise CapabilityError(say("source", "must give gradients for this recipe", program.source.spec.ref, remedy))


def make_ask_tell(start: Tensor, recipe: Recipe, seed: int) -> AskTell:
    """The optimizer that a recipe names."""
    if recipe.optimizer == "cma_es":
        return CmaEs(start, search=recipe.search, seed=seed)
    kind = SpsaGc if recipe.optimizer == "spsa_gc" else OneSided
    return kind(start, lr=recipe.lr, momentum=recipe.momentum, search=recipe.search, seed=seed)


def _parts(input: Input) -> tuple[Input, Input, Input]:
    """The edits at "input" before the first that learns, the others there, and those at other sites."""
    here = input.at("input")
    first = next((i for i, e in enumerate(here) if learns(e)), len(here))
    return Input(*here[:first]), Input(*here[first:]), Input(*(e for e in input if e.site != "input"))


def _mean(said: list[SourceOutput], weights: Tensor) -> SourceOutput:
    """The weighted mean of the trials' outputs."""
    if bool(weights[0] == 1):
        return said[0]
    shares = weights.tolist()
    tensors = [{n: t for n, t in parts(one).items() if t.is_floating_point()} for one in said]
    mean = {n: torch.stack([w * t[n] for w, t in zip(shares, tensors, strict=True)]).sum(0) for n in tensors[0]}
    return with_parts(said[0], mean)
