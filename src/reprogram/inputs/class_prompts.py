"""Words around the names of the classes: the part of I that acts on the context c and not on x."""

from collections.abc import Sequence
from typing import Any, final

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator


@final
class ClassPrompts(Edit):
    """``I(x, c) = (x, [words; c])``: the texts that stand for each class, made once; x stays as it is.

    The source reads them when the program is built, and the output holds what it made of them.

    Args:
        texts: (class, text) pairs.

    Raises:
        ConfigError: there are none.

    >>> edit = ClassPrompts([("dog", "a photo of a dog")])
    >>> edit("x"), edit.texts
    ('x', (('dog', 'a photo of a dog'),))
    """

    site = "input"
    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        if not texts:
            raise ConfigError(say("texts", "must be one or more for the classes", list(texts)))
        self.texts = tuple((name, text) for name, text in texts)

    def forward(self, value: Any) -> Any:
        """The same: these words are not about x."""
        return value

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"{len(self.texts)} texts for {len({name for name, _ in self.texts})} classes"
