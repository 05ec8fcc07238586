"""CuPL: a class is what a language model writes about it; inputs go to the class whose descriptions are closest.

Pratt, Covert, Liu, Farhadi, "What does a platypus look like? Generating customized prompts for zero-shot image
classification", ICCV 2023, arXiv:2209.03320.

No labelled example is used. The descriptions are kept with the program as its context: (class name, description).

Pictures are classified by an image-text source, as published; texts by the text encoder that reads the descriptions.

Departures: the questions put to the writer are our own; descriptions that are the same but for case are counted once;
the article before a class name goes by its sound; descriptions cut off at the token limit have no full stop put after
them. The manipulation is of the class texts that O holds, not of the input x: read off the parts, nothing is done to x.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Input, Program
from reprogram.core.source import Capability, PromptSource, Source, prompt_source
from reprogram.core.task import Example, TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.core.writing import Writing
from reprogram.inputs import ClassPrompts, Template, entry, read_descriptions, with_classes
from reprogram.inputs.describing import ask
from reprogram.inputs.descriptions import pooled
from reprogram.outputs.class_texts import cosine_scale, named, text_encoder, text_vectors
from reprogram.outputs.ensemble import ClassTexts, Pooling

QUESTIONS = (
    'Describe in one sentence what people write in a text of the kind "{class}".',
    "Write one short sentence that is a clear example of {a class}.",
    'How can one tell that a short text belongs under the heading "{class}"? Answer in one sentence.',
    "What does somebody say in {a class}? Answer in one sentence.",
    'What is meant by "{class}"? Answer in one sentence.',
)
"""What a writer is asked about each class of a text task."""

PICTURED = (
    "Describe in one sentence what {a class} looks like.",
    "How can one recognise {a class} in a photo? Answer in one sentence.",
    "What does a picture of {a class} show? Answer in one sentence.",
    "What shape and colours does {a class} have? Answer in one sentence.",
    "What is usually seen around {a class}? Answer in one sentence.",
)
"""The same where pictures are classified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings; numbers are those of the paper's code.

    Attributes:
        descriptions: of each class, one text or several, or sets of them, which are put together; or the path of a JSON
            file of such an object, see `reprogram.inputs.descriptions`.
        writer: in place of descriptions, a reference of a language model that writes them, such as
            "bundled/smollm2-135m".
        questions: that the writer is asked, with `{class}` or `{a class}`; None for `QUESTIONS`, or `PICTURED` where
            pictures are classified.
        chat: put the questions as turns of a chat; off for a writer that only goes on with a text.
        samples: answers to each question (paper: 10 to each of 5).
        temperature: of the answers.
        tokens: of an answer at most.
        templates: sentences with `{class}` or `{a class}` that join the descriptions of every class.
        pooling: over a class's texts: "mean" of their vectors (paper), "logits" or "max", see `ClassTexts`.
        scale: times the cosines; None for an image-text source's own, and 20, with which sentence encoders are commonly
            trained.
        template: how the columns of the task become one text; None for the columns as they are.
        recipe: nothing is fitted.
    """

    descriptions: Mapping[str, str | tuple[str, ...] | Mapping[str, str | tuple[str, ...]]] | Path | str | None = None
    writer: str | None = None
    questions: tuple[str, ...] | None = None
    chat: bool = True
    samples: int = 10
    temperature: float = 0.99
    tokens: int = 50
    templates: tuple[str, ...] = ()
    pooling: Pooling = "mean"
    scale: float | None = None
    template: str | None = None
    recipe: Recipe = Recipe(refresh="once", epochs=1)


def context(
    source: Source, task: TaskSpec, pool: Sequence[Example], config: Config, seed: int
) -> Sequence[Example]:  # fmt: skip
    """The descriptions of every class: those given, those in a file, or what the writer writes.

    No example of `pool` is looked at.

    Raises:
        ConfigError: descriptions and a writer are given, or neither, nor templates.
        DataError: a class has no description, or the file is none.
    """
    classes = with_classes(task, METHOD.name).classes
    if config.descriptions is not None and config.writer is not None:
        raise ConfigError(say("writer", "must be left out where descriptions are given", config.writer))
    if config.writer is not None:
        from reprogram.sources import load_source

        usual = PICTURED if task.modality == "image" else QUESTIONS
        return written(prompt_source(load_source(config.writer)), classes, config, seed, usual)
    if isinstance(config.descriptions, str | Path):
        return listed(config.descriptions, classes)
    return _given(classes, config)


def written(
    writer: PromptSource, classes: Sequence[str], config: Config, seed: int = 0, usual: Sequence[str] = QUESTIONS
) -> list[Example]:
    """What a language model writes about each class, each text once.

    Args:
        writer: that is asked every question about every class, `config.samples` times.
        classes: T names.
        config: see `Config`.
        seed: of the draws.
        usual: questions, where the settings name none.

    Raises:
        DataError: a class got no text.
    """
    questions = usual if config.questions is None else config.questions
    asked = [(name, named(question, name)) for name in classes for question in questions]
    writing = Writing(tokens=config.tokens, stop=(".",), samples=config.samples, temperature=config.temperature,
                      seed=seed)  # fmt: skip
    found: dict[str, list[str]] = {name: [] for name in classes}
    answers = ask(writer, [question for _, question in asked], writing, chat=config.chat)
    for (name, _), texts in zip(asked, answers, strict=True):
        found[name] += texts
    return listed(found, classes)


def listed(descriptions: Mapping[str, object] | str | Path, classes: Sequence[str]) -> list[Example]:
    """Descriptions as examples, class by class; empty ones and repetitions left out.

    Raises:
        DataError: a class is missing or unknown, or has no text; a file cannot be read.

    >>> [one.answer for one in listed({"yes": ["It is so.", "it is  so."], "no": "Never."}, ("yes", "no"))]
    ['It is so.', 'Never.']
    """
    found = pooled(read_descriptions(descriptions, classes, None))
    return [Example((name,), text) for name, texts in zip(classes, found, strict=True) for text in texts]


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = columns as one text, words around class names``, ``O = cosine to each class's pooled descriptions``."""
    model, task = text_encoder(source), with_classes(task, METHOD.name)
    held = task.context or _given(task.classes, config)
    texts = [(one.texts[0], one.answer) for one in held]
    texts += [(name, named(layout, name)) for name in task.classes for layout in config.templates]
    strange = sorted({name for name, _ in texts} - set(task.classes))
    if strange:
        raise DataError(say("context", f"must be about the classes {list(task.classes[:5])}", strange[:5]))
    vectors = text_vectors(model, [text for _, text in texts], Input(Template("{text}", ["text"])))
    owner = torch.tensor([task.classes.index(name) for name, _ in texts], device=vectors.device)
    output = ClassTexts(
        vectors, owner, len(task.classes), pooling=config.pooling, scale=cosine_scale(source, config.scale)
    )
    origin = Origin(method=METHOD.name, config=config, task=replace(task, context=tuple(held)))
    edits = [*entry(source, task, template=config.template).edits, ClassPrompts(texts)]
    return Program(edits, source, output, origin=origin)


def _given(classes: Sequence[str], config: Config) -> Sequence[Example]:
    """The descriptions that stand in the settings. Files and writers are for `context`: a program file names none."""
    if isinstance(config.descriptions, Mapping):
        return listed(config.descriptions, classes)
    if config.templates and config.descriptions is None and config.writer is None:
        return []
    remedy = 'Give descriptions={"class": ["...", ...]}, a JSON file of them, or a writer, and the task with its data.'
    got = {"descriptions": config.descriptions, "writer": config.writer}
    raise ConfigError(say("descriptions", "must be there for every class", got, remedy))


METHOD = Method(
    name="cupl",
    summary="zero-shot: the class whose descriptions, given or written by a language model, are closest",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.CONCATENATIVE, Alignment.LINEAR),
    paper=Paper(
        title="What does a platypus look like? Generating customized prompts for zero-shot image classification",
        authors="Sarah Pratt and Ian Covert and Rosanne Liu and Ali Farhadi",
        year=2023,
        arxiv="2209.03320",
        venue="ICCV",
    ),
    config=Config,
    build=build,
    context=context,
    needs=frozenset({Capability.FEATURES}),
)
