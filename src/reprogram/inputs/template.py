"""Templates: how the columns of a text task are joined to the prompt that the source reads. A way in, like `Place`."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, final

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.program import Edit
from reprogram.core.texts import MASK, SEP, SLOT, SLOTS, Texts
from reprogram.core.writing import PICTURE, SYSTEM

_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+")
_MARK = re.compile(f"[{MASK}{SEP}{SYSTEM}-{PICTURE}{chr(SLOT)}-{chr(SLOT + SLOTS - 1)}]")
_RESERVED = {"mask": MASK, "sep": SEP}
UNREADABLE = "\ufffd"
"""Takes the place of a character in the data that would otherwise be read as a mark of the template."""


@final
class Template(Edit):
    """Join the columns of every row to one prompt.

    Args:
        layout: text with placeholders. `{name}` is a column; `{mask}` the place of the answer (several, for answers
            of several parts); `{sep}` the source's separator; `{soft:N}` N places for soft tokens, numbered on from
            left to right; `{{` and `}}` are braces.
        columns: names the task has, to find mistakes before there are data; None to find them when data come.

    Raises:
        ConfigError: braces that do not match, an unknown column, a wrong number of soft tokens, no column at all.

    >>> template = Template("{text}{sep}It was{mask}.", ["text"])
    >>> batch = template(Texts({"text": ("a fine film", "dull")}))
    >>> batch.prompts[1] == "dull" + SEP + "It was" + MASK + "."
    True
    >>> batch.spans, template.answers, template.slots, template.lead
    ((((0, 11),), ((0, 4),)), 1, 0, 'It was')
    """

    site = "input"
    operators = frozenset()

    def __init__(self, layout: str, columns: Sequence[str] | None = None) -> None:
        super().__init__()
        self.layout = layout
        self._parts, self.slots = _parse(layout)
        used = [text for data, text in self._parts if data]
        if not used:
            raise ConfigError(say("template", "must name a column of the task, such as {text}", layout))
        for name in used:
            if columns is not None and name not in columns:
                raise ConfigError(_unknown(name, columns))
        self.answers = sum(text.count(MASK) for data, text in self._parts if not data)

    @property
    def lead(self) -> str:
        """The layout's own text right before the (first) answer; empty where a column is there."""
        fixed = "".join("\0" if data else text for data, text in self._parts)
        before = fixed.split(MASK, 1)[0]
        return re.split(f"\0|{_MARK.pattern}", before)[-1]

    def forward(self, value: Texts) -> Texts:
        """One column "prompt", the spans of what came from the data, and the targets as they were.

        Marks of the template that occur in the data become U+FFFD, so that no text can open places of its own.

        Raises:
            DataError: the batch is no batch of texts, or lacks a column.
        """
        _check(value)
        columns = {name: _column(value, name) for data, name in self._parts if data}
        rows = [self._render({name: texts[i] for name, texts in columns.items()}) for i in range(len(value))]
        prompts, spans = tuple(row[0] for row in rows), tuple(row[1] for row in rows)
        return Texts({"prompt": prompts}, value.targets, spans, value.pictures)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"{self.layout!r}"

    def _render(self, row: dict[str, str]) -> tuple[str, tuple[tuple[int, int], ...]]:
        prompt, spans = "", list[tuple[int, int]]()
        for data, text in self._parts:
            piece = row[text] if data else text
            if data:
                spans.append((len(prompt), len(prompt) + len(piece)))
            prompt += piece
        return prompt, tuple(spans)


def without_marks(text: str) -> str:
    """A text from the data with U+FFFD in place of every character that prompts give a meaning."""
    return _MARK.sub(UNREADABLE, text)


