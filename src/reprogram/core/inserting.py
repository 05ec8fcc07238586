"""What edits of a sequence tell the source: tokens that they add, keys and values that they put before attention.

An edit changes a value; these two also change how long the sequence is, and so positions, masks and pooling. The
source owns those. It reads the declarations below, runs what does not depend on the input once for the whole batch,
and answers at the input's own positions.
"""

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from reprogram.core.program import Edit

Where = Literal["start", "after_first", "end", "slots"]
"""Before the first token, after it (it is a class token or the like), after the last, or where a template says."""


@runtime_checkable
class Inserting(Protocol):
    """An edit at "embedding" that adds tokens of its own to every sequence."""

    where: Where

    @property
    def length(self) -> int:
        """The number n of tokens that are added."""
        ...

    def tokens(self) -> Tensor:
        """[n, d]; or [K, n, d] for K variants, with each of which every input is run (rows: input 0 with all, ...)."""
        ...


@runtime_checkable
class ByRow(Inserting, Protocol):
    """An `Inserting` edit whose tokens are [B, n, d], a row each for the B sequences: of class texts, one a class."""

    by_row: Literal[True]


@runtime_checkable
class Conditioned(Protocol):
    """An edit at the text side of a source of pictures and texts whose tokens depend on the picture."""

    where: Where

    def tokens_for(self, pictures: Tensor) -> Tensor:
        """[B, n, d] from the pictures' vectors [B, width]: every text is read once for each picture."""
        ...


@runtime_checkable
class Prefixing(Protocol):
    """An edit at "kv" (all L layers) or "kv.i" (one) that adds n keys and values before those of the sequence.

    Attributes:
        shift: where the sequence's own positions start: at n (True), at 0 (False), or at this number.
    """

    shift: bool | int

    @property
    def length(self) -> int:
        """The number n of tokens that the keys and values stand for."""
        ...

    def keys_values(self) -> Tensor:
        """[n, layers, 2, heads, head width], as attention sees them (after rotary positions, if any)."""
        ...


@runtime_checkable
class Weighted(Protocol):
    """A `Prefixing` edit whose keys count more or less than the sequence's own."""

    @property
    def log_weight(self) -> float:
        """Logarithm of the factor on the attention weights of its keys, before they are normalised."""
        ...


@runtime_checkable
class Continued(Protocol):
    """A `Prefixing` edit that stands for text which the sequence goes on from: no start token is put between."""

    continued: Literal[True]


@runtime_checkable
class Compacting(Protocol):
    """An edit that needs more numbers to learn than to be used: a network that makes a prompt, for example."""

    def compact(self) -> "Edit":
        """An edit that does exactly the same with fewer numbers."""
        ...
