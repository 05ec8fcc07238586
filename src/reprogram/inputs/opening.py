"""What every method of prompt learning settles first: the template, how many learned tokens there are, and where."""

from dataclasses import dataclass
from typing import final

from reprogram.core.errors import ConfigError, say
from reprogram.core.inserting import Where
from reprogram.core.program import Edit
from reprogram.core.source import TextSource
from reprogram.core.task import TaskSpec
from reprogram.inputs.template import Template, default_layout


@final
@dataclass(frozen=True, slots=True)
class Opening:
    """How a task's texts and a soft prompt come together.

    Attributes:
        template: joins the columns; None without a task, for token ids.
        tokens: of the soft prompt.
        where: they go.
        lead: text right before the answer, which decides how label words are spelled.
        answers: places of answers that the template names.
    """

    template: Template | None
    tokens: int
    where: Where
    lead: str = ""
    answers: int = 0

    @property
    def edits(self) -> list[Edit]:
        """The template, if there is one."""
        return [] if self.template is None else [self.template]


def with_classes(task: TaskSpec | None, method: str) -> TaskSpec:
    """The task, if it has classes to choose from.

    Raises:
        ConfigError: there is no task, or its answers are texts of any kind.
    """
    if task is None or task.generates:
        got = None if task is None else f"{task.name}, which asks for texts"
        raise ConfigError(say("task", f"must have classes for {method}", got, "Use prompt_tuning or prefix_tuning."))
    return task


def open_task(source: TextSource, task: TaskSpec | None, template: str | None, tokens: int | None) -> Opening:
    """Choose template and places for a source and a task.

    Args:
        source: decides the default template, and that prompts go after the class token where the source has one at the
            start (BERT and its like, whose pooler reads the first token).
        task: whose columns are joined; None for token ids, which take no template.
        template: a layout; None for `default_layout`. Its places for soft tokens, if it has any, are taken.
        tokens: of the soft prompt, where the template has no places for them; None where there is no soft prompt.

    Raises:
        ConfigError: the layout is none, see `Template`; it has places for soft tokens that nothing fills; or none for
            the answer of a masked model.
    """
    where: Where = "after_first" if source.kind in ("masked", "encoder", "classifier") else "start"
    if task is None:
        return Opening(None, 0 if tokens is None else tokens, where)
    columns = task.sample.columns or ("text",)
    layout = default_layout(source.kind, columns, generates=task.generates) if template is None else template
    made = Template(layout, columns)
    if source.kind == "masked" and not task.generates and not made.answers:
        raise ConfigError(say("template", "must have a {mask}, the place of a masked model's answer", layout))
    if made.slots and tokens is None:
        raise ConfigError(say("template", "must have no {soft:N}, for there are no soft tokens to go there", layout))
    if made.slots:
        return Opening(made, made.slots, "slots", made.lead, made.answers)
    return Opening(made, 0 if tokens is None else tokens, where, made.lead, made.answers)
