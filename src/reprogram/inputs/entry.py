"""How a task's examples come to a source as they are: what controls have in place of a prompt."""

from dataclasses import dataclass
from typing import final

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.source import Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.inputs.opening import open_task
from reprogram.inputs.place import Place


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """What lets examples in and manipulates nothing.

    Attributes:
        edits: a `Place` for pictures, a `Template` for texts.
        lead: text right before the answer, which decides how label words are spelled; empty for pictures.
    """

    edits: list[Edit]
    lead: str = ""


def entry(
    source: Source,
    task: TaskSpec,
    *,
    canvas: int | None = None,
    inner: int | None = None,
    template: str | None = None,
) -> Entry:
    """The way in that fits a source and a task.

    Args:
        source: of pictures or texts.
        task: whose columns the template joins.
        canvas: pixels of the source's input; None for what the source was trained on.
        inner: pixels of the picture on it; None for the whole canvas.
        template: layout of the prompt; None for the one that fits the source's kind.

    Raises:
        ConfigError: a setting is for the other kind of task, or the template has places for learned tokens.
        CapabilityError: the source has one size only, and `canvas` is another.
    """
    if source.spec.modality != "text":
        if template is not None:
            raise ConfigError(say("template", "must be left out for pictures", template))
        size = source.spec.canvas(canvas)
        return Entry([Place(size, inner or size)])
    if canvas is not None or inner is not None:
        raise ConfigError(say("canvas, inner", "must be left out for texts", (canvas, inner)))
    opening = open_task(text_source(source), task, template, 0)
    if opening.tokens:
        remedy = "Learned tokens are what this is the control of."
        raise ConfigError(say("template", "must have no {soft:N} here", template, remedy))
    return Entry(opening.edits, opening.lead)
