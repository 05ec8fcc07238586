"""PPT: prompt tuning whose prompt was first trained on unlabelled text, for tasks with few examples.

Gu, Han, Liu, Huang, "PPT: Pre-trained Prompt Tuning for Few-shot Learning", ACL 2022, arXiv:2109.04332.

The pre-training is an ordinary fit, on a task that `next_sentences` makes of plain texts; its prompt is then
transferred:

    columns, labels, classes = next_sentences(texts)
    pretraining = reprogram.Task.from_texts(columns, labels, classes=classes)
    first = reprogram.build("ppt", source, pretraining)
    reprogram.fit(first, pretraining)
    program = reprogram.build("ppt", source, task)
    reprogram.inputs.transfer(program, first)

Departures: those of `prompt_tuning`; of the paper's formats only the one for pairs of texts is made here. Without a
transfer this is prompt tuning from a sample of the vocabulary.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from reprogram.core.errors import DataError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import SoftPrompt, Start, open_task, prompt_start
from reprogram.outputs import Words, answers

_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
CLASSES = ("no", "maybe", "yes")
"""The second sentence is from another text; from the same, but not next; next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's choices (section 4, as reported; not checked against its code).

    Attributes:
        tokens: n, of the soft prompt (paper: 100).
        start: before a transfer: "vocabulary", "labels", "text" or "random".
        text: for start="text"; None for an instruction that names the classes.
        template: the hard template that stands beside the soft prompt; None for the source's default.
        words: label words by class; None for the class names.
        recipe: as for prompt tuning.
    """

    tokens: int = 100
    start: Start = "vocabulary"
    text: str | None = None
    template: str | None = None
    words: Words | None = None
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=0.005, weight_decay=1e-5, epochs=30, batch_size=32, refresh="once", clip_norm=1.0
    )


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template, [P; x]``, ``O = label words``."""
    model = text_source(source)
    opening = open_task(model, task, config.template, config.tokens)
    start = prompt_start(model, task, opening.tokens, config.start, config.text)
    output = answers(model, task, config.words, after=opening.lead)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, SoftPrompt(start, where=opening.where)], source, output, origin=origin)


def next_sentences(
    texts: Sequence[str], *, per_class: int = 1000, seed: int = 0
) -> tuple[dict[str, list[str]], list[int], tuple[str, ...]]:
    """A task of three classes made of plain texts: does the second sentence follow the first?

    Args:
        texts: of several sentences each; sentences end in ".", "!", "?" or a line break.
        per_class: pairs of each class, drawn with repetition.
        seed: of the draw.

    Returns:
        Columns "sentence1" and "sentence2", labels, and the names of the classes: 0 "no" (from another text), 1 "maybe"
        (from the same text, but not next to it), 2 "yes" (the next sentence). Classes alternate.

    Raises:
        DataError: fewer than two texts have sentences, or none has three.

    >>> columns, labels, classes = next_sentences(["One. Two. Three.", "Four! Five?"], per_class=1)
    >>> labels, classes, columns["sentence2"][1] in ("One.", "Three.")
    ([0, 1, 2], ('no', 'maybe', 'yes'), True)
    """
    split = [[s.strip() for s in _SENTENCES.split(text) if s.strip()] for text in texts]
    whole = [sentences for sentences in split if sentences]
    long = [sentences for sentences in whole if len(sentences) > 2]
    if len(whole) < 2 or not long or per_class < 1:
        got = f"{len(whole)} texts with sentences, {len(long)} with three or more, per_class {per_class}"
        raise DataError(say("texts", "must be two at least, one of them with three sentences", got))
    draw = random.Random(seed)
    pairs = [pair for _ in range(per_class) for pair in (_other(whole, draw), _apart(long, draw), _next(long, draw))]
    columns = {"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs]}
    return columns, [0, 1, 2] * per_class, CLASSES


def _other(texts: list[list[str]], draw: random.Random) -> tuple[str, str]:
    one, two = draw.sample(range(len(texts)), 2)
    return draw.choice(texts[one]), draw.choice(texts[two])


def _apart(texts: list[list[str]], draw: random.Random) -> tuple[str, str]:
    sentences = draw.choice(texts)
    one = draw.randrange(len(sentences) - 2)
    pair = [sentences[one], sentences[draw.randrange(one + 2, len(sentences))]]
    draw.shuffle(pair)
    return pair[0], pair[1]


def _next(texts: list[list[str]], draw: random.Random) -> tuple[str, str]:
    sentences = draw.choice(texts)
    one = draw.randrange(len(sentences) - 1)
    return sentences[one], sentences[one + 1]


METHOD = Method(
    name="ppt",
    summary="prompt tuning whose prompt was first trained on unlabelled text; label words stand for the classes",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.EMBEDDING, Operator.CONCATENATIVE, Alignment.RULE_BASED),
    paper=Paper(
        title="PPT: Pre-trained Prompt Tuning for Few-shot Learning",
        authors="Yuxian Gu and Xu Han and Zhiyuan Liu and Minlie Huang",
        year=2022,
        arxiv="2109.04332",
        venue="ACL",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"tokens": 20, "recipe.epochs": 5, "recipe.batch_size": 16, "recipe.schedule": "cosine"}},
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION}),
)
