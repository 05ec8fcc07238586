"""The equation, `y = O(f(I(x)))`. Read this file first.

An *edit* changes the value at one site of a frozen source. An `Input` (I) is an ordered row of edits, an `Output`
(O) reads the source's scores as the target's, and a `Program` binds both to one source (f), which stays as it is.
"""

import copy
from abc import abstractmethod
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, cast, final, runtime_checkable

import torch
from torch import Tensor, nn

from reprogram.core.conversation import Conversing, converse
from reprogram.core.errors import CapabilityError, say
from reprogram.core.method import Origin
from reprogram.core.result import Parameters, Predictions
from reprogram.core.source import Capability, Reading, Source, SourceOutput, text_source
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.texts import Batch, Texts, Tokens
from reprogram.core.writing import Answer, Writing, Written


class Edit(nn.Module):
    """One change of the value at one site. Subclasses are final and say in their docstring what they compute.

    Attributes:
        site: an address in `source.sites`, such as "input", "normalised" or "hidden.3".
        operators: how it acts (tau); empty for a mere change of shape that lets the task's samples into the source.
    """

    site: str
    operators: frozenset[Operator]

    @abstractmethod
    def forward(self, value: Any) -> Any:
        """The edited value, the batch first: a tensor, or `Texts` at the "input" of a source of text."""

    def effective(self) -> int:
        """How many of the learned numbers can reach the output at all. All, unless an edit knows better."""
        return _learned(self)


@final
class Input(nn.Module):
    """I: edits in the order in which they act. Edits at different sites act where the source gets to them."""

    def __init__(self, *edits: Edit) -> None:
        super().__init__()
        self.edits = nn.ModuleList(edits)

    def at(self, site: str) -> list[Edit]:
        """The edits at one site, in order."""
        return [e for e in self if e.site == site]

    def under(self, prefix: str, bare: Collection[str] = ()) -> "Input":
        """The edits of one tower, "image" or "text", with the sites by which the tower itself knows them.

        They are the same edits: their numbers are shared, nothing is copied.

        Args:
            prefix: before the first dot of their sites.
            bare: sites without the prefix that are the tower's as well.
        """
        mine = [
            (e, e.site.removeprefix(f"{prefix}.")) for e in self if e.site.startswith(f"{prefix}.") or e.site in bare
        ]
        return Input(*(_seen_at(e, site) for e, site in mine))

    def __iter__(self) -> Iterator[Edit]:
        return (cast("Edit", e) for e in self.edits)

    def forward(self, value: Any, site: str = "input") -> Any:
        """Apply the edits at `site` to `value`."""
        for edit in self.edits:
            if edit.site == site:
                value = edit(value)
        return value


class Output(nn.Module):
    """O: from source outputs [B, S] to target scores [B, T]. Subclasses are final."""

    alignment: Alignment
    reads_features: bool = False

    @property
    def reading(self) -> Reading:
        """What it needs to be told."""
        return Reading(features=self.reads_features)

    @abstractmethod
    def forward(self, output: SourceOutput) -> Tensor:
        """Target scores [B, T]; `softmax` of them are the program's probabilities."""


@runtime_checkable
class Observing(Protocol):
    """An output whose state is fitted without gradients, from source outputs and labels as they come by."""

    def observe(self, output: SourceOutput, target: Tensor) -> None:
        """Add a batch, [B, S] scores and [B] labels, to the statistics."""
        ...

    def refresh(self) -> None:
        """Make the mapping from the statistics so far (of all ranks, if there are several)."""
        ...

    def forget(self) -> None:
        """Start the statistics anew; the mapping stays until the next `refresh`."""
        ...

    def statistics(self) -> dict[str, Tensor]:
        """The statistics so far, for a checkpoint."""
        ...

    def load_statistics(self, statistics: dict[str, Tensor]) -> None:
        """Take them up again."""
        ...


@runtime_checkable
class Calibrating(Observing, Protocol):
    """An observing output that says itself what it is to observe.

    Attributes:
        rows: inputs of its own in place of the training split; None for the split.
        bare: they go to the source as they are, not through I.
        most: rows of the split at most; None for all.
    """

    rows: Texts | None
    bare: bool
    most: int | None


