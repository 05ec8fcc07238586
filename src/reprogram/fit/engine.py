"""The one training engine: gradients reach the program only, label mappings ride along, every moment can be resumed.

A step fetches a batch, lets the source answer through I, shows the answer to O's statistics, reads it through O, and
steps the optimizer. The source's own pass is all the work there is: no second pass for the mapping, no weight
gradients, and no pass at all after the first where I learns nothing (`feed.Cached`).
"""

import logging
import math
import os
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, final

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, FingerprintError, FitError, say
from reprogram.core.method import Recipe
from reprogram.core.program import Calibrating, Input, Judging, Observing, Program
from reprogram.core.source import SourceOutput
from reprogram.fit.batches import alike, shuffled
from reprogram.fit.compiled import compiled
from reprogram.fit.events import Console, EventFile, Listener, TensorBoard
from reprogram.fit.feed import feed_for, scoring_batch
from reprogram.fit.interrupts import Deferred
from reprogram.fit.metrics import Metrics, evaluate
from reprogram.fit.optimizer import losses, make_optimizer, set_rates
from reprogram.fit.options import FitOptions
from reprogram.fit.result import FitResult
from reprogram.fit.state import Checkpoint, Progress, mix
from reprogram.fit.workspace import Workspace
from reprogram.store import save
from reprogram.tasks import Split, Task

STILL = 0.005
"""A loss that fell by a smaller share than this over all epochs has not moved."""

_log = logging.getLogger("reprogram")


def fit(
    program: Program,
    task: Task,
    *,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    options: FitOptions | None = None,
) -> FitResult:
    """Fit a program to a task's training split, select on its validation split, score it on test once.

    Args:
        program: changed in place; its source is not.
        task: the data.
        seed: of the order, the augmentation and all else that is random. Same seed and machine: same bits.
        out: the program file to write; the folder `<out without suffix>.run` beside it keeps events and checkpoints.
        resume: go on from the checkpoint in that folder if there is one.
        options: how to run.

    Raises:
        BusyError: another fit is writing to `out`.
        FitError: the loss is not finite, or there is nothing to fit. The best state so far is kept.
        FingerprintError: the source changed while the program was fitted.
    """
    options = options or FitOptions()
    if out is not None and program.origin is None:
        remedy = "Write a method file (see CONTRIBUTING.md), or fit without `out` and keep program.state_dict()."
        raise ConfigError(say("program", "must come from a method to be saved", "parts put together by hand", remedy))
    device = options.place()
    program.to(device)
    program.source.to(device)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        place = stack.enter_context(Workspace(out)) if out is not None else None
        run = _Run(program, task, seed, options, place)
        stack.callback(run.close)
        return run.run(resume)


