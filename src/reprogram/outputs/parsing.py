r"""Answers in texts that a model wrote: a row of rules, each of which may find none. No text is ever run.

A text is cut where the model went on to the next demonstration; then each marker ("#### 42", "\boxed{42}", a cue such
as "The answer is 42.", a line "A: 42", a field of JSON) is looked for; then, if that is allowed, the first or last
thing in the text that could be an answer. What is found is brought to one spelling, by which answers are compared and
counted; what cannot be found is a `Failure` with its reason, never an answer.

The markers and the order are those of the parsers in public use; "first after the cue, else last number" is that of
Kojima et al., "Large Language Models are Zero-Shot Reasoners", 2022, arXiv:2205.11916. A letter counts as a choice only
as a word of its own: there, any capital letter in any word does.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast, final

from reprogram.core.errors import ConfigError, say
from reprogram.core.task import TaskSpec
from reprogram.outputs.json_schema import canonical_json, fault, json_values, read_schema
from reprogram.outputs.numbers import Number, canonical_number, last_number, numbers, read_number

Kind = Literal["number", "choice", "yes_no", "text", "json"]
Marker = Literal["hash", "boxed", "json", "cue", "line"]
Fallback = Literal["last", "first", "run", "whole", "none"]

CUE = "The answer is"
"""Before the answer, in demonstrations of this library."""

DEMONSTRATION = ("\nQ:", "\nQuestion:", "\n\nQ:")
"""Where a next demonstration would begin."""

LONGEST = 100_000
"""Characters; a longer text is not read."""

LONGEST_ANSWER = 1_000
"""Characters; longer answers are none."""

_YES_NO = re.compile(r"(?<!\w)(yes|no)(?!\w)", re.IGNORECASE)
_RUN = re.compile(r"-?[$0-9.,]{2,}+|-?[0-9]")
_BRACE = re.compile(r"\\boxed\{|\\[{}]|[{}]")
_HASH = re.compile(r"####[ \t]*+([^\n]*+)")
_LINE = re.compile(r"^A:[ \t]*+([^\n]*+)", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])[ \t]++(?=[A-Z\"'(])")
_SHORT = re.compile(r"(?:^|[\s(])(?:[A-Z]\.|[A-Z][a-z]\.|(?:[A-Za-z]\.){2,5})$")
_QUOTES = " \t\r\n\"'`*_.,;:!?“”‘’"


@final
@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer that was found.

    Attributes:
        value: in its one spelling; of a choice, the class.
        span: (start, end) of it in the text; in the object it is a field of, for JSON.
        rule: which found it.
    """

    value: str
    span: tuple[int, int]
    rule: str


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """No answer was found; why, in words."""

    reason: str


