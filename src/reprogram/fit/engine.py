"""The one training engine: gradients reach the program only, label mappings ride along, every moment can be resumed.

A step fetches a batch, lets the source answer through I, shows the answer to O's statistics, reads it through O, and
steps the optimizer. The source's own pass is all the work there is: no second pass for the mapping, no weight
gradients, and no pass at all after the first where I learns nothing (`feed.Cached`). Recipes that take no gradients at
all have steps of another kind (`zeroth_order_step`), which count what they ask of the source.
"""

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
from reprogram.core.program import Observing, Program, learns
from reprogram.core.source import SourceOutput
from reprogram.fit.batches import shuffled
from reprogram.fit.compiled import compiled
from reprogram.fit.events import EventFile, Listener
from reprogram.fit.feed import feed_for
from reprogram.fit.interrupts import Deferred
from reprogram.fit.mapping import observe_split
from reprogram.fit.metrics import Metrics, by_pixel, evaluate
from reprogram.fit.optimizer import loss_of, losses, make_optimizer, set_rates, warn_if_still
from reprogram.fit.options import FitOptions
from reprogram.fit.result import START, FitResult, Queries
from reprogram.fit.said import target_of
from reprogram.fit.schedule import factor
from reprogram.fit.state import Checkpoint, Optimizer, Progress, identity, mix
from reprogram.fit.workspace import Workspace
from reprogram.fit.zeroth_order_step import Searcher, check_gradients
from reprogram.sources import BudgetError
from reprogram.store import save
from reprogram.tasks import Split, Task


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
        CapabilityError: the recipe takes gradients through a source that gives none.
        ConfigError: a recipe without gradients, in another precision than fp32.
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
        self.learns = learns(program)
        if not self.learns and self.observing is None and len(task.train) == 0:
            raise FitError(say("train", "must hold examples", len(task.train)))
        self.epochs = self.recipe.epochs if self.learns else min(1, self.recipe.epochs)
        self.steps = math.ceil(len(task.train) / self.recipe.batch_size) if self.learns else 0
        searches = self.learns and self.recipe.zeroth_order
        check_gradients(program, searches=searches)
        self.optimizer = make_optimizer(program, self.recipe) if self.learns and not searches else None
        self.loss = losses(self.recipe.loss)
        forward = compiled(program.source) if options.compile else None
        self.feed = feed_for(program, autocast=options.autocast(), forward=forward, views=self.recipe.views)
        self.exact = feed_for(program)
        self.search = Searcher(program, self.recipe, options, seed, self.exact) if searches else None
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
        if self.optimizer is not None:
            warn_if_still(self.progress.history, self.recipe.lr)
        if self.program.source.fingerprint() != fingerprint:
            raise FingerprintError(say("source", "must be bit-identical after a fit", self.program.source.spec.ref))
        return self._finish()

    def _epoch(self) -> None:
        start = time.perf_counter()
        try:
            start = self._steps(start)
        except BudgetError as problem:
            if not self.learns:
                raise
            self._run_dry(str(problem))
        self._close_epoch(start)

    def _steps(self, start: float) -> float:
        """The steps of an epoch that are left; when the last of them ended."""
        state = self.progress
        if state.step == 0:
            state.loss, state.right, state.seen = 0.0, 0, 0
            self._prepare_mapping()
            self._score_start()
        order = shuffled(self.task.train, self.recipe.batch_size, mix(self.seed, state.epoch))
        self.program.train()
        while state.step < self.steps and self._affordable():
            size = self.recipe.batch_size
            self._step(order[state.step * size : (state.step + 1) * size])
            state.step += 1
            took, start = time.perf_counter() - start, time.perf_counter()
            state.seconds += took
            self._tell("step", rate=size / max(took, 1e-9), loss=state.loss / state.seen,
                       done=state.epoch * self.steps + state.step, **self._queries())  # fmt: skip
            if state.step < self.steps and time.monotonic() - self.saved >= self.options.checkpoint_seconds:
                self._save()
            self._give_way()
        return start

    def _give_way(self) -> None:
        """Between steps only: an interrupt that has come in meanwhile is obeyed, with a checkpoint to go on from."""
        if self.interrupts.pending is not None:
            self._save()
            self.interrupts.act()

    def _step(self, index: Tensor) -> None:
        state, recipe = self.progress, self.recipe
        done = state.epoch * self.steps + state.step
        torch.manual_seed(mix(self.seed, state.epoch, state.step))
        if self.search is not None:
            self._ask(self.search, index, done)
            return
        out = self.feed.outputs(self.task.train, index, recipe.augment)
        target = target_of(out, self.task.train, index, self.program.source.device)
        if self.observing is not None and recipe.refresh == "stream":
            self._observe(out, target)
        scores, target = by_pixel(self.program.output(out), target)
        loss = loss_of(self.program.output, out, scores, target, self.loss)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._stop_at(value)
        self._descend(loss, done)
        state.loss += value * len(target)
        state.right += int((scores.argmax(1) == target).sum())
        state.seen += len(target)

    def _observe(self, out: SourceOutput, target: Tensor) -> None:
        assert self.observing is not None
        if out.scores is not None and not bool(out.scores.isfinite().all()):
            self._stop_at(float("nan"))
        self.observing.observe(out, target)
        if self.progress.epoch == 0:  # there is no earlier epoch to take a mapping from
            self.observing.refresh()

    def _ask(self, search: Searcher, index: Tensor, done: int) -> None:
        """A step without gradients."""
        state = self.progress
        observe = self._observe if self.observing is not None and self.recipe.refresh == "stream" else None
        cost = search.cost(len(index), state, len(self.task.train))
        seed = mix(self.seed, state.epoch, state.step)
        found = search.step(self.task.train, index, seed=seed, observe=observe,
                            factor=factor(self.recipe, done, self.steps))  # fmt: skip
        state.queries += cost
        if not math.isfinite(found.loss):
            self._stop_at(found.loss)
        state.loss += found.loss * found.seen
        state.right += found.right
        state.seen += found.seen

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
            limit = self.search.left(self.progress) if self.search is not None else None
            seen = observe_split(self.program, self.task.train, self.exact, seed=self.seed, limit=limit)
            self.progress.queries += seen if self.search is not None else 0
            self.observing.refresh()
        elif not once:
            self.observing.forget()

    # -- budgets ---------------------------------------------------------------------------------------------------

    def _affordable(self) -> bool:
        """The next step may be made; if not, the fit ends here."""
        short = self.search.short(self.progress, len(self.task.train)) if self.search is not None else ""
        if short:
            self._run_dry(short)
        return not short

    def _run_dry(self, why: str) -> None:
        """Nothing more may be asked: a clean end, with the best state so far."""
        if not self.progress.stopped:
            self.progress.stopped = True
            self._tell("note", text=f"Stopped: {why} The best state so far is kept.")

    def _queries(self) -> dict[str, int]:
        state = self.progress
        return {"queries": state.queries, "validation_queries": state.asked} if self.search is not None else {}

    # -- the end of an epoch ---------------------------------------------------------------------------------------

    def _close_epoch(self, start: float) -> None:
        state = self.progress
        whole = state.epoch == 0 or state.step >= self.steps
        if self.observing is not None and self.recipe.refresh == "stream" and self.learns and whole:
            self.observing.refresh()
        row: dict[str, Any] = {"epoch": state.epoch, "epochs": self.epochs}
        if state.seen:
            row |= {"loss": state.loss / state.seen, "accuracy": state.right / state.seen}
        row |= self._scores("val", self.task.val)
        if self.options.track_test:
            row |= self._scores("test", self.task.test)
        row["best"] = self._select(row.get("val_accuracy"), row.get("val_loss"))
        row |= self._queries()
        state.seconds += time.perf_counter() - start
        row["seconds"] = state.seconds - sum(r["seconds"] for r in state.history)
        state.history.append(row)
        self._tell("epoch", **row)
        state.epoch, state.step = state.epoch + 1, 0
        patience = self.recipe.patience
        state.stopped = state.stopped or (patience is not None and state.waited >= patience) or not self._affordable()
        if time.monotonic() - self.saved >= self.options.checkpoint_seconds or self._over():
            self._save()

    def _over(self) -> bool:
        return self.progress.stopped or self.progress.epoch >= self.epochs

    def _scores(self, name: str, split: Split) -> dict[str, float]:
        metrics = self._measured(split)
        if metrics is None:
            return {}
        found = {f"{name}_accuracy": metrics.accuracy}
        if not math.isnan(metrics.loss):  # texts that were written and parsed have none
            found[f"{name}_loss"] = metrics.loss
        return found

    def _measured(self, split: Split) -> Metrics | None:
        """Metrics on a split; None if it is empty, or nothing more may be asked after a fit of some length."""
        if not len(split):
            return None
        if split is self.task.val and self.search is not None:
            self.progress.asked += self.search.scored(len(split), self.progress)
        try:
            return evaluate(self.program, split, feed=self.exact)
        except BudgetError:
            if not self.learns:
                raise
            return None

    def _score_start(self) -> None:
        """A search can lead away from where it began, so that counts as a state, too, once it has its label map."""
        mapped = self.observing is None or self.recipe.refresh != "stream"
        if self.search is not None and self.progress.best is None and len(self.task.val) and mapped:
            self.program.eval()
            found = self._scores("val", self.task.val)
            if "val_accuracy" in found:
                self._select(found["val_accuracy"], found.get("val_loss"), epoch=START)

    def _select(self, accuracy: float | None, loss: float | None, *, epoch: int | None = None) -> bool:
        """Keep the state if it is the best on validation so far; without validation data, the last one."""
        state, loss = self.progress, loss or 0.0
        better = state.improves(accuracy, loss, validated=len(self.task.val) > 0)
        state.waited = 0 if better else state.waited + 1
        if better:
            state.best = [float(state.epoch if epoch is None else epoch), accuracy or 0.0, loss]
            self.best = {k: v.detach().clone() for k, v in self.program.state_dict().items()}
        return better

    def _finish(self) -> FitResult:
        state = self.progress
        if state.best is not None and int(state.best[0]) == START:
            self._tell("note", text=f"No epoch was better on validation than the start ({state.best[1]:.1%}), "
                                    "which is what is kept.")  # fmt: skip
        last = self._measured(self.task.test)
        best = last
        differs = (
            any(not torch.equal(v, self.best[k]) for k, v in self.program.state_dict().items()) if self.best else False
        )
        if differs:
            self.program.load_state_dict(self.best)
            best = self._measured(self.task.test)
        val = self._measured(self.task.val)
        result = FitResult(
            program=self.program, history=tuple(state.history), validation=val, test=best, last_test=last,
            best_epoch=int(state.best[0]) if state.best else 0, seconds=state.seconds, seed=self.seed,
            out=self.place.out if self.place else None, recipe=self.recipe,
            queries=Queries(training=state.queries, validation=state.asked) if self.search is not None else None,
        )  # fmt: skip
        if self.place is not None and self.program.origin is not None:
            save(self.program, self.place.out, metrics=result.card(), seed=self.seed,
                 citation=self.program.origin.citation())  # fmt: skip
        self._tell("end", **result.card())
        return result

    # -- files and listeners ---------------------------------------------------------------------------------------

    def _open(self, fingerprint: str, resume: bool) -> None:
        """Load the checkpoint if there is one to go on from, then let the listeners in."""
        if resume and self.place is None:
            raise ConfigError(say("resume", "must come with `out`, the place to resume from", resume))
        if self.place is not None:
            known = identity(self.program, self.task, self.recipe, self.seed)
            known |= {"source": fingerprint, "precision": self.options.precision}
            self.checkpoint = Checkpoint(path=self.place.checkpoint, identity=known)
            if resume and self.place.checkpoint.exists():
                self.progress, self.best = self.checkpoint.load(self.program, self._stateful())
                if self.progress.scaler:
                    self.scaler.load_state_dict(self.progress.scaler)
            else:
                self.place.checkpoint.unlink(missing_ok=True)
            self.events = EventFile(self.place.events, self.progress.events)
            self.listeners.append(self.events)
        self.listeners += self.options.listeners(self.place.folder if self.place else None)
        done = self.progress.epoch * self.steps + self.progress.step
        self._tell("resume" if done else "start", steps=self.epochs * self.steps, done=done, seed=self.seed,
                   source=self.program.source.spec.ref, recipe=asdict(self.recipe))  # fmt: skip

    def _save(self) -> None:
        if self.place is None:
            return
        self.progress.events = self.events.position()
        self.progress.scaler = self.scaler.state_dict()
        best = {f"best.{k}": v for k, v in self.best.items()}
        self.checkpoint.save(self.progress, self.program, self._stateful(), best)
        self.saved = time.monotonic()

    def _stateful(self) -> Optimizer | None:
        return self.optimizer if self.search is None else self.search.optimizer

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
