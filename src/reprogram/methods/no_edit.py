"""Control: nothing is done to the input but letting it in; only the output is fitted, if that.

What a learned input must beat. Pictures are scaled to the source's size and read by the outputs of the methods
compared: FLM's one-to-one map (arXiv:2211.11635), AutoVP's many-to-one map (arXiv:2310.08381), BLM and BLM+
(arXiv:2410.24018). Texts go through a template. A language model is asked as it is, and label words are read off its
scores (zero-shot; Schick, Schütze, arXiv:2001.07676, call such a pair of template and words a pattern and verbalizer);
a text encoder's vectors are compared with the classes' mean vectors, and a classifier's own classes are mapped as those
of pictures are. An image-text source compares pictures with the class names in a sentence (zero-shot; Radford et al.,
arXiv:2103.00020).
"""

from dataclasses import dataclass
from typing import Literal

from reprogram.core.errors import CapabilityError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Output, Program
from reprogram.core.source import ImageTextSource, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Taxonomy
from reprogram.inputs import entry
from reprogram.outputs import Prototypes, Words, answers, label_map, template_scores

Mapping = Literal["first", "random", "frequency", "many_to_one", "blm", "blm_plus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    r"""Settings.

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the image on it; None for the whole canvas.
        mapping: how source classes are read as target classes, where the source has classes.
        template: how the columns of a text task become a prompt; None for "{text}\nLabel:" and its like.
        words: label words by class, for language models; None for the class names.
        templates: of class texts, for image-text sources, with `{class}` or `{a class}`; of several, the mean vector.
        recipe: one pass for the statistics; there is nothing to learn.
    """

    canvas: int | None = None
    inner: int | None = None
    mapping: Mapping = "blm"
    template: str | None = None
    words: Words | None = None
    templates: tuple[str, ...] = ("a photo of {a class}.",)
    recipe: Recipe = Recipe(refresh="once", epochs=1)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, or template``, ``O = the mapping chosen, label words, class means, or class texts``."""
    way = entry(source, task, canvas=config.canvas, inner=config.inner, template=config.template)
    if isinstance(source, ImageTextSource):
        output: Output = template_scores(source, task.classes, config.templates)
    elif source.spec.modality == "text":
        output = _text_output(source, task, config, way.lead)
    else:
        output = _map(source, task, config)
    return Program(way.edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


def _text_output(source: Source, task: TaskSpec, config: Config, lead: str) -> Output:
    model = text_source(source)
    if task.generates or model.kind not in ("encoder", "classifier"):
        return answers(model, task, config.words, after=lead)
    if model.kind == "classifier":
        return _map(source, task, config)
    if source.spec.width is None:
        raise CapabilityError(say("source", "must tell the width of its features", source.spec.ref))
    return Prototypes(source.spec.width, len(task.classes))


def _map(source: Source, task: TaskSpec, config: Config) -> Output:
    return label_map(config.mapping, source.spec.outputs, len(task.classes))


METHOD = Method(
    name="no_edit",
    summary="control: the input as it is, and a fitted label mapping or label words",
    taxonomy=Taxonomy.of(Alignment.STATISTICAL),
    paper=Paper(title="The input left as it is (control)", authors="the reprogram authors", year=2026),
    config=Config,
    build=build,
    presets={"cpu": {"canvas": 128}},
    control=True,
)