_Found = tuple[int, int, str]
_Stretches = Iterator[tuple[int, int]]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    r"""How to find an answer in a text.

    Attributes:
        kind: "number"; "choice" among `choices`; "yes_no"; "text" to the end of a line or sentence; "json", the whole
            value.
        markers: looked for in this order. "hash" is "####", "boxed" is "\boxed{}", "cue" one of `cues`, "line" a line
            that begins with "A:", "json" the `field` of a JSON object.
        cues: in any case of letters.
        take: the first or the last of several markers of one kind. What recites its demonstrations wants the last.
        fallback: where there is no marker: the "first" or "last" thing that could be an answer, the last "run" of
            digits, dollar signs, commas and points (as some harnesses read numbers), the "whole" text, or "none".
        cut: text from here on belongs to the next demonstration.
        choices: (spelling, class) pairs, for "choice"; a spelling may be a letter.
        schema: JSON schema, for "json"; see `outputs.json_schema` for what is known of it.
        field: of a JSON object, for the marker "json".

    Raises:
        ConfigError: settings that do not go together, or a schema that is none.

    >>> parse = Parser(kind="number").parse
    >>> parse("3 and 4 make 7. The answer is 7.\nQ: What is 1 + 1?")
    Parsed(value='7', span=(30, 31), rule='cue')
    >>> parse("I do not know.")
    Failure(reason='no number was found')
    """

    kind: Kind
    markers: tuple[Marker, ...] = ("hash", "boxed", "cue")
    cues: tuple[str, ...] = (CUE, "answer is", "final answer:")
    take: Literal["first", "last"] = "first"
    fallback: Fallback = "last"
    cut: tuple[str, ...] = DEMONSTRATION
    choices: tuple[tuple[str, str], ...] = ()
    schema: str = ""
    field: str = ""

    def __post_init__(self) -> None:
        if (self.kind == "choice") != bool(self.choices):
            raise ConfigError(say("choices", "must be given for answers that are choices, only there", self.choices))
        if ("json" in self.markers) != bool(self.field):
            raise ConfigError(say("field", 'must be given with the marker "json", and only there', self.field))
        if self.fallback == "run" and self.kind != "number":
            raise ConfigError(say("fallback", 'may be "run" for numbers alone', self.kind))
        if "cue" in self.markers and not all(cue.strip() for cue in self.cues):
            raise ConfigError(say("cues", "must be texts that are not empty", self.cues))
        if self.schema:
            read_schema(self.schema)

    def parse(self, text: str) -> Parsed | Failure:
        """The answer in a text, or why there is none."""
        if len(text) > LONGEST:
            return Failure(f"the text has {len(text)} characters, more than {LONGEST}")
        text = cut_run_on(text, self.cut)
        if self.kind == "json":
            return self._json(text)
        for marker in self.markers:
            found = self._marked(text, marker)
            if found is not None:
                return found
        return self._unmarked(text)

    def canonical(self, target: str) -> str:
        r"""The spelling of a target of the task, by which an answer is compared with it.

        A target may hold its rationale, with the answer behind a marker.

        >>> Parser(kind="number").canonical("48 / 2 = 24\n#### 1,024"), Parser(kind="text").canonical("Paris.")
        ('1024', 'paris')
        """
        if self.kind == "choice":
            return target
        if self.kind == "json":
            found = self._json(target)
        else:
            marked = (self._marked(target, marker) for marker in ("hash", "boxed", "cue", "line"))
            found = next((one for one in marked if one is not None), None) or self._unmarked(target, whole=True)
        return found.value if isinstance(found, Parsed) else canonical_text(target)

    def _marked(self, text: str, marker: Marker) -> Parsed | Failure | None:
        if marker == "json":
            return self._field(text)
        stretches = list(self._stretches(text, marker))
        for start, end in stretches if self.take == "first" else reversed(stretches):
            found = next(_read(self, text, start, end, marked=True), None)
            if found is not None:
                return _answer(found, marker)
        return None

    def _stretches(self, text: str, marker: Marker) -> _Stretches:
        if marker == "boxed":
            return _boxes(text)
        if marker == "cue":
            return _cued(text, self.cues, sentence=self.kind == "text")
        return (found.span(1) for found in (_HASH if marker == "hash" else _LINE).finditer(text))

    def _field(self, text: str) -> Parsed | Failure | None:
        for start, end, value in json_values(text, last=self.take == "last"):
            if isinstance(value, dict) and self.field in value:
                held = cast("dict[str, object]", value)[self.field]
                shown = held if isinstance(held, str) else canonical_json(held)
                found = next(_read(self, shown, 0, len(shown), marked=True), None)
                if found is not None:
                    return _answer((start, end, found[2]), "json")
        return None

    def _unmarked(self, text: str, *, whole: bool = False) -> Parsed | Failure:
        fallback = "whole" if whole and self.kind == "text" else self.fallback
        missing = Failure(f"no {'yes or no' if self.kind == 'yes_no' else self.kind} was found")
        if fallback == "none" and not whole:
            return Failure(f"none of the markers {list(self.markers)} was found with a {self.kind}")
        if fallback == "run":
            return _last_run(text) or missing
        if self.kind == "text" and fallback != "whole":
            lines = [found.span() for found in re.finditer(r"[^\n]++", text) if found.group().strip(_QUOTES)]
            spans = [lines[0 if fallback == "first" else -1]] if lines else []
            found = next((one for span in spans for one in _read(self, text, *span)), None)
        elif self.kind == "number" and fallback != "first":
            last = last_number(text)
            found = None if last is None else _spelled(last)
        else:
            found = _pick(_read(self, text, 0, len(text)), last=fallback != "first")
        return missing if found is None else _answer(found, fallback)

    def _json(self, text: str) -> Parsed | Failure:
        schema: Mapping[str, Any] = read_schema(self.schema) if self.schema else {}
        reason = "no JSON was found"
        for start, end, value in json_values(text, last=self.take == "last"):
            try:
                spelled = canonical_json(value)
            except (ValueError, RecursionError):
                reason = "a number of the JSON is out of range"
                continue
            reason = fault(value, schema)
            if not reason:
                return Parsed(spelled, (start, end), "json")
        return Failure(reason)


