"""Arithmetic in texts that a model wrote, worked out without ever running them.

A tokenizer and a descent over + - * / ** and brackets, in exact fractions, with limits on length, depth and size. The
pass that recomputes a chain's equations and carries corrected results forward is the external calculator of Wei et al.,
"Chain-of-Thought Prompting Elicits Reasoning in Large Language Models", 2022, arXiv:2201.11903 (section 3).
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import final

from reprogram.core.errors import DataError, say
from reprogram.outputs.numbers import canonical_number, read_number

LONGEST = 200
"""Characters of an expression."""

DEEPEST = 32
"""Brackets, signs and powers within one another."""

BITS = 4096
"""Of a numerator or denominator."""

EXPONENT = 64
"""The highest power."""

_INTEGER = r"(?:[0-9]{1,3}+(?:,[0-9]{3})++(?![0-9])|[0-9]++)"
_TOKEN = re.compile(rf"\s*+(?:(?P<number>{_INTEGER}(?:\.[0-9]++)?+|\.[0-9]++)"
                    r"|(?P<mark>\*\*|[-+*/()%^×÷\u2212\u2013·]|x(?=\s*+[0-9(.])))")  # fmt: skip
_AFTER = re.compile(r"[ ]{0,3}[$€£]?(?=[-\u2212]?[0-9])")
_PLAIN = re.compile(r"(?:(?<![\w)\]}%])[-\u2212])?(?<![\w.])" + _INTEGER + r"(?:\.[0-9]++)?+")
_BEFORE = re.compile(r"(?:[.,]?[ $])*+")
_MORE = re.compile(r"[ ]*+(?:[-+*/×÷^%(\u2212\u2013·]|x[ ]*+[0-9])|[ ]?+[0-9]|[A-Za-z]|:[0-9]")
_SAME = {"×": "*", "·": "*", "x": "*", "÷": "/", "\u2212": "-", "\u2013": "-", "^": "**"}
_REACH = frozenset("0123456789.,+-*/()%^×÷\u2212\u2013·x$ ")
_OPERATORS = frozenset("+-*/^×÷\u2212\u2013·x")
_INSIDE = _OPERATORS | frozenset("0123456789)%")
_BOUND = re.compile(r"(?:\w|\b(?:of|times|plus|minus|by|half|twice|less|over)[ ]++)\Z")


def evaluate(text: str) -> Fraction:
    """What an expression comes to, exactly.

    Numbers may have thousands separators; "%" after one divides it by 100; "×", "·" and "x" multiply, "÷" divides and
    "^" is "**", which binds to the right and, as in Python, more than a sign on its left.

    Raises:
        DataError: it is no expression, divides by 0, or is beyond the limits of this module.

    >>> evaluate("2 + 3 * (4 - 1) ** 2"), evaluate("-2 ** 2"), evaluate("1,200 x 5%")
    (Fraction(29, 1), Fraction(-4, 1), Fraction(60, 1))
    """
    if len(text) > LONGEST:
        raise _fault(f"must have at most {LONGEST} characters", text)
    return _Descent(text).whole()


def recomputed(text: str) -> str:
    """A chain of thought with its equations worked out anew; a corrected result replaces the wrong one from there on.

    An equation is an expression of numbers, "=" and a number. A result that is right to the decimals it shows is left;
    so are equations with units or words in them. Of the 8,792 solutions of GSM8K it changes about 30, some of which are
    wrong; the others change the unit ("$1 / 2 = 50 cents").

    >>> recomputed("He has 3 * 14 = 52 eggs. 52 - 2 = 50. The answer is 50.")
    'He has 3 * 14 = 42 eggs. 42 - 2 = 40. The answer is 40.'
    """
    made: list[str] = []
    changes: dict[str, str] = {}
    at, tail = 0, ""
    while (sign := text.find("=", at)) >= 0:
        made.append(_replaced(text[at:sign], changes))
        tail = (tail + made[-1])[-LONGEST:]
        at = sign + 1
        result = _result(text, at)
        if result is not None:
            start, end = result
            shown = _replaced(text[start:end], changes)
            value = _left_side(tail)
            if value is not None and not _agrees(value, shown):
                changes[shown] = changes[text[start:end]] = shown = _spelled(value, shown)
            made.append(f"={text[at:start]}{shown}")
            at = end
        else:
            made.append("=")
        tail += made[-1]
    return "".join(made) + _replaced(text[at:], changes)


@final
class _Descent:
    """One expression under way: expression, term, signed, power, atom, as in any book."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.at = 0
        self.depth = 0

    def whole(self) -> Fraction:
        value = self.sum()
        if self.at < len(self.tokens):
            raise _fault("must be one expression of numbers, + - * / ** and brackets", self.text)
        return value

    def sum(self) -> Fraction:
        value = self.product()
        while self.sees("+", "-"):
            sign = 1 if self.next() == "+" else -1
            value = self.checked(value + sign * self.product())
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while self.sees("*", "/"):
            if self.next() == "*":
                value = self.checked(value * self.signed())
                continue
            below = self.signed()
            if not below:
                raise _fault("must not divide by 0", self.text)
            value = self.checked(value / below)
        return value

    def signed(self) -> Fraction:
        if not self.sees("+", "-"):
            return self.power()
        self.deeper(1)
        sign = 1 if self.next() == "+" else -1
        value = sign * self.signed()
        self.deeper(-1)
        return value

    def power(self) -> Fraction:
        base = self.atom()
        while self.sees("%"):
            self.next()
            base /= 100
        if not self.sees("**"):
            return base
        self.next()
        self.deeper(1)
        exponent = self.signed()
        self.deeper(-1)
        if exponent.denominator != 1 or abs(exponent) > EXPONENT or (not base and exponent < 0):
            raise _fault(f"must have whole powers up to {EXPONENT}, and none below 0 of 0", self.text)
        if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) > BITS:
            raise _fault(f"must have results of at most {BITS} bits", self.text)
        return base**exponent.numerator

    def atom(self) -> Fraction:
        token = self.next()
        if token == "(":
            self.deeper(1)
            value = self.sum()
            self.deeper(-1)
            if self.next() != ")":
                raise _fault("must close its brackets", self.text)
            return value
        if not token[:1].isdigit() and not token.startswith("."):
            raise _fault("must have a number or a bracket after each sign", self.text)
        return Fraction(token)

    def sees(self, *marks: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] in marks

    def next(self) -> str:
        if self.at == len(self.tokens):
            raise _fault("must not end before it is complete", self.text)
        self.at += 1
        return self.tokens[self.at - 1]

    def deeper(self, by: int) -> None:
        self.depth += by
        if self.depth > DEEPEST:
            raise _fault(f"must have at most {DEEPEST} brackets, signs and powers within one another", self.text)

    def checked(self, value: Fraction) -> Fraction:
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
            raise _fault(f"must have results of at most {BITS} bits", self.text)
        return value


