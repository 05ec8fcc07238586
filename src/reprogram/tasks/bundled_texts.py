"""Small text tasks that come with this library, for demos and tests. All of their sentences were written for it.

    bundled/feedback      what people write to shops and offices; 3 classes:      train 72, val 18, test 30
    bundled/json-orders   an order, to be written as compact JSON; generation:    train 60, val 10, test 20

The splits stay the same whatever options are given, and no sentence is in two of them.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reprogram.core.errors import ConfigError, say
from reprogram.tasks.assemble import Built
from reprogram.tasks.options import Options
from reprogram.tasks.rows import open_table
from reprogram.tasks.texts import Entry, TextListing, build_texts

_FEEDBACK = Path(__file__).parent / "data" / "feedback.jsonl"

_ITEMS = {
    "tea": "teas",
    "coffee": "coffees",
    "bagel": "bagels",
    "muffin": "muffins",
    "lemonade": "lemonades",
    "sandwich": "sandwiches",
    "waffle": "waffles",
    "salad": "salads",
    "soup": "soups",
    "cookie": "cookies",
}
_COUNTS = ("one", "two", "three", "four", "five")
_ORDERS = (
    "Could I get {}, please?",
    "I'd like {}.",
    "We'll have {} to take away.",
    "Can you bring {} to table nine?",
    "Please add {} to my order.",
    "Just {} for me today, thanks.",
    "My sister will take {}, and I only want some water.",
    "Put {} on the bill of room twelve.",
    "I changed my mind: make that {}.",
    "Is there still time to order {}?",
)
_SIZES = {"train": 60, "val": 10, "test": 20}


@dataclass(frozen=True, slots=True)
class BundledTexts:
    """A text task of ours.

    Attributes:
        summary: one line for people.
        entries: reads or makes the rows, each with its split.
        generates: answers are texts to be written.
    """

    summary: str
    entries: Callable[[], Iterator[Entry]]
    generates: bool


def orders() -> Iterator[tuple[str, str]]:
    """The order sentences and what is to be written, in an order that nothing but the sentences decides.

    >>> next(orders())
    ('Just four sandwiches for me today, thanks.', '{"item":"sandwich","count":4}')
    """
    found = {
        order.format(f"{word} {item if count == 1 else many}"): json.dumps(
            {"item": item, "count": count}, separators=(",", ":")
        )
        for order, (count, word), (item, many) in itertools.product(_ORDERS, enumerate(_COUNTS, 1), _ITEMS.items())
    }
    yield from sorted(found.items(), key=lambda pair: hashlib.sha256(pair[0].encode()).digest())


def _feedback() -> Iterator[Entry]:
    for row in open_table(_FEEDBACK).rows(()):
        split = str(row.cells["split"])
        where = f"{_FEEDBACK.name} line {row.line}"
        yield Entry(f"{split}/{row.line}", where, (row.cells["text"],), row.cells["label"], split)


def _json_orders() -> Iterator[Entry]:
    splits = itertools.chain.from_iterable([split] * count for split, count in _SIZES.items())
    for number, (split, (text, target)) in enumerate(zip(splits, orders(), strict=False)):
        yield Entry(f"{split}/{number}", f"order {number}", (text,), target, split)


BUNDLED_TEXTS = {
    "bundled/feedback": BundledTexts(
        "what people write to shops and offices, 120 sentences: complaint, praise or question", _feedback, False
    ),
    "bundled/json-orders": BundledTexts(
        '90 orders such as "I\'d like two teas.", to be written as compact JSON (generation)', _json_orders, True
    ),
}


def build_bundled_texts(ref: str, options: Options) -> Built:
    """One of `BUNDLED_TEXTS`, whose splits are fixed.

    Raises:
        ConfigError: options that would change the splits or the columns.
    """
    for name in ("val", "test", "text", "label", "target", "split", "image"):
        if getattr(options, name) != getattr(Options(), name):
            remedy = "Use `Task.limit` or `Task.few_shot` for smaller ones."
            requirement = f"must be left out for {ref}, whose columns and splits are fixed"
            raise ConfigError(say(name, requirement, getattr(options, name), remedy))
    chosen = BUNDLED_TEXTS[ref]
    return build_texts(TextListing(ref, ("text",), chosen.entries(), chosen.generates), options)