def parser_for(task: TaskSpec, kind: Kind | None = None, **settings: object) -> Parser:
    """The parser that fits a task: choices where it has classes, else what the demonstrations' answers are.

    The classes of a task are answered by their names or, if they are no letters themselves, by "A", "B" and so on in
    their order, which is how `inputs.reasoning.question_layout` offers them.

    Args:
        task: classes, or texts to be written.
        kind: of the answers of a task without classes; None for numbers if all demonstrations' answers are (or there
            are none), else texts.
        settings: of `Parser`.

    Raises:
        ConfigError: a kind for a task with classes, choices for one without, or settings that do not go together.
    """
    if task.generates:
        if kind is None:
            kind = "number" if all(_is_number(example.answer) for example in task.context) else "text"
        return Parser(kind=kind, **settings)  # pyright: ignore[reportArgumentType]  # checked by `Parser`
    if kind not in (None, "choice"):
        raise ConfigError(say("answer", "must be left out for a task with classes", kind))
    return Parser(kind="choice", choices=choices_of(task.classes), **settings)  # pyright: ignore[reportArgumentType]


def choices_of(classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(spelling, class) for class names, and for the letters they are offered under.

    >>> choices_of(["bad", "good"]), choices_of(["A", "B"])
    ((('bad', 'bad'), ('good', 'good'), ('A', 'bad'), ('B', 'good')), (('A', 'A'), ('B', 'B')))
    """
    own = tuple((name, name) for name in classes)
    lettered = all(len(name) == 1 and "A" <= name <= "Z" for name in classes)
    return own if lettered or len(classes) > 26 else own + tuple((chr(65 + i), name) for i, name in enumerate(classes))


def cut_run_on(text: str, marks: Sequence[str]) -> str:
    r"""The text up to where the next demonstration begins.

    >>> cut_run_on("It is 4.\nQ: And 3 + 3?\nA: It is 6.", ["\nQ:"])
    'It is 4.'
    """
    return text[: min((at for mark in marks if (at := text.find(mark)) >= 0), default=len(text))]


def canonical_text(text: str) -> str:
    """The one spelling of a text: lower case, single spaces, no quotes or stops around it.

    >>> canonical_text(' "New  York". ')
    'new york'
    """
    return " ".join(text.strip(_QUOTES).split()).casefold()


# -- where an answer may be --------------------------------------------------------------------------------------------


def _boxes(text: str) -> _Stretches:
    r"""What is in \boxed{...}, up to the brace that closes it; inner boxes come before outer ones."""
    open_at: list[int] = []
    for found in _BRACE.finditer(text):
        if found.group() == "}" and open_at:
            start = open_at.pop()
            if start >= 0:
                yield start, found.start()
        elif found.group() in ("{", "\\boxed{"):
            open_at.append(found.end() if len(found.group()) > 1 else -1)


def _cued(text: str, cues: Sequence[str], *, sentence: bool) -> _Stretches:
    """From the first kind of cue that occurs to the end of the line, or of the sentence."""
    for cue in cues:
        found = list(re.finditer(re.escape(cue) + r"[\s:=]*+", text, re.IGNORECASE))
        for one in found:
            most = min(len(text), one.end() + LONGEST_ANSWER)
            end = text.find("\n", one.end(), most)
            end = most if end < 0 else end
            yield one.end(), _sentence_end(text, one.end(), end) if sentence else end
        if found:
            return


def _sentence_end(text: str, start: int, end: int) -> int:
    """Where the sentence that begins at `start` ends; a stop after an abbreviation or initial does not end it."""
    for found in _SENTENCE.finditer(text, start, end):
        if not _SHORT.search(text[max(start, found.start() - 12) : found.start()]):
            return found.start()
    return end


# -- what is an answer -------------------------------------------------------------------------------------------------


def _read(parser: Parser, text: str, start: int, end: int, *, marked: bool = False) -> Iterator[_Found]:
    """What could be an answer of the kind within a stretch, in order."""
    if parser.kind == "number":
        yield from _numbers(text, start, end)
    elif parser.kind == "choice":
        yield from _choices(parser.choices, text, start, end, marked)
    elif parser.kind == "yes_no":
        yield from ((*found.span(), found.group().lower()) for found in _YES_NO.finditer(text, start, end))
    else:
        value = canonical_text(text[start:end])
        if value and len(value) <= LONGEST_ANSWER:
            yield start, end, value


def _numbers(text: str, start: int, end: int) -> Iterator[_Found]:
    """A number that cannot be read is found, too, with no value: another one in its place would be a wrong answer."""
    return map(_spelled, numbers(text, start, end))


def _spelled(one: Number) -> _Found:
    return one.start, one.end, "" if one.value is None else canonical_number(one.value)


def _choices(choices: tuple[tuple[str, str], ...], text: str, start: int, end: int, marked: bool) -> Iterator[_Found]:
    """Letters and names that stand alone. Right after a marker a letter needs no more than that."""
    pattern, classes = _choice_pattern(choices)
    if marked:
        found = pattern["start"].match(text, start, end)
        if found:
            yield *found.span("letter"), classes[found["letter"].upper()]
            return
    for found in pattern["anywhere"].finditer(text, start, end):
        group = found.lastgroup or ""
        word = found[group]
        yield *found.span(group), classes[word.casefold() if group == "name" else word.upper()]


@lru_cache(maxsize=64)
def _choice_pattern(choices: tuple[tuple[str, str], ...]) -> tuple[Mapping[str, re.Pattern[str]], Mapping[str, str]]:
    """Patterns of the choices, and the class of every spelling (names in folded case, letters in capitals)."""
    letters = {word: name for word, name in choices if len(word) == 1 and "A" <= word <= "Z"}
    names = {word.casefold(): name for word, name in choices if word not in letters}
    either = "|".join(sorted(letters)) or "(?!)"
    rest = "|".join(sorted(set(letters) - {"A", "I"})) or "(?!)"
    words = "|".join(sorted(set(letters) & {"A", "I"})) or "(?!)"  # which are words, too
    longest = sorted((word for word, _ in choices if word not in letters), key=len, reverse=True)
    spelled = "|".join(re.escape(word) for word in longest) or "(?!)"
    patterns = {
        "start": re.compile(
            rf"[\s\"'*\[{{]*+(?:(?i:option|choice|letter)\s++)?\(?(?P<letter>(?:{either})(?![\w'’-])|"
            rf"(?i:{either})(?=\)))"
        ),
        "anywhere": re.compile(
            rf"\((?P<bracketed>(?i:{either}))\)"
            rf"|(?<![\w'’-])(?P<ended>{either})(?=[).:](?:\s|$))"
            rf"|(?<![\w'’-])(?P<letter>(?:{rest})(?![\w'’-])|(?:{words})(?![\w'’-])(?!\s++[a-z]))"
            rf"|(?<!\w)(?P<name>(?i:{spelled}))(?!\w)"
        ),
    }
    return patterns, letters | names


def _last_run(text: str) -> Parsed | None:
    runs = [found for found in _RUN.finditer(text) if any("0" <= letter <= "9" for letter in found.group())]
    if not runs:
        return None
    bare = re.sub(r"[$,]", "", runs[-1].group()).rstrip(".")
    value = next((one.value for one in numbers(bare)), None)
    return None if value is None else Parsed(canonical_number(value), runs[-1].span(), "run")


def _answer(found: _Found, rule: str) -> Parsed | Failure:
    return Parsed(found[2], found[:2], rule) if found[2] else Failure("the number is too long, or divides by 0")


def _pick(found: Iterator[_Found], *, last: bool) -> _Found | None:
    if not last:
        return next(found, None)
    return next(iter(deque(found, maxlen=1)), None)


def _is_number(answer: str) -> bool:
    """Whether a demonstration's answer, or what it says after its marker, is a number and nothing else."""
    found = Parser(kind="text", fallback="whole").parse(answer)
    return isinstance(found, Parsed) and read_number(found.value) is not None
