"""A method: a published recipe as a card that says what it is, how it is built and how it is fitted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from reprogram.core.errors import ConfigError, say
from reprogram.core.source import Capability, Source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Taxonomy

if TYPE_CHECKING:
    from reprogram.core.program import Program

Refresh = Literal["stream", "exact", "once"]
Form = Literal["trained", "compact", "compiled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Learned numbers whose names start with `prefix`, e.g. ``input.edits.1``, get a rate and decay of their own."""

    prefix: str
    lr: float
    gamma: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Settings of the optimizers that ask for values of the loss only, never for gradients.

    Attributes:
        draws: directions a step that the estimate is averaged over (5 in BlackVIP, section 4); of "cma_es" the size of
            the population, where 0 leaves it to the optimizer (4 + 3 ln d).
        radius: how far a trial is from the present values: c of "spsa_gc" (0.01), beta of "one_sided" (0.1 in BAR, 0.01
            in BlackVIP's port of it), the first standard deviation of "cma_es".
        radius_decay: gamma of "spsa_gc", ``c_k = c / k ** gamma``.
        decay: alpha of "spsa_gc", ``a_k = lr / (k + offset) ** alpha``.
        offset: o of "spsa_gc".
        directions: of "one_sided": "sphere" (uniform on the unit sphere) or "normal" (N(0, I), as in Nesterov and
            Spokoiny 2017).
        scale: what the mean of "one_sided" is multiplied by; None for what makes it unbiased: d on the sphere, else 1.
        separable_above: of "cma_es": with more learned numbers than this only variances are adapted, no covariances.
        chunk: inputs to a call of the source at most; 0 for what suits the device. A single trial is never divided.
    """

    draws: int = 5
    radius: float = 0.01
    radius_decay: float = 0.1
    decay: float = 0.4
    offset: float = 1.0
    directions: Literal["sphere", "normal"] = "sphere"
    scale: float | None = None
    separable_above: int = 200
    chunk: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.radius < float("inf"):
            raise ConfigError(say("recipe.search.radius", "must be a finite number above 0", self.radius))
        for name in ("draws", "radius_decay", "decay", "offset", "separable_above", "chunk"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(say(f"recipe.search.{name}", "must be 0 or more", getattr(self, name)))


ZEROTH_ORDER = ("spsa_gc", "one_sided", "cma_es")
"""Optimizers that take no gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a program is fitted. Methods state their paper's values; every field can be set by the user.

    Attributes:
        optimizer: of the learned numbers; "normalised" steps by `lr` times the gradient over its L2 norm;
            "spsa_gc", "one_sided" and "cma_es" ask for losses only (see `Search`).
        lr: learning rate; a of "spsa_gc"; without meaning for "cma_es".
        momentum: of "sgd" and "one_sided", and beta of "spsa_gc".
        betas: for "adam" and "adamw".
        weight_decay: L2 on the learned numbers, as the optimizer of that name defines it.
        schedule: "constant"; "cosine" to zero, per step; "multistep" (times `gamma` at each milestone);
            "step" (times `gamma` every `step_epochs`); "polynomial" (down to `end_lr`, with the power 0.9, over nine
            tenths of all steps).
        milestones: fractions of all epochs, for "multistep".
        gamma: factor of "multistep" and "step".
        step_epochs: for "step".
        warmup_steps: steps of linear warm-up.
        epochs: passes over the training split.
        batch_size: inputs a step.
        loss: "cross_entropy" on target scores, or "nll" where the output gives log-probabilities itself.
        refresh: when a statistical label mapping is made anew: "stream" from the outputs that training sees anyway,
            "exact" by a pass of its own before every epoch, "once" before the first epoch only.
        augment: "none", "flip", or "crop" (flip, and a random crop after padding by an eighth).
        views: of each picture that are kept where pictures are looked at once (programs that learn only at the text
            side of an image-text source): the picture itself, and `views - 1` augmented ones.
        groups: learned numbers with rates of their own.
        patience: epochs without a better validation score before stopping; None never stops early.
        clip_norm: gradient norm limit; None for none.
        end_lr: where "polynomial" ends.
        search: settings of the optimizers that take no gradients.
        queries: inputs that such a fit may send to the source for training, every trial of every input counted; None
            for any number. The fit ends before the step that would need more. Validation, of the start and after each
            epoch, comes on top; the start counts as a state, so a search never ends below it on validation.
    """

    optimizer: Literal["adam", "adamw", "sgd", "normalised", "spsa_gc", "one_sided", "cma_es"] = "adam"
    lr: float = 0.01
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "multistep", "step", "polynomial"] = "constant"
    milestones: tuple[float, ...] = (0.5, 0.72)
    gamma: float = 0.1
    step_epochs: int = 1
    warmup_steps: int = 0
    epochs: int = 10
    batch_size: int = 128
    loss: Literal["cross_entropy", "nll"] = "cross_entropy"
    refresh: Refresh = "stream"
    augment: Literal["none", "flip", "crop"] = "none"
    views: int = 1
    groups: tuple[Group, ...] = ()
    patience: int | None = None
    clip_norm: float | None = None
    end_lr: float = 0.0
    search: Search = Search()
    queries: int | None = None

    def __post_init__(self) -> None:
        positive = {n: float(getattr(self, n)) for n in ("lr", "epochs", "batch_size", "step_epochs", "views")}
        for name, value in positive.items():
            if not 0 < value < float("inf"):
                raise ConfigError(say(f"recipe.{name}", "must be a finite number above 0", value))
        at_least_zero = {n: float(getattr(self, n)) for n in ("weight_decay", "momentum", "warmup_steps", "end_lr")}
        for name, value in at_least_zero.items():
            if not value >= 0:
                raise ConfigError(say(f"recipe.{name}", "must be 0 or more", value))
        if self.patience is not None and self.patience < 1:
            raise ConfigError(say("recipe.patience", "must be 1 or more, or none", self.patience))
        if self.queries is not None and self.queries < 1:
            raise ConfigError(say("recipe.queries", "must be 1 or more, or none", self.queries))
        if self.zeroth_order and (self.groups or self.weight_decay or self.clip_norm is not None):
            raise ConfigError(say("recipe", f"may have no groups, weight_decay or clip_norm with {self.optimizer}",
                                  (self.groups, self.weight_decay, self.clip_norm)))  # fmt: skip

    @property
    def zeroth_order(self) -> bool:
        """It asks for values of the loss only, so that a source without gradients will do."""
        return self.optimizer in ZEROTH_ORDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """Who published it. `arxiv` is the bare number, empty for things without a paper of their own."""

    title: str
    authors: str
    year: int
    arxiv: str = ""
    venue: str = ""

    def bibtex(self, key: str) -> str:
        """A BibTeX entry.

        >>> print(Paper(title="T", authors="A and B", year=2022, arxiv="2203.17274").bibtex("vp"))
        @misc{vp,
          title = {T},
          author = {A and B},
          year = {2022},
          eprint = {2203.17274},
          archivePrefix = {arXiv},
        }
        """
        rows = {"title": self.title, "author": self.authors, "year": str(self.year), "howpublished": self.venue}
        if self.arxiv:
            rows |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        body = "".join(f"  {name} = {{{value}}},\n" for name, value in rows.items() if value)
        return f"@misc{{{key},\n{body}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a program came from: enough to build the same parts again.

    Attributes:
        method: name of the method.
        config: its settings, an instance of the method's config class.
        task: what `build` saw of the task; None for methods that need none.
        paper: whom to cite; `reprogram.build` fills it in from the card.
        form: "trained" as the method built it; "compact" without what only training needs; "compiled" with its learned
            tokens as the keys and values that a causal source makes of them.
    """

    method: str
    config: object
    task: TaskSpec | None
    paper: Paper | None = None
    form: Form = "trained"

    def citation(self) -> str:
        """BibTeX of the method's paper, empty if unknown."""
        return self.paper.bibtex(self.method) if self.paper else ""

    @property
    def recipe(self) -> Recipe:
        """How the method says it is fitted."""
        found = getattr(self.config, "recipe", None)
        return found if isinstance(found, Recipe) else Recipe()


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """The card of a method. A file in `methods/` holds one as `METHOD`; nothing else makes it known.

    Attributes:
        name: what users type.
        summary: one line.
        taxonomy: declared values; a contract test compares them with those read off a built program.
        paper: citation.
        config: frozen dataclass whose defaults are the paper's values; its field `recipe` says how to fit.
        build: `build(source, task, config)` composes the parts.
        context: `context(source, task, pool, config, seed)` chooses from the training split's examples what the
            program is to hold as `TaskSpec.context`; None for methods that show no examples.
        presets: named settings beside the paper's, e.g. "cpu" for a laptop.
        needs: capabilities the source must have.
        control: True for baselines that others are compared with.
        paper_tags: the paper's or survey's own words for the four axes where they differ from ours.
        space: what a search tries, by setting, such as "1,5,10" or "1e-3:1e-1:log" (see `reprogram.search`); empty for
            ranges around the defaults.
    """

    name: str
    summary: str
    taxonomy: Taxonomy
    paper: Paper
    config: type
    build: "Callable[[Source, TaskSpec, Any], Program]"
    context: "Callable[[Source, TaskSpec, Sequence[Example], Any, int], Sequence[Example]] | None" = None
    presets: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: {})
    needs: frozenset[Capability] = frozenset()
    control: bool = False
    paper_tags: str = ""
    space: Mapping[str, str] = field(default_factory=lambda: {})
