"""Pictures against class texts with some of the unedited source mixed in, and the losses of Reprogrammer."""

from collections.abc import Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import no_autocast, precise, source_scores

Loss = Literal["contrastive", "cross_entropy"]


@final
class ResidualScores(Output):
    """``y_t = scale * <(1 - a) f(I(x)) + a f(x), (1 - a) g(I(c_t)) + a g(c_t)> + bias`` when predicting.

    f and g are the towers' vectors of length 1; what is mixed is not brought to length 1 again, as published. While
    training a is 0. The training loss is its own: see `contrastive_focal`, or the cross entropy over all classes.

    Args:
        texts: a text for each of T classes.
        residual: a (0.4 in the released code); 0 for none.
        scale: factor of the cosines, `source.scale`.
        bias: added to them, `source.bias`.
        loss: "contrastive" within the batch, or "cross_entropy".
        alpha: of the focal loss (0.8).
        gamma: of the focal loss (4).

    Raises:
        ConfigError: a number is out of range.
    """

    alignment = Alignment.RULE_BASED

    def __init__(  # noqa: PLR0913 - numbers of a formula
        self, texts: Sequence[str], *, residual: float = 0.4, scale: float = 1.0, bias: float = 0.0,
        loss: Loss = "contrastive", alpha: float = 0.8, gamma: float = 4.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 <= residual <= 1 or not 0 < alpha < float("inf") or not 0 <= gamma < float("inf"):
            got = f"residual {residual}, alpha {alpha}, gamma {gamma}"
            raise ConfigError(say("settings", "must be a residual in [0, 1], alpha above 0, gamma 0 or more", got))
        if loss not in ("contrastive", "cross_entropy"):
            raise ConfigError(say("loss", "must be contrastive or cross_entropy", loss))
        self.texts = tuple(texts)
        self.residual, self.scale, self.bias = residual, scale, bias
        self.kind: Loss = loss
        self.alpha, self.gamma = alpha, gamma

    @property
    def reading(self) -> Reading:
        """The class texts, and what the source says without edits if that is mixed in."""
        return Reading(texts=self.texts, plain=self.residual > 0)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes."""
        if self.training or not self.residual:
            return source_scores(output, len(self.texts))
        plain = output.plain
        pictures, texts = output.features, output.texts
        if pictures is None or texts is None or plain is None or plain.features is None or plain.texts is None:
            raise CapabilityError(say("source", "must give vectors, with edits and without", "none"))
        with no_autocast(pictures):
            seen = (1 - self.residual) * precise(pictures) + self.residual * precise(plain.features)
            said = (1 - self.residual) * precise(texts) + self.residual * precise(plain.texts)
            return self.scale * (seen @ said.T) + self.bias

    def loss(
        self, output: SourceOutput, scores: Float[Tensor, " batch target"], target: Integer[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """What training minimises."""
        if self.kind == "cross_entropy":
            return F.cross_entropy(scores, target)
        return contrastive_focal(scores, target, self.alpha, self.gamma)

    def extra_repr(self) -> str:
        """Settings."""
        return f"texts={self.texts[:3]!r}…, residual={self.residual}, loss={self.kind!r}"


def contrastive_focal(
    scores: Float[Tensor, " batch target"], target: Integer[Tensor, " batch"], alpha: float = 0.8, gamma: float = 4.0
) -> Float[Tensor, ""]:
    """Each picture finds its text among the batch's, each text its pictures; mean of ``-alpha (1 - p)^gamma log p``.

    With a class for each picture this is CLIP's symmetric loss with the focal loss (Lin et al. 2017, arXiv 1708.02002)
    in place of the cross entropy. Where a class comes twice, its text counts once among the texts, and p of a text is
    the chance of any of its pictures: none is a wrong answer.

    Args:
        scores: [B, T], pictures against class texts.
        target: [B].
        alpha: factor.
        gamma: how much less what is right already counts.

    >>> float(contrastive_focal(torch.zeros(2, 2), torch.tensor([0, 1]), 1.0, 0.0))  # log 2
    0.6931...
    >>> float(contrastive_focal(torch.zeros(2, 2), torch.tensor([1, 1]), 1.0, 0.0))
    0.0
    """
    there = torch.bincount(target, minlength=scores.shape[1]) > 0
    which = there.cumsum(0)[target] - 1
    close = precise(scores)[:, there]  # [B, U], the classes that are in the batch
    of_pictures = close.log_softmax(1).gather(1, which[:, None]).squeeze(1)
    mine = F.one_hot(which, close.shape[1]).bool()
    of_texts = close.log_softmax(0).masked_fill(~mine, -torch.inf).logsumexp(0)[which]
    both = torch.stack([of_pictures, of_texts]).clamp(max=0.0)
    return (-alpha * (1 - both.exp()) ** gamma * both).mean()
