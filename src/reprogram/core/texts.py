"""A batch of texts, before and after a template made prompts of them. Holds no tokenizer: that is the source's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch

from reprogram.core.errors import DataError, say

MASK = "\ue000"
"""Where the answer goes: a masked language model's mask token, the next token of a causal one."""

SEP = "\ue001"
"""Between two texts: the source's separator token, or a line break where it has none."""

SLOT = 0xF0000
"""`chr(SLOT + k)` in a prompt reserves a place in the sequence for soft token k."""

SLOTS = 4096
"""At most so many soft tokens can have places of their own."""

Spans = tuple[tuple[int, int], ...]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """N rows of texts; a batch of a text task, as a tensor is one of an image task.

    Attributes:
        columns: each of N texts, in the task's order; one column "prompt" once a template has been applied.
        targets: N texts that the source is to write, for generation.
        spans: after a template, the (start, end) of the parts of each prompt that came from the data. Only these are
            shortened when a prompt is too long for the source.
        pictures: of each row, [channel, height, width] of uint8, in the order of their places in the prompt.

    >>> batch = Texts({"text": ("a", "b", "c")})
    >>> len(batch), batch[[2, 0]].columns["text"], batch.row(1)
    (3, ('c', 'a'), {'text': 'b'})
    """

    columns: Mapping[str, tuple[str, ...]]
    targets: tuple[str, ...] | None = None
    spans: tuple[Spans, ...] | None = None
    pictures: tuple[tuple[torch.Tensor, ...], ...] | None = None

    def __post_init__(self) -> None:
        sizes = {name: len(column) for name, column in self.columns.items()}
        for name, part in (("targets", self.targets), ("pictures", self.pictures)):
            if part is not None:
                sizes[name] = len(part)
        if not self.columns or len(set(sizes.values())) > 1:
            raise DataError(say("texts", "must have a column, and columns of one length", sizes))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: Sequence[int] | slice) -> "Texts":
        """The rows, in that order."""
        chosen = range(len(self))[rows] if isinstance(rows, slice) else rows
        return Texts(
            {name: tuple(column[i] for i in chosen) for name, column in self.columns.items()},
            None if self.targets is None else tuple(self.targets[i] for i in chosen),
            None if self.spans is None else tuple(self.spans[i] for i in chosen),
            None if self.pictures is None else tuple(self.pictures[i] for i in chosen),
        )

    def row(self, index: int) -> dict[str, str]:
        """One row, by column."""
        return {name: column[index] for name, column in self.columns.items()}

    @property
    def prompts(self) -> tuple[str, ...]:
        """The rendered prompts, or the texts themselves where there is one column and no template."""
        if len(self.columns) > 1:
            msg = say("template", "must join the columns of a task that has several", list(self.columns))
            raise DataError(msg)
        return next(iter(self.columns.values()))

    def to(self, device: torch.device | str) -> "Texts":
        """Itself: texts are nowhere."""
        return self


@final
@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """B sequences of token ids, padded on either side to S.

    Attributes:
        ids: [B, S], int64; anything where it is padding.
        mask: [B, S], True where there is a token.
        slots: [B, S], the number of the soft token that takes the place, -1 for the others; None without any.
        places: [B, M], indices into S at which the answers' scores are found; None for the source's own choice.
        targets: [B, S], the id that the scores at this token are to predict, -100 where none; None without targets.
        kinds: [B, S], token types of sources that tell two texts apart by them; None for all 0.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    slots: torch.Tensor | None = None
    places: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    kinds: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.dtype.is_floating_point or self.mask.shape != self.ids.shape:
            got = (tuple(self.ids.shape), str(self.ids.dtype), tuple(self.mask.shape))
            raise DataError(say("input_ids", "must be whole numbers [batch, tokens] with a mask of that shape", got))

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Tokens":
        """The same on a device."""
        parts = (self.ids, self.mask, self.slots, self.places, self.targets, self.kinds)
        return Tokens(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]


Batch = torch.Tensor | Texts | Tokens
"""What a split gives and a program takes: pictures [B, ...], texts, or token ids."""