def _tokens(text: str) -> Iterator[str]:
    at, bare = 0, text.rstrip()
    while at < len(bare):
        found = _TOKEN.match(bare, at)
        if found is None:
            raise _fault(f"must have only numbers, + - * / ** % and brackets, and not {bare[at:].strip()[:1]!r}", text)
        mark = found["mark"]
        yield found["number"].replace(",", "") if mark is None else _SAME.get(mark, mark)
        at = found.end()


def _fault(requirement: str, text: str) -> DataError:
    return DataError(say("expression", requirement, text))


# -- equations in a text -----------------------------------------------------------------------------------------------


def _left_side(text: str) -> Fraction | None:
    """What the expression that a text ends with comes to; None if it ends with none."""
    start = len(text)
    while start > max(0, len(text) - LONGEST) and text[start - 1] in _REACH:
        start -= 1
    reach = text[start:].replace("$", " ")
    within = start + len(_BEFORE.match(reach).group())  # type: ignore[union-attr]  # it matches anything
    if _BOUND.search(text, max(0, start - 20), within) or text[within : within + 1] in _OPERATORS:
        return None  # the expression began before, with words or units in it
    before = ""
    for place, letter in enumerate(reach):
        begins = (
            letter in "0123456789(." and before not in _INSIDE and reach[max(0, place - 1) : place] not in (".", ",")
        )
        if begins and _OPERATORS & set(reach[place:]):
            try:
                return evaluate(reach[place:])
            except DataError:
                pass
        before = letter.strip() or before
    return None


def _result(text: str, start: int) -> tuple[int, int] | None:
    """(start, end) of the number right after the "=" before `start`."""
    found = _AFTER.match(text, start)
    number = None if found is None else _PLAIN.match(text, found.end())
    if number is None or _MORE.match(text, number.end()) or read_number(number.group()) is None:
        return None
    return number.span()


def _agrees(value: Fraction, shown: str) -> bool:
    """Whether a number is the value to the decimals that it shows, rounded or cut off."""
    said = read_number(shown)
    places = len(shown.partition(".")[2])
    return said is not None and abs(said - value) * 10**places < 1 and (places > 0 or said == value)


def _spelled(value: Fraction, like: str) -> str:
    """As a plain decimal; where that has no end, rounded to as many places as the number it replaces, two at least."""
    plain = canonical_number(value)
    if "/" not in plain:
        return plain
    places = max(2, len(like.partition(".")[2]))
    return canonical_number(Fraction(round(value * 10**places), 10**places))


def _replaced(text: str, changes: dict[str, str]) -> str:
    """Numbers that were corrected before, wherever they stand alone."""
    return _PLAIN.sub(lambda found: changes.get(found.group(), found.group()), text) if changes else text
