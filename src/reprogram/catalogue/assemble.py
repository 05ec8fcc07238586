"""Building programs from a method's name, and building them again from a program file."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final, overload

import torch

from reprogram.catalogue.config import make_config
from reprogram.catalogue.convert import formed
from reprogram.catalogue.find import find
from reprogram.core.errors import ArtifactError, CapabilityError, ConfigError, DataError, say
from reprogram.core.method import Method, Recipe
from reprogram.core.program import PerPixel, Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import Example, Sample, TaskSpec
from reprogram.core.texts import Texts
from reprogram.media import to_data_uri
from reprogram.sources import load_source
from reprogram.store import check_source, read, restore
from reprogram.tasks import Task


def build(
    method: str | Method,
    source: Source,
    task: Task | TaskSpec | None,
    *,
    preset: str = "paper",
    seed: int = 0,
    **config: Any,
) -> Program:
    """Compose a program: what the method says, for this source and this task. Nothing is fitted yet.

    Args:
        method: its name, or a card of your own.
        source: the frozen model.
        task: the target task, or only its description.
        preset: "paper" (default), one of the method's presets such as "cpu", or "auto".
        seed: of random starts.
        config: settings by name: `lr=0.05`, `epochs=5`, `inner=96`, or nested as `**{"recipe.lr": 0.05}`.

    Raises:
        ConfigError: the method or a setting is unknown, or a value out of range.
        CapabilityError: the source lacks what the method needs.

    Example:
        program = build("blm", load_source("bundled/efficientnet-lite0"), load_task("bundled/mnist5k"), preset="cpu")
    """
    card = find(method) if isinstance(method, str) else method
    settings = make_config(card, config, preset=preset, source=source.spec)
    _check_source(card, source, getattr(settings, "recipe", None))
    spec = task.spec if isinstance(task, Task) else task
    shown = Capability.PICTURES in source.capabilities and spec is not None and spec.modality == "image"
    if spec is not None and spec.modality != source.spec.modality and not shown:
        kinds = f"a task of the source's kind ({source.spec.modality})"
        raise ConfigError(say("task", f"must be {kinds}", f"{spec.name} ({spec.modality})"))
    if isinstance(task, Task) and spec is not None and card.context is not None and not spec.context:
        spec = replace(spec, context=tuple(card.context(source, spec, Pool(task), settings, seed)))
    return _build(card, source, spec, settings, seed)


REMEDIES = {
    Capability.CLASS_TEXTS: "Sources of pictures and texts do: bundled/conse, CLIP and SigLIP as hf/..., open_clip/...",
    Capability.PICTURES: "Models that read pictures and text do: hf/..., endpoint/... where the server takes both.",
    Capability.GENERATION: "Language models that write do: bundled/smollm2-135m, hf/..., endpoint/...",
    Capability.TOKEN_INSERTION: "Transformers that run here do: bundled/smollm2-135m, bundled/minilm-l6, hf/...",
    Capability.HIDDEN_SITES: "Models that run here do: bundled/..., timm/..., hf/...",
    Capability.GRADIENTS: 'Or fit without them: recipe.optimizer="spsa_gc", "one_sided" or "cma_es".',
}
"""Where to find what a source lacks, the rarest first."""


def _check_source(card: Method, source: Source, recipe: object) -> None:
    """The source offers what the method needs; gradients only if the recipe takes them."""
    searches = isinstance(recipe, Recipe) and recipe.zeroth_order
    missing = sorted(card.needs - source.capabilities - ({Capability.GRADIENTS} if searches else set()))
    if missing:
        remedy = next((REMEDIES[one] for one in REMEDIES if one in missing), "")
        raise CapabilityError(
            say("source", f"must offer {' and '.join(missing)} for {card.name}", source.spec.ref, remedy)
        )


@final
class Pool(Sequence[Example]):
    """The examples of a task's training split, read as they are asked for."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __len__(self) -> int:
        return len(self._task.train)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """One example, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        row = range(len(self))[index]
        split = self._task.train
        texts = split.fetch(torch.tensor([row]))
        if isinstance(texts, torch.Tensor):  # a picture is kept as the text of a PNG
            return Example((to_data_uri(texts[0]),), self._task.classes[int(split.labels[row])])
        if not isinstance(texts, Texts):
            raise DataError(say(split.name, "must hold texts or pictures to be shown in a prompt", type(texts)))
        answer = texts.targets[0] if texts.targets is not None else self._task.classes[int(split.labels[row])]
        return Example(tuple(texts.row(0).values()), answer)


def _build(card: Method, source: Source, spec: TaskSpec | None, settings: Any, seed: int) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        program = card.build(source, spec, settings)  # type: ignore[arg-type]
    if spec is not None and spec.dense and not (isinstance(program.output, PerPixel) and program.output.dense):
        remedy = "Its pixels have classes of their own: take a method such as evp_explicit."
        raise ConfigError(say("method", f"must give a score for each pixel of {spec.name}", card.name, remedy))
    if program.origin is not None:
        program.origin = replace(program.origin, paper=card.paper)
    return program.to(source.device).eval()


def load(path: str | os.PathLike[str], source: Source | None = None, *, force: bool = False) -> Program:
    """Build a saved program again, on its own source or on one given.

    Args:
        path: a program file.
        source: the frozen model; None loads the one the file names, if it is one that `load_source` knows.
        force: use the source although its fingerprint differs from the one the program was fitted on.

    Raises:
        ArtifactError: the file is damaged, foreign, too new, or names a source or settings that do not fit.
        FingerprintError: the source is another one, and `force` is False.
    """
    stored = read(path)
    card = stored.card
    if source is None:
        if card.source.ref.startswith("module:") or "@" in card.source.ref:
            remedy = "Pass it: load(path, source=...)."
            raise ArtifactError(say("source", "is a model in memory that only you have", card.source.ref, remedy))
        if card.source.ref.startswith("endpoint/"):
            remedy = "If you trust it with your inputs, name it: load(path, source=load_source(...)), or --source."
            raise ArtifactError(say("source", "is a server that the file names; nothing is sent there unasked",
                                    card.source.ref, remedy))  # fmt: skip
        source = load_source(card.source.ref)
    check_source(stored, source, force)
    try:
        method = find(card.method)
        settings = make_config(method, dict(card.config))
    except ConfigError as problem:
        raise ArtifactError(
            say(str(path), "must name a method and settings known here", card.method, str(problem))
        ) from problem
    spec = None
    if card.task is not None:
        t = card.task
        sample = Sample(**dict(t.sample))
        context = tuple(Example(tuple(one.texts), one.answer) for one in t.context)
        spec = TaskSpec(name=t.name, classes=tuple(t.classes), sample=sample, modality=t.modality, context=context,
                        dense=t.dense)  # fmt: skip
    built = _build(method, source, spec, settings, 0)
    if built.origin is not None and built.origin.config != settings:
        got = "settings that it fills in itself are missing or others"
        raise ArtifactError(say(str(path), f"must hold the settings as {card.method} writes them", got))
    program = formed(built, card.form)
    restore(program, stored)
    return program.eval()
