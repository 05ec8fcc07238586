"""A learned verbalizer: class vectors in the place of label words' rows of the head (WARP, DART)."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import SourceOutput, TextSource
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment
from reprogram.outputs._scores import no_autocast, source_features
from reprogram.outputs.label_words import Words, tokenised_words


@final
class SoftVerbalizer(Output):
    """``y = W h + b``: h what the language model's head reads at the answer's place, W a learned vector a class.

    Args:
        start: [T, D], what W is at first: rows of the head, with which y starts as the label words' own scores.
        bias: learn b, which starts at 0.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite.

    >>> soft = SoftVerbalizer(torch.eye(2, 3))
    >>> soft(SourceOutput(features=torch.tensor([[4.0, 5.0, 6.0]]))).tolist()
    [[4.0, 5.0]]
    """

    alignment = Alignment.LINEAR
    reads_features = True

    def __init__(self, start: Float[Tensor, " target feature"], *, bias: bool = True) -> None:
        super().__init__()
        if start.ndim != 2 or not start.numel() or not bool(start.isfinite().all()):
            raise ConfigError(say("start", "must be finite vectors [classes, features]", list(start.shape)))
        self.targets, self.sources = start.shape
        self.weight = nn.Parameter(start.detach().float().clone())
        self.bias = nn.Parameter(torch.zeros(self.targets)) if bias else None

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes, in float32 at least, also under autocast."""
        value = source_features(output, self.sources)
        with no_autocast(value):
            bias = None if self.bias is None else self.bias.to(value.dtype)
            return F.linear(value, self.weight.to(value.dtype), bias)

    @torch.no_grad()
    def fold(self) -> Float[Tensor, " feature target"]:
        """[D, T]: ``W.T``."""
        return self.weight.T.clone()

    @torch.no_grad()
    def offset(self) -> Float[Tensor, " target"]:
        """[T], what is to be added to ``features @ fold()``: b."""
        return torch.zeros(self.targets, device=self.weight.device) if self.bias is None else self.bias.clone()

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"weight={tuple(self.weight.shape)}, bias={self.bias is not None}"


def soft_verbalizer(
    source: TextSource, task: TaskSpec, words: Words | None = None, *, after: str = "", bias: bool = True
) -> SoftVerbalizer:
    """Class vectors that start at the head's rows of the label words: the mean over a class's words and their tokens.

    Args:
        source: a language model with a table for a head.
        task: with classes.
        words: label words, see `label_words.words_of`; None for the class names.
        after: the text right before the answer, see `label_words.tokenised_words`.
        bias: learn a bias.

    Raises:
        CapabilityError: the source's scores are no products with a table.
        ConfigError: words that are missing, unknown, or the same for two classes.
    """
    found = tokenised_words(source, task, words, after=after)
    table = source.head_table
    if table is None:
        raise CapabilityError(
            say("source", "must score its vocabulary by a table", f"{source.spec.ref} ({source.kind})")
        )
    rows = [[table.detach()[list(word)].float().mean(0) for word in several] for several in found]
    return SoftVerbalizer(torch.stack([torch.stack(several).mean(0) for several in rows]).cpu(), bias=bias)