@final
class _Run:
    """One fit under way."""

    def __init__(self, program: Program, task: Task, seed: int, options: FitOptions, place: Workspace | None) -> None:
        self.program, self.task, self.seed, self.options, self.place = program, task, seed, options, place
        self.recipe = options.recipe or (program.origin.recipe if program.origin else Recipe())
        self.observing = program.output if isinstance(program.output, Observing) else None
        self.learns = any(p.requires_grad for p in program.parameters())
        if not self.learns and self.observing is None and len(task.train) == 0:
            raise FitError(say("train", "must hold examples", len(task.train)))
        self.epochs = self.recipe.epochs if self.learns else min(1, self.recipe.epochs)
        self.steps = math.ceil(len(task.train) / self.recipe.batch_size) if self.learns else 0
        self.optimizer = make_optimizer(program, self.recipe) if self.learns else None
        self.loss = losses(self.recipe.loss)
        forward = compiled(program.source) if options.compile else None
        self.feed = feed_for(program, autocast=options.autocast(), forward=forward)
        self.exact = feed_for(program)
        scale = options.precision == "fp16"
        self.scaler = torch.amp.GradScaler(program.source.device.type, enabled=scale)  # pyright: ignore
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.listeners: list[Listener] = []
        self.saved = time.monotonic()
        self.interrupts = Deferred()

    # -- the course of a fit ---------------------------------------------------------------------------------------

    def run(self, resume: bool) -> FitResult:
        """From the first step, or the one after the checkpoint, to the result."""
        fingerprint = self.program.source.fingerprint()
        self._open(fingerprint, resume)
        with self.interrupts:
            while self.progress.epoch < self.epochs and not self.progress.stopped:
                self._epoch()
                self._give_way()
        self.program.eval()
        self._warn_if_still()
        if self.program.source.fingerprint() != fingerprint:
            raise FingerprintError(say("source", "must be bit-identical after a fit", self.program.source.spec.ref))
        return self._finish()

    def _epoch(self) -> None:
        state, start = self.progress, time.perf_counter()
        if state.step == 0:
            state.loss, state.right, state.seen = 0.0, 0, 0
            self._prepare_mapping()
        order = shuffled(self.task.train, self.recipe.batch_size, mix(self.seed, state.epoch))
        self.program.train()
        while state.step < self.steps:
            size = self.recipe.batch_size
            self._step(order[state.step * size : (state.step + 1) * size])
            state.step += 1
            took, start = time.perf_counter() - start, time.perf_counter()
            state.seconds += took
            self._tell("step", rate=size / max(took, 1e-9), loss=state.loss / state.seen,
                       done=state.epoch * self.steps + state.step)  # fmt: skip
            if state.step < self.steps and time.monotonic() - self.saved >= self.options.checkpoint_seconds:
                self._save()
            self._give_way()
        self._close_epoch(start)

    def _give_way(self) -> None:
        """Between steps only: an interrupt that has come in meanwhile is obeyed, with a checkpoint to go on from."""
        if self.interrupts.pending is not None:
            self._save()
            self.interrupts.act()

    def _step(self, index: Tensor) -> None:
        state, recipe = self.progress, self.recipe
        done = state.epoch * self.steps + state.step
        torch.manual_seed(mix(self.seed, state.epoch, state.step))
        out = self.feed.outputs(self.task.train, index, recipe.augment)
        target = self._target(out, index)
        if self.observing is not None and recipe.refresh == "stream":
            if out.scores is not None and not bool(out.scores.isfinite().all()):
                self._stop_at(float("nan"))
            self.observing.observe(out, target)
            if state.epoch == 0:  # there is no earlier epoch to take a mapping from
                self.observing.refresh()
        scores = self.program.output(out)
        own = self.program.output
        loss = own.loss(out, scores, target) if isinstance(own, Judging) else self.loss(scores, target)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._stop_at(value)
        self._descend(loss, done)
        state.loss += value * len(target)
        state.right += int((scores.argmax(1) == target).sum())
        state.seen += len(target)

    def _target(self, out: SourceOutput, index: Tensor) -> Tensor:
        """The classes of a batch, or the tokens that the source was to predict."""
        return self.task.train.labels[index].to(self.program.source.device) if out.targets is None else out.targets

    def _descend(self, loss: Tensor, done: int) -> None:
        if self.optimizer is None:
            return
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        set_rates(self.optimizer, self.recipe, done, self.steps)
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.program.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    # -- label mappings --------------------------------------------------------------------------------------------

    def _prepare_mapping(self) -> None:
        """Before an epoch: a pass of its own where the recipe asks for one, else only start counting anew."""
        if self.observing is None:
            return
        once = self.recipe.refresh == "once" or not self.learns
        if self.recipe.refresh == "exact" or (once and self.progress.epoch == 0):
            self.observing.forget()
            self._pass_for_mapping()
            self.observing.refresh()
        elif not once:
            self.observing.forget()

    @torch.no_grad()
    def _pass_for_mapping(self) -> None:
        assert self.observing is not None
        self.program.eval()
        split, own = self.task.train, self.observing
        if isinstance(own, Calibrating):
            if own.rows is not None:
                said = self.program.source(own.rows, Input(), self.program.output.reading) if own.bare \
                    else self.program.outputs(own.rows)  # fmt: skip
                own.observe(said, torch.zeros(len(own.rows), dtype=torch.int64, device=self.program.source.device))
                return
            if own.most is not None and own.most < len(split):
                draw = torch.Generator().manual_seed(self.seed)
                split = split.subset(torch.randperm(len(split), generator=draw)[: own.most])
        for index in alike(split, scoring_batch(self.program.source.device)):
            out = self.exact.outputs(split, index)
            self.observing.observe(out, split.labels[index].to(self.program.source.device))

    # -- the end of an epoch ---------------------------------------------------------------------------------------

    def _close_epoch(self, start: float) -> None:
        state = self.progress
        if self.observing is not None and self.recipe.refresh == "stream" and self.learns:
            self.observing.refresh()
        row: dict[str, Any] = {"epoch": state.epoch, "epochs": self.epochs}
        if state.seen:
            row |= {"loss": state.loss / state.seen, "accuracy": state.right / state.seen}
        row |= self._scores("val", self.task.val)
        if self.options.track_test:
            row |= self._scores("test", self.task.test)
        row["best"] = self._select(row.get("val_accuracy"), row.get("val_loss"))
        state.seconds += time.perf_counter() - start
        row["seconds"] = state.seconds - sum(r["seconds"] for r in state.history)
        state.history.append(row)
        self._tell("epoch", **row)
        state.epoch, state.step = state.epoch + 1, 0
        patience = self.recipe.patience
        state.stopped = patience is not None and state.waited >= patience
        if time.monotonic() - self.saved >= self.options.checkpoint_seconds or self._over():
            self._save()

    def _over(self) -> bool:
        return self.progress.stopped or self.progress.epoch >= self.epochs

    def _scores(self, name: str, split: Split) -> dict[str, float]:
        if not len(split):
            return {}
        metrics = evaluate(self.program, split, feed=self.exact)
        found = {f"{name}_accuracy": metrics.accuracy}
        if not math.isnan(metrics.loss):  # texts that were written and parsed have none
            found[f"{name}_loss"] = metrics.loss
        return found

    def _select(self, accuracy: float | None, loss: float | None) -> bool:
        """Keep the state if it is the best on validation so far; without validation data, the last one."""
        state, loss = self.progress, loss or 0.0
        better = (
            accuracy is None
            or state.best is None
            or accuracy > state.best[1]
            or (accuracy == state.best[1] and loss < state.best[2])
        )
        state.waited = 0 if better else state.waited + 1
        if better:
            state.best = [float(state.epoch), accuracy or 0.0, loss]
            self.best = {k: v.detach().clone() for k, v in self.program.state_dict().items()}
        return better

    def _finish(self) -> FitResult:
        state = self.progress
        last = self._test()
        best = last
        differs = (
            any(not torch.equal(v, self.best[k]) for k, v in self.program.state_dict().items()) if self.best else False
        )
        if differs:
            self.program.load_state_dict(self.best)
            best = self._test()
        val = evaluate(self.program, self.task.val, feed=self.exact) if len(self.task.val) else None
        result = FitResult(
            program=self.program, history=tuple(state.history), validation=val, test=best, last_test=last,
            best_epoch=int(state.best[0]) if state.best else 0, seconds=state.seconds, seed=self.seed,
            out=self.place.out if self.place else None, recipe=self.recipe,
        )  # fmt: skip
        if self.place is not None and self.program.origin is not None:
            save(self.program, self.place.out, metrics=result.card(), seed=self.seed,
                 citation=self.program.origin.citation())  # fmt: skip
        self._tell("end", **result.card())
        return result

    def _test(self) -> Metrics | None:
        return evaluate(self.program, self.task.test, feed=self.exact) if len(self.task.test) else None

    # -- files and listeners ---------------------------------------------------------------------------------------

    def _open(self, fingerprint: str, resume: bool) -> None:
        """Load the checkpoint if there is one to go on from, then let the listeners in."""
        if resume and self.place is None:
            raise ConfigError(say("resume", "must come with `out`, the place to resume from", resume))
        if self.place is not None:
            self.checkpoint = Checkpoint(path=self.place.checkpoint, identity=self._identity(fingerprint))
            if resume and self.place.checkpoint.exists():
                self.progress, self.best = self.checkpoint.load(self.program, self.optimizer)
                if self.progress.scaler:
                    self.scaler.load_state_dict(self.progress.scaler)
            else:
                self.place.checkpoint.unlink(missing_ok=True)
            self.events = EventFile(self.place.events, self.progress.events)
            self.listeners.append(self.events)
            if self.options.tensorboard:
                self.listeners.append(TensorBoard(self.place.folder / "tensorboard"))
        if self.options.progress:
            self.listeners.append(Console())
        done = self.progress.epoch * self.steps + self.progress.step
        self._tell("resume" if done else "start", steps=self.epochs * self.steps, done=done, seed=self.seed,
                   source=self.program.source.spec.ref, recipe=asdict(self.recipe))  # fmt: skip

    def _identity(self, fingerprint: str) -> dict[str, Any]:
        origin = self.program.origin
        return {
            "seed": self.seed,
            "recipe": repr(self.recipe),
            "method": repr((origin.method, origin.config)) if origin else "",
            "source": fingerprint,
            "train": self.task.train.digest(),
            "val": self.task.val.digest(),
            "precision": self.options.precision,
        }

    def _save(self) -> None:
        if self.place is None:
            return
        self.progress.events = self.events.position()
        self.progress.scaler = self.scaler.state_dict()
        best = {f"best.{k}": v for k, v in self.best.items()}
        self.checkpoint.save(self.progress, self.program, self.optimizer, best)
        self.saved = time.monotonic()

    def _warn_if_still(self) -> None:
        """Say so when all this training has not moved the loss: the rate is too small, or nothing can be learned."""
        losses = [row["loss"] for row in self.progress.history if "loss" in row]
        if self.optimizer is None or len(losses) < 2 or losses[-1] < losses[0] * (1 - STILL):
            return
        _log.warning("The loss has not moved: %.4g in the first epoch, %.4g in the last. Try another lr (now %g; "
                     "`find_rate` or --find-rate proposes one).", losses[0], losses[-1], self.recipe.lr)  # fmt: skip

    def _stop_at(self, value: float) -> None:
        state = self.progress
        where = f"epoch {state.epoch + 1}, step {state.step + 1}"
        kept = "There is no earlier good epoch"
        if self.best and state.best is not None:
            self.program.load_state_dict(self.best)
            kept = f"The program is back at its best epoch ({int(state.best[0]) + 1})"
        remedy = f"{kept}. Try a smaller recipe.lr, recipe.clip_norm, or precision fp32."
        self._tell("failed", where=where)
        raise FitError(say(f"loss at {where}", "must be finite", value, remedy))

    def _tell(self, kind: str, **facts: Any) -> None:
        for listener in self.listeners:
            listener.event(kind, **facts)

    def close(self) -> None:
        """Close files and take the bar down."""
        for listener in self.listeners:
            listener.close()