@runtime_checkable
class Judging(Protocol):
    """An output that says itself how wrong it is: its `loss` is minimised in place of the recipe's."""

    def loss(self, output: SourceOutput, scores: Tensor, target: Tensor) -> Tensor:
        """A scalar from what the source said, the target scores [B, T] that O made of it, and labels [B]."""
        ...


@runtime_checkable
class PerPixel(Protocol):
    """An output that may give a score for every pixel, as dense tasks ask for.

    Attributes:
        dense: whether this one does: its scores are [B, T, height, width].
    """

    dense: bool


@runtime_checkable
class Answering(Protocol):
    """An output that reads answers off texts that the source wrote, and may find none."""

    def answers(self, output: SourceOutput) -> tuple[Answer, ...]:
        """One for each input; of a task with classes, their values are class names."""
        ...

    def canonical(self, target: str) -> str:
        """The spelling that `Answer.value` has if it agrees with a target of the task."""
        ...


@final
class Program(nn.Module):
    """`y = O(f(I(x)))`, f frozen: not among `parameters()`, not in `state_dict()`, never changed.

    Args:
        input: I, or its edits.
        source: f.
        output: O.
        origin: the method, settings and task it was built from; what a program file needs to build it again.

    Raises:
        CapabilityError: an edit's site is not among the source's, or gradients are needed and not to be had.
    """

    def __init__(
        self, input: Input | Sequence[Edit], source: Source, output: Output, *, origin: Origin | None = None
    ) -> None:
        super().__init__()
        self.input = input if isinstance(input, Input) else Input(*input)
        self.output = output
        self.origin = origin
        self._source = (source,)  # in a tuple, so that a source that is a module is not registered as a part
        _check_fit(self.input, source, origin)
        source.attach([e.site for e in self.input], output.reading)

    @property
    def source(self) -> Source:
        """The frozen model; shared, not owned."""
        return self._source[0]

    def forward(self, x: Batch, mask: Tensor | None = None) -> Tensor:
        """Target scores [B, T] for inputs [B, ...] or texts.

        Args:
            x: pictures; texts; or token ids [B, tokens] for a source of text.
            mask: [B, tokens], 0 where token ids are padding (on either side); None if there is none.

        A program for no task (`build(method, source, None)`) gives scores [B, tokens, vocabulary] at the input's own
        positions.
        """
        if mask is not None:
            x = Tokens(cast("Tensor", x), mask.bool())
        return self.output(self.outputs(x))

    def outputs(self, x: Batch, plain: SourceOutput | None = None) -> SourceOutput:
        """`f(I(x))`: what O reads. An input that asks more than once has its conversation with the source.

        Args:
            x: inputs.
            plain: what the source says of them without edits, where that is known and wanted.
        """
        talks = [e for e in self.input if isinstance(e, Conversing)]
        if not talks:
            said = self.source(x, self.input, self.output.reading)
            return replace(said, plain=plain or self.plain(x)) if self.output.reading.plain else said
        for edit in self.input.at("input"):
            if edit is talks[0]:
                break
            x = edit(x)
        if len(talks) > 1 or not isinstance(x, Texts):
            raise CapabilityError(say("program", "must have one conversation, about texts", len(talks)))
        return SourceOutput(written=converse(self._asked, x, talks[0]))

    @torch.no_grad()
    def plain(self, x: Batch) -> SourceOutput:
        """What the source says of inputs that are only brought into shape: edits without an operator are applied."""
        shaped = Input(*(e for e in self.input if not e.operators))
        return self.source(x, shaped, replace(self.output.reading, plain=False))

    def _asked(self, prompts: Texts, writing: Writing) -> tuple[tuple[Written, ...], ...]:
        said = self.source(prompts, Input(), Reading(writing=writing)).written
        if said is None:
            raise CapabilityError(say("source", "must write after prompts", self.source.spec.ref))
        return said

    @property
    def taxonomy(self) -> Taxonomy:
        """Read off the parts: what the program is, not what somebody says it is."""
        edits = [e for e in self.input if e.operators]
        return Taxonomy(
            configuration=frozenset(Configuration.LEARNABLE if _learned(e) else Configuration.FIXED for e in edits),
            location=frozenset(self.source.sites[e.site] for e in edits),
            operator=frozenset(o for e in edits for o in e.operators),
            alignment=frozenset({self.output.alignment}),
        )

    def count(self) -> Parameters:
        """Learned numbers, allocated and effective, and numbers fitted without gradients (buffers that are saved)."""
        effective = sum(e.effective() for e in self.input) + _learned(self.output)
        fitted = sum(b.numel() for name, b in self.output.named_buffers() if name in self.output.state_dict())
        return Parameters(allocated=_learned(self), effective=effective, fitted=fitted)

    @torch.inference_mode()
    def predict(self, inputs: object, *, batch_size: int = 32) -> Predictions:
        """Classify tensors, arrays, pictures or paths.

        Args:
            inputs: one input or a list of them: paths, PIL images, arrays, or a tensor [N, channel, height, width]
                (uint8, or floats in [0, 1]); for a source of text, texts or rows with the task's columns.
            batch_size: inputs to a forward pass.

        Raises:
            DataError: an input cannot be read; the message names it.
        """
        task = self.origin.task if self.origin else None
        prepared = self.source.prepare(inputs, task.sample if task else None)
        rows, answers = list[Tensor](), list[Answer]()
        with evaluating(self):
            for batch in _batches(prepared, batch_size):
                said = self.outputs(batch.to(self.source.device))
                rows.append(self.output(said).float().cpu())
                answers += self.output.answers(said) if isinstance(self.output, Answering) else ()
        return Predictions(
            scores=torch.cat(rows) if rows else torch.empty(0, 0),
            classes=task.classes if task else None,
            answers=tuple(answers) if isinstance(self.output, Answering) else None,
        )

    def generate(self, inputs: object, *, max_new_tokens: int = 32, batch_size: int = 32, **options: Any) -> list[str]:
        """What the source writes after each prompt; language models only.

        Args:
            inputs: a text, a list of texts, or rows with the task's columns.
            max_new_tokens: to write at most.
            batch_size: prompts to a forward pass.
            options: of transformers' `generate`, such as `do_sample=True, temperature=0.7, top_p=0.9`. Greedy by
                default.

        Raises:
            CapabilityError: the source cannot generate.
        """
        task = self.origin.task if self.origin else None
        source = text_source(self.source)
        if Capability.GENERATION not in source.capabilities:
            raise CapabilityError(say("source", "must be able to generate", source.spec.ref))
        prepared = source.prepare(inputs, task.sample if task else None)
        written: list[str] = []
        for batch in _batches(prepared, batch_size):
            written += source.generate(cast("Texts", batch), self.input, max_new_tokens=max_new_tokens, **options)
        return written


