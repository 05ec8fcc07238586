"""Pictures against class texts: the class whose text (or texts) is closest, on an image-text source."""

import math
from collections.abc import Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, DataError, say
from reprogram.core.program import Output
from reprogram.core.source import ImageTextSource, Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs.class_texts import named

ScorePooling = Literal["mean", "logits", "max"]


@final
class ClassScores(Output):
    """``y_t``: the scaled cosine of the picture to class t's text; of several texts, pooled.

    Args:
        texts: n class texts, which the source is asked to compare with.
        owner: the class of each, every class at least once; None for one text a class, in order.
        pooling: of a class's texts: "mean" compares with the mean of their vectors, at length one (the template
            ensemble of Radford et al. 2021, arXiv 2103.00020, section 3.1.4); "logits" is the mean of their scores;
            "max" the best of them.
        scale: factor of the source's cosines, `source.scale`; read by "mean" only.
        bias: added to them, `source.bias`; read by "mean" only.

    Raises:
        ConfigError: a class has no text.

    >>> output = ClassScores(("a", "b", "c"), (0, 0, 1), pooling="logits")
    >>> output(SourceOutput(scores=torch.tensor([[1.0, 3.0, 5.0]]))).tolist()
    [[2.0, 5.0]]
    """

    alignment = Alignment.RULE_BASED
    owner: Tensor

    def __init__(
        self,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        *,
        pooling: ScorePooling = "mean",
        scale: float = 1.0,
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        known = tuple(range(len(texts))) if owner is None else tuple(owner)
        self.targets = max(known, default=-1) + 1
        if len(known) != len(texts) or set(known) != set(range(self.targets)) or not known:
            raise ConfigError(say("owner", f"must name a class for each of {len(texts)} texts, none left out", known))
        self.texts = tuple(texts)
        self.pooling: ScorePooling = pooling
        self.scale, self.bias = scale, bias
        self._single = known == tuple(range(len(texts)))
        self.register_buffer("owner", torch.tensor(known), persistent=False)

    @property
    def reading(self) -> Reading:
        """The class texts."""
        return Reading(texts=self.texts)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        if self._single:
            return output.logits
        if self.pooling == "mean":
            return self._of_means(output)
        scores = output.logits
        if self.pooling == "max":
            empty = scores.new_full((len(scores), self.targets), -math.inf)
            return empty.scatter_reduce(1, self.owner.expand(len(scores), -1), scores, "amax")
        sums = scores.new_zeros(len(scores), self.targets).index_add(1, self.owner, scores)
        return sums / torch.bincount(self.owner, minlength=self.targets)

    def _of_means(self, output: SourceOutput) -> Tensor:
        pictures, texts = output.features, output.texts
        if pictures is None or texts is None:
            raise CapabilityError(say("source", "must give the vectors of pictures and class texts", "none"))
        shape = (*texts.shape[:-2], self.targets, texts.shape[-1])
        means = F.normalize(texts.new_zeros(shape).index_add(texts.ndim - 2, self.owner, texts), dim=-1)
        close = pictures @ means.T if means.ndim == 2 else torch.einsum("bd,btd->bt", pictures, means)
        return self.scale * close + self.bias

    def extra_repr(self) -> str:
        """Settings."""
        return f"texts={self.texts[:3]!r}…, targets={self.targets}, pooling={self.pooling!r}"


def texts_for(source: ImageTextSource, classes: Sequence[str], layouts: Sequence[str]) -> tuple[str, ...]:
    """Class texts: every class in every layout, the layouts of class 0 first.

    Args:
        source: whose tokenizer must tell the classes apart.
        classes: T names; underscores are read as spaces.
        layouts: texts with `{class}`, or `{a class}` for the name with its article.

    Raises:
        ConfigError: there is no layout, or one without a place for the name.
        DataError: a name is nothing to the tokenizer, or two classes are the same to it.
    """
    if not layouts:
        raise ConfigError(say("templates", "must be one or more", list(layouts)))
    check_names(source, classes)
    return tuple(named(layout, name) for name in classes for layout in layouts)


def template_scores(
    source: ImageTextSource, classes: Sequence[str], layouts: Sequence[str], pooling: ScorePooling = "mean"
) -> ClassScores:
    """Every class in every layout, read by `ClassScores`; see `texts_for` for what is raised."""
    texts = texts_for(source, classes, layouts)
    owner = [t for t in range(len(classes)) for _ in layouts]
    return ClassScores(texts, owner, pooling=pooling, scale=source.scale, bias=source.bias)


def check_names(source: ImageTextSource, classes: Sequence[str]) -> None:
    """See that the text tower can tell class names apart.

    Raises:
        DataError: a name is nothing to its tokenizer, or two are the same.
    """
    unknown = source.text.special.get("unk")
    seen: dict[tuple[int, ...], str] = {}
    for name in classes:
        ids = tuple(source.text.encode(named("{class}", name)))
        remedy = "Give the classes other names: rename the folders, or the column's values."
        if not any(i != unknown for i in ids):
            raise DataError(say(f"class {name!r}", "must have a name that the text tower has tokens for", name, remedy))
        if ids in seen:
            both = f"{seen[ids]!r} and {name!r}"
            raise DataError(say("class names", "must differ in the text tower's tokens", both, remedy))
        seen[ids] = name
