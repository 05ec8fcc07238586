"""Passages to be found by a question: from a folder of texts, a file of JSON lines, or given; ranked by BM25.

The ranking is that of `selection_bm25`, the one door to its library.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, final, runtime_checkable

from reprogram.core.errors import DataError, say
from reprogram.inputs.selection_bm25 import WordIndex, words

SUFFIXES = (".txt", ".md")
PASSAGE_WORDS = 200
"""Paragraphs of a file are joined to passages of up to so many words; a longer paragraph stays whole."""

ALIKE = 0.9
"""From this share of common word triples on, two texts are near duplicates (the authors' code: a fuzzy ratio of 90)."""

_HEADING = re.compile(r"^#{1,6}[ \t]+(?P<title>[^\n]+)", re.MULTILINE)


@final
@dataclass(frozen=True, slots=True)
class Passage:
    """A text to be found, with what it is about."""

    title: str
    text: str


@runtime_checkable
class Retriever(Protocol):
    """Finds passages."""

    def retrieve(self, query: str, k: int) -> list[Passage]:
        """The k that suit a query best, best first; fewer if fewer suit it at all."""
        ...

    def digest(self) -> str:
        """Differs where it may find other passages."""
        ...


@final
class Passages:
    """Passages ranked by the words they share with a query, in title and text.

    Args:
        passages: at least one.
        k1: see `WordIndex`.
        b: see `WordIndex`.

    Raises:
        DataError: there is none, or none has a word.
        MissingExtraError: the extra "retrieval" is not installed.
    """

    def __init__(self, passages: Sequence[Passage], *, k1: float = 1.5, b: float = 0.75) -> None:
        if not passages:
            raise DataError(say("passages", "must be one at least", 0))
        self.passages = tuple(passages)
        self._index = WordIndex([f"{one.title} {one.text}" for one in self.passages], k1=k1, b=b)
        self._settings = (k1, b)

    def retrieve(self, query: str, k: int) -> list[Passage]:
        """Passages that share a word with the query, the best k first; of equals the first given."""
        scores = cast("list[float]", self._index.scores(query).tolist())  # pyright: ignore[reportUnknownMemberType]
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return [self.passages[i] for i in order[:k] if scores[i] > 0]

    def digest(self) -> str:
        """Hash of the passages and settings."""
        rows = [(one.title, one.text) for one in self.passages]
        return hashlib.sha256(json.dumps([rows, self._settings]).encode()).hexdigest()


def read_passages(path: str | Path) -> list[Passage]:
    """The passages of a folder, with all folders in it, or of a file of JSON lines.

    In a folder, files .txt and .md are read in the order of their names; paragraphs are joined to passages of up to
    `PASSAGE_WORDS` words, and a passage is titled by the file's first heading, or else its name. A line of JSON is an
    object with a "text" and perhaps a "title".

    Raises:
        DataError: there is no such folder or file, a file is not UTF-8, a line is no such object, or there is no text.
    """
    place = Path(path)
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        found = [passage for file in files for passage in _of_file(file)]
    elif place.is_file():
        found = list(_of_lines(place))
    else:
        raise DataError(say("corpus", f"must be a folder of {SUFFIXES} files or a file of JSON lines", str(path)))
    if not found:
        raise DataError(say("corpus", "must hold texts", str(path)))
    return found


def near_duplicate(one: Passage, other: Passage) -> bool:
    """Whether titles and texts are the same but for a few words.

    >>> text = "the river rises in the hills and ends in the sea"
    >>> near_duplicate(Passage("River", text), Passage("river", text + ".")), near_duplicate(
    ...     Passage("River", text), Passage("River", "it has many fish"))
    (True, False)
    """
    return overlap(one.title, other.title) >= ALIKE and overlap(one.text, other.text) >= ALIKE


def overlap(one: str, other: str) -> float:
    """The share of word triples that two texts have in common, of those that either has; of words, in short texts."""
    first, second = words(one), words(other)
    n = min(3, len(first), len(second)) or 1
    mine, theirs = ({tuple(w[i : i + n]) for i in range(len(w) - n + 1)} for w in (first, second))
    return len(mine & theirs) / len(mine | theirs) if mine | theirs else 1.0


def _of_file(file: Path) -> Iterator[Passage]:
    text = _text(file)
    heading = _HEADING.search(text)
    title = heading["title"].strip() if heading else file.stem
    held: list[str] = []
    for paragraph in (part.strip() for part in re.split(r"\n[ \t]*\n", _HEADING.sub("", text))):
        size = sum(len(part.split()) for part in held) + len(paragraph.split())
        if held and size > PASSAGE_WORDS:
            yield Passage(title, "\n".join(held))
            held = []
        held += [paragraph] if paragraph else []
    if held:
        yield Passage(title, "\n".join(held))


def _of_lines(file: Path) -> Iterator[Passage]:
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise DataError(say(f"{file} line {number}", "must be JSON", line, "One object a line.")) from problem
        held = cast("dict[str, object]", row) if isinstance(row, dict) else {}
        text, title = held.get("text"), held.get("title", "")
        if not isinstance(text, str) or not isinstance(title, str) or not text.strip():
            raise DataError(say(f"{file} line {number}", 'must be an object with a "text", and texts alone', line))
        yield Passage(title, text)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(say(str(file), "must be a readable file of UTF-8", str(problem))) from problem
