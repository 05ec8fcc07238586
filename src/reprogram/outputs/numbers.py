r"""Numbers in texts that a model wrote: finding them, and the one spelling by which they are compared.

No pattern here takes more than time linear in the text: repetitions give nothing back, and lengths are limited.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import final

DIGITS = 60
"""A number with more digits, or an exponent beyond this, is none: nobody means it, and its spelling could be huge."""

_INTEGER = r"(?:[0-9]{1,3}+(?:,[0-9]{3})++(?![0-9])|[0-9]++)"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]}}%])[-+\u2212][$€£¥]?+|[$€£¥][-\u2212])?+
    (?<![A-Za-z_0-9])(?<![0-9][.])
    (?:
      \\[dt]?+frac\{{(?P<above>[0-9]++)\}}\{{(?P<below>[0-9]++)\}}
    | (?P<whole>[0-9]++)[ ](?P<part>[0-9]++)/(?P<of>[0-9]++)(?![0-9./])
    | (?P<number>{_INTEGER}(?:\.[0-9]++)?+|\.[0-9]++)
      (?:[eE](?P<exponent>[-+]?[0-9]++)(?![A-Za-z])
        |[ ]?+(?:[x×]|\\times)[ ]?+10\^\{{?+(?P<power>[-+\u2212]?[0-9]++)\}}?+)?
      (?:[ ]?+/[ ]?+(?P<divisor>[0-9]++(?:\.[0-9]++)?+)(?![0-9/]))?
    )
    """,
    re.VERBOSE,
)


@final
@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text.

    Attributes:
        start: place of its first character.
        end: place after its last.
        value: exactly; None of one that is too long or divides by 0.
    """

    start: int
    end: int
    value: Fraction | None


def numbers(text: str, start: int = 0, end: int | None = None) -> Iterator[Number]:
    r"""The numbers of a text, in order.

    Signs, thousands separators, decimals, fractions ("3/4", "1 1/2", "\frac{3}{4}"), scientific notation and currency
    signs are understood. Percent signs and units are left behind: 50 % is 50. A minus after a number, a letter or a
    closing bracket subtracts and is no sign. Digits within a word ("H2O") are no number; units may follow at once.

    >>> [str(n.value) for n in numbers("-$1,250.50 of 3e2 m, 5-3 = 2, 1 1/2, H2O, 50%")]
    ['-2501/2', '300', '5', '3', '2', '3/2', '50']
    """
    for found in _NUMBER.finditer(text, start, len(text) if end is None else end):
        yield Number(found.start(), found.end(), _value(found))


def last_number(text: str) -> Number | None:
    """The last of `numbers`, without working out the others."""
    found = next(iter(deque(_NUMBER.finditer(text), maxlen=1)), None)
    return None if found is None else Number(found.start(), found.end(), _value(found))


def canonical_number(value: Fraction) -> str:
    """The one spelling of a number: a plain decimal where it ends, else a fraction in lowest terms.

    >>> [canonical_number(Fraction(n)) for n in ("12.50", "-0", "1/3", "1e3", "-3/8")]
    ['12.5', '0', '1/3', '1000', '-0.375']
    """
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        places = max(places, count)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    plain = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{plain}" if value < 0 else plain


def read_number(text: str) -> Fraction | None:
    """The number that a text is, with nothing but space around it; None if it is none.

    >>> read_number(" 1,000 "), read_number("a 1")
    (Fraction(1000, 1), None)
    """
    bare = text.strip()
    found = next(numbers(bare), None)
    return found.value if found is not None and (found.start, found.end) == (0, len(bare)) else None


def _value(found: re.Match[str]) -> Fraction | None:
    part = found.groupdict()
    spelled = [part[name] for name in ("above", "below", "whole", "part", "of", "number", "divisor") if part[name]]
    power = (part["exponent"] or part["power"] or "0").replace("\u2212", "-")
    if max(map(len, spelled)) > DIGITS or len(power) > 4 or abs(int(power)) > DIGITS:
        return None
    sign = -1 if re.search("[-\u2212]", part["sign"] or "") else 1
    below = Fraction(part["below"] or part["of"] or part["divisor"] or "1")
    if not below:
        return None
    if part["whole"]:
        return sign * (Fraction(part["whole"]) + Fraction(part["part"]) / below)
    above = Fraction((part["above"] or part["number"]).replace(",", ""))
    return sign * above * Fraction(10) ** int(power) / below