def default_layout(kind: str, columns: Sequence[str], *, generates: bool = False) -> str:
    r"""The layout of a task that has none of its own.

    Args:
        kind: of the source, see `TextSource`.
        columns: of the task.
        generates: texts are to be written, not classes chosen.

    Raises:
        ConfigError: a column's name cannot be written as a placeholder.

    >>> default_layout("causal", ["text"]), default_layout("masked", ["premise", "hypothesis"])
    ('{text}\nLabel:', '{premise}{sep}{hypothesis}{sep}It was{mask}.')
    >>> default_layout("encoder", ["a", "b"]), default_layout("causal", ["order"], generates=True)
    ('{a}{sep}{b}', '{order}\n')
    """
    for name in columns:
        if not name or name in _RESERVED or name.startswith("soft:") or any(brace in name for brace in "{}"):
            raise ConfigError(say("column", "must have a name that a template can hold", name, "Rename the column."))
    placeholders = [f"{{{name}}}" for name in columns]
    if kind == "causal":
        return "\n".join(placeholders) + ("\n" if generates else "\nLabel:")
    joined = "{sep}".join(placeholders)
    return f"{joined}{{sep}}It was{{mask}}." if kind == "masked" else joined


def woven_layout(kind: str, columns: Sequence[str], tokens: int) -> str:
    """Soft tokens around every column and around the answer, as evenly as can be, the first places getting the rest.

    After the answer of a causal model there is none, for it would not see them.

    Raises:
        ConfigError: a column's name cannot be written as a placeholder.

    >>> woven_layout("masked", ["text"], 8), woven_layout("causal", ["a", "b"], 7)
    ('{soft:3}{text}{soft:3}{mask}{soft:2}', '{soft:3}{a}{soft:2}{b}{soft:2}')
    """
    default_layout(kind, columns)
    items = [f"{{{name}}}" for name in columns] + (["{mask}", ""] if kind == "masked" else [""])
    each, rest = divmod(tokens, len(items))
    counts = [each + (place < rest) for place in range(len(items))]
    return "".join((f"{{soft:{n}}}" if n else "") + item for n, item in zip(counts, items, strict=True))


def _parse(layout: str) -> tuple[list[tuple[bool, str]], int]:
    """(from the data?, column or text) for each part, and the number of soft tokens."""
    parts: list[tuple[bool, str]] = []
    slots = 0
    if _MARK.search(layout):
        raise ConfigError(say("template", "must be free of private-use characters", layout, "Use {mask} and {sep}."))
    for found in _PIECE.finditer(layout):
        piece = found.group()
        if piece in ("{", "}"):
            remedy = "Write {{ and }} for braces that are to be read as such."
            raise ConfigError(say("template", f"has a brace without its other at character {found.start()}", layout,
                                  remedy))  # fmt: skip
        if piece[0] not in "{}" or piece in ("{{", "}}"):
            parts.append((False, piece[0] if piece[0] in "{}" else piece))
            continue
        name = piece[1:-1].strip()
        count = _soft(name)
        data = not count and name not in _RESERVED
        parts.append((data, name if data else _RESERVED.get(name) or _places(slots, count)))
        slots += count
    return parts, slots


def _soft(name: str) -> int:
    """N of "soft:N"; 0 for another placeholder."""
    head, colon, number = (word.strip() for word in name.partition(":"))
    if head != "soft" or not colon:
        return 0
    if not number.isdecimal() or not 1 <= int(number) <= SLOTS:
        raise ConfigError(say("soft", f"must be a number of soft tokens from 1 to {SLOTS}, as in {{soft:4}}", name))
    return int(number)


def _places(first: int, count: int) -> str:
    if first + count > SLOTS:
        raise ConfigError(say("soft", f"must be at most {SLOTS} soft tokens in all", first + count))
    return "".join(chr(SLOT + k) for k in range(first, first + count))


def _check(value: Any) -> None:
    if not isinstance(value, Texts):
        remedy = "Token ids go to a program that was built without a task."
        raise DataError(say("value", "must be texts, for a template to join", type(value).__name__, remedy))


def _column(value: Texts, name: str) -> list[str]:
    if name not in value.columns:
        raise DataError(_unknown(name, list(value.columns)))
    return [without_marks(text) for text in value.columns[name]]


def _unknown(name: str, columns: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, columns, 1)
    remedy = f"Did you mean {{{near[0]}}}?" if near else "Or write {mask}, {sep} or {soft:4}."
    return say("template", f"must name columns of the task, {list(columns)}", f"{{{name}}}", remedy)
