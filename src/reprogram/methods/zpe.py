"""ZPE: many templates for the class names, weighed in closed form by how sure they are of unlabelled inputs.

Allingham, Ren, Dusenberry, Gu, Cui, Tran, Liu, Lakshminarayanan, "A Simple Zero-shot Prompt Weighting Technique to
Improve Prompt Ensembling in Text-Image Models", ICML 2023, arXiv:2302.06235.

The weights are fitted on the training split's inputs; no label is used.

Pictures are classified by an image-text source, as published; texts by a text encoder that reads the templates, too.

Departures: the templates are our own; where texts are classified, the sentences of `REFERENCE` or those given stand in
for 20,000 pictures like those of the pre-training; for pictures there are none, so that only the mean over the task's
own inputs is taken off; raw weights below 0 count as 0; a median distance of 0, and a threshold above all templates,
have rules of their own. The manipulation is of the class texts that O holds, not of the input x: read off the parts,
nothing is done to x.
"""

from dataclasses import dataclass

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Input, Program
from reprogram.core.source import Capability, ImageTextSource, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import ClassPrompts, Template, entry, with_classes
from reprogram.outputs.class_texts import cosine_scale, named, text_encoder, text_vectors
from reprogram.outputs.ensemble import Debias, PromptEnsemble, Weighing
from reprogram.outputs.templates import TEMPLATES as PICTURED

TEMPLATES = (
    "{class}",
    "{class}.",
    "This is {a class}.",
    "This text is {a class}.",
    "This text is about {class}.",
    "This is a text about {class}.",
    "An example of {a class}.",
    "A typical {class}.",
    "A short text: {class}.",
    "Topic: {class}.",
    "Category: {class}.",
    "Kind of text: {class}.",
    "Label: {class}.",
    "Subject: {class}.",
    "In one word: {class}.",
    "The text can be described as {class}.",
    "The text belongs to the category {class}.",
    "The best word for this text is {class}.",
    "What is meant is {class}.",
    "Somebody wrote {a class}.",
    "What they wrote is {a class}.",
    "The writer expresses {class}.",
    "It has to do with {class}.",
    "All of this says {class}.",
    "A message of the kind {class}.",
    "People would call this {a class}.",
    "A sentence one would file under {class}.",
    "The following is {a class}.",
)
"""Ours, for texts of any kind."""