def _batches(prepared: Any, size: int) -> Iterator[Batch]:
    for start in range(0, len(prepared), size):
        part = prepared[start : start + size]
        yield part if isinstance(part, Texts) else torch.stack(list(part))


def _seen_at(edit: Edit, site: str) -> Edit:
    """The edit itself, or one that shares all its numbers and stands at another site."""
    if edit.site == site:
        return edit
    moved = copy.copy(edit)  # shallow: parameters, buffers and parts are the same objects
    moved.site = site
    return moved


def learns(module: nn.Module) -> bool:
    """Something in it is learned."""
    return any(p.requires_grad for p in module.parameters())


@contextmanager
def evaluating(program: nn.Module) -> Generator[None]:
    """In eval mode until the block ends, then as it was."""
    training = program.training
    program.eval()
    try:
        yield
    finally:
        program.train(training)


def _learned(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _check_fit(input: Input, source: Source, origin: Origin | None) -> None:
    searches = origin is not None and origin.recipe.zeroth_order
    for edit in input:
        if edit.site not in source.sites:
            some = [*list(source.sites)[:6], "…"]
            raise CapabilityError(say("site", f"must be one of the source's sites {some}", edit.site,
                                      f"`reprogram sites {source.spec.ref}` lists them all."))  # fmt: skip
        if _learned(edit) and not searches and Capability.GRADIENTS not in source.capabilities:
            msg = say("source", "must give gradients, because the program learns", source.spec.ref,
                      "Use a zeroth-order method, or a source that runs here.")  # fmt: skip
            raise CapabilityError(msg)
        if source.sites[edit.site] is not Location.INPUT and Capability.HIDDEN_SITES not in source.capabilities:
            raise CapabilityError(say("source", f"must let `{edit.site}` be edited", source.spec.ref))
