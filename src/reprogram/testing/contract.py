"""The checks every method must pass, for the library's own tests and for authors of plug-ins.

from reprogram.testing import check_method
check_method(METHOD)
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from reprogram.catalogue import build, make_config, setting_names
from reprogram.core.errors import ConfigError
from reprogram.core.method import Method, Recipe
from reprogram.core.program import Program, learns
from reprogram.core.source import Source, local_module
from reprogram.core.taxonomy import Configuration
from reprogram.fit import FitOptions, fit
from reprogram.store import read, restore, save
from reprogram.tasks import Task
from reprogram.testing.fakes import tiny_source, tiny_task


class ContractError(AssertionError):
    """A method breaks the contract; the message says which part."""


def check_method(method: Method, *, source: Source | None = None, task: Task | None = None, **settings: Any) -> None:
    """Build, fit, save and rebuild a method on a tiny source and check what every method promises.

    Args:
        method: the card.
        source: to use in place of `tiny_source()`.
        task: to use in place of `tiny_task()`.
        settings: of the method, where its defaults do not suit a canvas of 16 pixels.

    Raises:
        ContractError: a promise is broken.
    """
    source, task = source or tiny_source(), task or tiny_task()
    small = {"recipe.epochs": 2, "recipe.batch_size": 8, "recipe.warmup_steps": 0, **_small(method), **settings}
    program = build(method, source, task, **small)
    _check_card(method, program)
    _check_gradients(program, task)
    _check_fit(program, task, source)
    _check_file(method, program, source, task, small)
    _check_settings(method)
    _check_bf16(program, task)


def _small(method: Method) -> dict[str, object]:
    """Sizes in pixels that fit the tiny canvas."""
    names = setting_names(method)
    return {name: value for name, value in (("width", 3), ("patch", 4)) if name in names}


def _check_card(method: Method, program: Program) -> None:
    _must(program.taxonomy == method.taxonomy, f"declared {method.taxonomy}, but its parts are {program.taxonomy}")
    _must(
        program.origin is not None and program.origin.method == method.name, "must set Program.origin to its own name"
    )
    _must(isinstance(program.origin and program.origin.recipe, Recipe), "must have a recipe")
    fixed = method.taxonomy.configuration == {Configuration.FIXED}
    _must(not (fixed and learns(program.input)), "must learn nothing in I, as its card says")
    _must(bool(method.paper.title and method.paper.authors and method.summary), "must cite a paper and say what it is")


def _check_gradients(program: Program, task: Task) -> None:
    source = program.source
    mine = {id(p) for p in program.parameters()}
    module = local_module(source)
    if module is not None:
        _must(not mine & {id(p) for p in module.parameters()}, "must not own the source's parameters")
        _must(not learns(module), "must leave the source frozen")
    if learns(program):
        index = torch.arange(4)
        loss = torch.nn.functional.cross_entropy(program.train()(task.train.fetch(index)), task.train.labels[index])
        loss.backward()
        grads = [p.grad for p in program.parameters() if p.grad is not None]
        _must(bool(grads) and all(bool(g.isfinite().all()) for g in grads), "must give finite gradients")
        program.zero_grad()
    program.eval()


def _check_fit(program: Program, task: Task, source: Source) -> None:
    fingerprint = source.fingerprint()
    result = fit(program, task, options=FitOptions(progress=False))
    _must(source.fingerprint() == fingerprint, "must leave the source bit for bit as it was")
    _must(result.test is not None and bool(result.test.scores.isfinite().all()), "must give finite scores")
    _must(result.test is not None and result.test.scores.shape[1] == len(task.classes), "must score every class")


def _check_file(method: Method, program: Program, source: Source, task: Task, settings: dict[str, Any]) -> None:
    x = task.test.fetch(torch.arange(4))
    before = program.predict(x).scores
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.safetensors"
        save(program, path)
        known = task.spec if program.origin is None else program.origin.task  # with the examples that were chosen
        again = build(method, source, known, seed=1, **settings)
        restore(again, read(path))
    _must(torch.equal(again.predict(x).scores, before), "must predict the same after saving and loading")


def _check_settings(method: Method) -> None:
    for bad in ({"no_such_setting": 1}, {"recipe.lr": "fast"}, {"recipe.epochs": 0}):
        try:
            make_config(method, bad)
        except ConfigError:
            continue
        raise ContractError(f"{method.name} must refuse the setting {bad}")
    for preset in method.presets:
        make_config(method, preset=preset)


def _check_bf16(program: Program, task: Task) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = program(task.test.fetch(torch.arange(2)))
    _must(bool(out.isfinite().all()), "must work under bf16 autocast")


def _must(truth: bool, what: str) -> None:
    if not truth:
        raise ContractError(what)