REFERENCE = (
    "The river rises in the northern hills and flows into the sea near the old harbour.",
    "Whisk the eggs with the sugar until the mixture is pale.",
    "The committee will meet again on Thursday to vote on the budget.",
    "How do I reset the clock on this oven?",
    "She closed the door behind her and listened to the rain.",
    "The patent describes a valve that opens under low pressure.",
    "My brother plays the trumpet in a small band.",
    "Shares of the company fell by three percent after the announcement.",
    "A triangle with two equal sides has two equal angles.",
    "Turn left at the second traffic light and park behind the library.",
    "The museum shows coins, maps and letters from four centuries.",
    "I have never understood why people collect stamps.",
    "The team scored twice in the last ten minutes and won the cup.",
    "To install the program, unpack the archive and run the setup script.",
    "Bees find their way by the position of the sun.",
    "Is it true that glass flows very slowly?",
    "The novel follows three sisters who inherit a farm.",
    "Please sign both copies and return one of them by post.",
    "A light wind from the west will bring showers in the evening.",
    "The engine would not start, so we pushed the car down the hill.",
    "Copper conducts electricity better than iron does.",
    "He was elected mayor at the age of twenty-nine.",
    "Thank you for coming all this way to see us.",
    "The recipe serves four and takes about an hour.",
    "In 1850 the town had one school and two mills.",
    "The patient was given the medicine twice a day for a week.",
    "What a strange colour for a front door.",
    "The train to the airport leaves every twenty minutes from platform six.",
    "Children under twelve may enter free of charge.",
    "The function returns the length of the longest word in the list.",
    "Fold the paper along the dotted line and cut out the circle.",
    "They argued about money, and then they argued about arguing.",
    "The species is found only on two islands in the south.",
    "Water the plant once a week and keep it out of direct sunlight.",
    "I think the second candidate gave the clearer answers.",
    "The contract ends in March unless both sides agree to renew it.",
    "The painter mixed her own colours from earth and oil.",
    "Who wrote the song that was played at the end?",
    "The bridge was closed for repairs after the flood.",
    "A good knife should be sharpened before it is blunt.",
)
"""In place of a sample of what a text encoder was trained on: ours, about all kinds of things."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings; the paper's choices.

    Attributes:
        templates: with `{class}` or `{a class}`; None for `TEMPLATES`, or for the 81 of `outputs.templates` where
            pictures are classified (paper: 247).
        reference: texts like those the source was trained on; None for `REFERENCE`, or for none with pictures.
        debias: what is taken off the scores before templates are judged, see `prompt_bias`; None for "both" (paper), or
            for "test" where there is no reference.
        weighing: "softmax", "raw" or "equal", see `prompt_weights`. Equal weights with a threshold are selection only.
        threshold: keeps the templates that stand out by more (paper: 0.5 or 2.0), see `standing_out`; None for all.
        scale: times the cosines; None for an image-text source's own, and 20, with which sentence encoders are commonly
            trained.
        template: how the columns of the task become one text; None for the columns as they are.
        recipe: one pass over the unlabelled inputs.
    """

    templates: tuple[str, ...] | None = None
    reference: tuple[str, ...] | None = None
    debias: Debias | None = None
    weighing: Weighing = "softmax"
    threshold: float | None = None
    scale: float | None = None
    template: str | None = None
    recipe: Recipe = Recipe(refresh="once", epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = columns as one text, words around class names``, ``O = weighed cosines to every class text``."""
    model, task = text_encoder(source), with_classes(task, METHOD.name)
    pictures = isinstance(model, ImageTextSource)
    usual, known = (PICTURED, ()) if pictures else (TEMPLATES, REFERENCE)
    templates = usual if config.templates is None else config.templates
    if not templates:
        raise ConfigError(say("templates", "must be one at least", templates))
    reads = Input(Template("{text}", ["text"]))
    texts = [named(layout, name) for name in task.classes for layout in templates]
    vectors = text_vectors(model, texts, reads).view(len(task.classes), len(templates), -1)
    reference = known if config.reference is None else config.reference
    output = PromptEnsemble(
        vectors,
        text_vectors(model, reference, reads) if reference else None,
        debias=config.debias or ("both" if reference else "test"),
        weighing=config.weighing,
        threshold=config.threshold,
        scale=cosine_scale(source, config.scale),
    )
    origin = Origin(method=METHOD.name, config=config, task=task)
    edits = [
        *entry(source, task, template=config.template).edits,
        ClassPrompts(list(zip((n for n in task.classes for _ in templates), texts, strict=True))),
    ]
    return Program(edits, source, output, origin=origin)


METHOD = Method(
    name="zpe",
    summary="zero-shot: templates for the class names, weighed in closed form by unlabelled inputs",
    taxonomy=Taxonomy.of(Configuration.FIXED, Location.INPUT, Operator.CONCATENATIVE, Alignment.LINEAR),
    paper=Paper(
        title=("A Simple Zero-shot Prompt Weighting Technique to Improve Prompt Ensembling in Text-Image Models"),
        authors=(
            "James Urquhart Allingham and Jie Ren and Michael W Dusenberry and Xiuye Gu and Yin Cui and Dustin Tran "
            "and Jeremiah Zhe Liu and Balaji Lakshminarayanan"
        ),
        year=2023,
        arxiv="2302.06235",
        venue="ICML",
    ),
    config=Config,
    build=build,
    needs=frozenset({Capability.FEATURES}),
)
