"""Classes by the log-probability of their label words after the prompt."""

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.program import Output
from reprogram.core.source import Reading, SourceOutput
from reprogram.core.taxonomy import Alignment

Normalise = Literal["sum", "token", "char", "byte"]


@final
class Likelihood(Output):
    """``y_t = log sum_w p(w | prompt)`` over the words w of class t, each log p divided by the length of the word.

    Args:
        choices: for each class, the texts that stand for it, as they follow the prompt: with a leading space where
            there is one.
        normalise: "sum" divides by nothing; "token", "char" (without the leading space) and "byte" by the length in
            these (lm-evaluation-harness calls the last two `acc_norm` and `acc_bytes`).

    Raises:
        ConfigError: a class without texts, an empty text, or a text that stands for two classes.

    >>> read = Likelihood([[" good"], [" very bad", " bad"]], "token")
    >>> read.reading.choices
    (' good', ' very bad', ' bad')
    >>> said = SourceOutput(choices=torch.tensor([[-1.0, -4.0, -50.0]]), choice_tokens=torch.tensor([[1, 2, 1]]))
    >>> read(said).tolist()
    [[-1.0, -2.0]]
    """

    alignment = Alignment.RULE_BASED
    owner: Tensor
    lengths: Tensor

    def __init__(self, choices: Sequence[Sequence[str]], normalise: Normalise = "sum") -> None:
        super().__init__()
        flat = [text for several in choices for text in several]
        if len(choices) < 1 or not all(choices) or not all(text.strip() for text in flat):
            raise ConfigError(say("choices", "must be one or more texts for each class", [list(c) for c in choices]))
        twice = sorted({text for text in flat if flat.count(text) > 1})
        if twice:
            raise ConfigError(say("choices", "must each stand for one class, once", twice))
        if normalise not in ("sum", "token", "char", "byte"):
            raise ConfigError(say("normalise", "must be sum, token, char or byte", normalise))
        self.targets, self._flat = len(choices), tuple(flat)
        self.normalise: Normalise = normalise
        lengths = {"char": [len(t.strip()) for t in flat], "byte": [len(t.encode()) for t in flat]}
        self.register_buffer("lengths", torch.tensor(lengths.get(normalise, [1] * len(flat))), persistent=False)
        owner = torch.tensor([t for t, several in enumerate(choices) for _ in several])
        self.register_buffer("owner", owner, persistent=False)

    @property
    def reading(self) -> Reading:
        """All texts of all classes."""
        return Reading(choices=self._flat)

    def forward(self, output: SourceOutput) -> Float[Tensor, " batch target"]:
        """Scores of the classes.

        Raises:
            CapabilityError: the source gave no scores of these texts.
        """
        said = output.choices
        if said is None or said.shape[-1] != len(self._flat):
            got = None if said is None else list(said.shape)
            raise CapabilityError(say("output", f"must score {len(self._flat)} choices", got))
        lengths = self.lengths if self.normalise != "token" else output.choice_tokens
        if lengths is None:
            raise CapabilityError(say("output", "must count tokens to normalise by them", None))
        each = said / lengths.to(said)
        owner = self.owner.to(said.device)
        rows = [each[:, owner == t].logsumexp(-1) for t in range(self.targets)]
        return torch.stack(rows, -1).float()

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"{self._flat}, normalise={self.normalise!r}"
