"""Classes by the mean score of their attributes, kept close to written texts (ArGue; Tian et al. 2024)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs.class_scores import ClassScores

_AT_ONCE = 4096
"""Written texts to a step; of more, as many are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """What else than the labels the learned words are fitted to (arXiv 2311.16494, the released configuration).

    Attributes:
        text_weight: of the cross-entropy of written class texts among the learned ones; 0 for none.
        negative_weight: of the negative entropy of pictures among texts about the classes' backgrounds; 0 for none.
        noise: standard deviation of what is added to the written texts' vectors.
        noise_share: of the steps in which it is added.
    """

    text_weight: float = 5.0
    negative_weight: float = 3.0
    noise: float = 0.05
    noise_share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("text_weight", "negative_weight", "noise"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(say(name, "must be a finite number of 0 or more", getattr(self, name)))
        if not 0 <= self.noise_share <= 1:
            raise ConfigError(say("noise_share", "must be from 0 to 1", self.noise_share))


@final
class AttributeScores(Output):
    """``y_t``: the mean of the scaled cosines of the picture to class t's texts, one for each of its attributes.

    Three losses are added up. The cross-entropy of y. ``text_weight`` times that of the written texts' vectors h, each
    of which is to be closest to its own class's learned text ``[words][class]`` (as in LASP). ``negative_weight`` times
    the mean over classes and pictures of p log p, p what the pictures are among ``[words][background of class]``: its
    minimum is at uniform p, so that backgrounds say nothing.

    Args:
        texts: with attributes, at least one for each class; some may have fewer than others.
        owner: the class of each.
        plain: T class texts without attributes; empty where written texts do not count.
        negative: T texts about backgrounds; empty where they do not count.
        written: gives h, [templates, T, d], of length 1.
        scale: of the cosines, `source.scale`.
        guidance: weights.

    Raises:
        ConfigError: a class has no text, or there are not T others.

    >>> output = AttributeScores(("a", "b", "c"), (0, 0, 1))
    >>> output(SourceOutput(scores=torch.tensor([[1.0, 3.0, 5.0]]))).tolist()
    [[2.0, 5.0]]
    """

    alignment = Alignment.RULE_BASED

    def __init__(  # noqa: PLR0913 - three kinds of texts
        self, texts: Sequence[str], owner: Sequence[int], *, plain: Sequence[str] = (), negative: Sequence[str] = (),
        written: Callable[[], Tensor] | None = None, scale: float = 1.0, guidance: Guidance = Guidance(),
    ) -> None:  # fmt: skip
        super().__init__()
        self.pooled = ClassScores(texts, owner, pooling="logits")
        classes = self.pooled.targets
        if len(plain) not in (0, classes) or len(negative) not in (0, classes):
            got = (len(plain), len(negative))
            raise ConfigError(say("plain and negative", f"must be {classes} texts, one a class, or none", got))
        if plain and written is None:
            raise ConfigError(say("written", "must give the vectors that the plain texts are to agree with", None))
        self.plain, self.negative = tuple(plain), tuple(negative)
        self.scale, self.guidance = scale, guidance
        self._written = written

    @property
    def reading(self) -> Reading:
        """The texts with attributes; while learning also those that only the loss needs."""
        more = (*self.plain, *self.negative) if self.training else ()
        return Reading(texts=(*self.pooled.texts, *more))

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        return self.pooled(replace(output, scores=output.logits[:, : len(self.pooled.texts)]))

    def loss(
        self, output: SourceOutput, scores: Float[Tensor, " batch target"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """All three.

        Raises:
            CapabilityError: the source did not compare with all texts: the output is not in training mode.
        """
        own, need = len(self.pooled.texts), len(self.pooled.texts) + len(self.plain) + len(self.negative)
        if output.logits.shape[1] != need:
            raise CapabilityError(say("scores", f"must be of {need} texts to learn from", output.logits.shape[1]))
        found = F.cross_entropy(scores, target)
        if self.plain and output.texts is not None:
            found = found + self.guidance.text_weight * self.agreement(output.texts[own : own + len(self.plain)])
        if self.negative:
            found = found + self.guidance.negative_weight * certainty(output.logits[:, own + len(self.plain) :])
        return found

    def agreement(self, learned: Float[Tensor, " target d"]) -> Float[Tensor, ""]:
        """Cross-entropy of written texts among the learned ones, nats."""
        assert self._written is not None
        written = self._written().to(learned.device, learned.dtype)
        classes = torch.arange(written.shape[1], device=learned.device).expand(len(written), -1).flatten()
        rows = written.flatten(0, 1)
        if len(rows) > _AT_ONCE:
            some = torch.randperm(len(rows))[:_AT_ONCE].to(rows.device)
            rows, classes = rows[some], classes[some]
        if self.guidance.noise and float(torch.rand(())) < self.guidance.noise_share:
            rows = rows + self.guidance.noise * torch.randn_like(rows)
        return F.cross_entropy(self.scale * rows @ learned.T, classes)

    def extra_repr(self) -> str:
        """Settings."""
        return f"plain={len(self.plain)}, negative={len(self.negative)}, guidance={self.guidance}"


def certainty(scores: Float[Tensor, " batch target"]) -> Float[Tensor, ""]:
    """Mean over all numbers of p log p, p the softmax of each row: -log(T) / T where it is uniform, 0 where it is sure.

    >>> round(float(certainty(torch.zeros(2, 4))), 4), round(-float(certainty(torch.tensor([[99.0, 0.0]]))), 4)
    (-0.3466, 0.0)
    """
    logs = scores.float().log_softmax(1)
    return (logs.exp() * logs).mean()
