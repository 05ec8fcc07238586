"""The card of a program file: all that is known of the program apart from its numbers.

Cards come from strangers' files, so every field is checked, unknown ones are refused, and nothing in a card names code:
`method` and `source.ref` are names that the rooms above look up among what they know.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_serializer

from reprogram.core.errors import ArtifactError, say
from reprogram.store._json import canonical, parse
from reprogram.store.tensors import DEFAULT_LIMITS, Limits

_UTC = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|\+00:00)$"

Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Utc = Annotated[str, Field(pattern=_UTC)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@final
class PreprocessingCard(_Part):
    """How the source wanted its pixels: `(x - mean) / std` for x in [0, 1], one number a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


@final
class SourceCard(_Part):
    """The source a program was made for.

    Attributes:
        ref: how to load it again.
        fingerprint: hash over its parameters and buffers.
        input_shape: of one input, without the batch.
        outputs: number of source classes.
        preprocessing: of its inputs.
    """

    ref: Name
    fingerprint: Name
    input_shape: tuple[Count, ...]
    outputs: Count
    preprocessing: PreprocessingCard


@final
class SampleCard(_Part):
    """The shape every input of the task is brought to, and how; see `reprogram.core.task.Sample`.

    Cards of pictures are written without `columns`, as they were before there were texts.
    """

    shape: tuple[Count, ...]
    fit: str
    interpolation: str
    columns: tuple[Name, ...] = ()

    @model_serializer(mode="wrap")
    def _serialise(self, handler: Callable[[Any], dict[str, JsonValue]]) -> dict[str, JsonValue]:
        return {name: value for name, value in handler(self).items() if name != "columns" or value}


@final
class ExampleCard(_Part):
    """A demonstration; see `reprogram.core.task.Example`."""

    texts: tuple[str, ...]
    answer: str


@final
class TaskCard(_Part):
    """What the method saw of the task; see `reprogram.core.task.TaskSpec`. No classes: texts that are to be written.

    Cards of programs that show no examples are written without `context`, and those that give one answer for a picture
    without `dense`, as they were before there were others.
    """

    name: str
    classes: tuple[str, ...]
    sample: SampleCard
    modality: str
    context: tuple[ExampleCard, ...] = ()
    dense: bool = False

    @model_serializer(mode="wrap")
    def _serialise(self, handler: Callable[[Any], dict[str, JsonValue]]) -> dict[str, JsonValue]:
        return {name: value for name, value in handler(self).items() if name not in ("context", "dense") or value}


@final
class ParametersCard(_Part):
    """How big the program is; see `reprogram.core.result.Parameters`."""

    allocated: Count
    effective: Count
    fitted: Count


@final
class ProgramCard(_Part):
    """Everything in a program file but the tensors.

    Attributes:
        schema_version: of the card, 1.
        library_version: the version that wrote it.
        created: when, ISO 8601 in UTC, such as "2025-11-30T12:00:00Z".
        method: name of the method that builds the parts.
        form: see `reprogram.core.method.Origin`.
        config: the method's settings, as plain values.
        taxonomy: values per axis, read off the built program.
        source: the source it was made for.
        task: the target task; None for methods that need none.
        metrics: by name; "nan" and "inf" are written as text, which JSON has no numbers for.
        parameters: counts.
        citation: BibTeX.
        seed: of the fit, where there was one.
        notes: free text.
    """

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    library_version: Name
    created: Utc
    method: Name
    form: Literal["trained", "compact", "compiled"] = "trained"
    config: dict[str, JsonValue]
    taxonomy: dict[str, list[str]]
    source: SourceCard
    task: TaskCard | None
    metrics: dict[str, float | int | str | None] = {}
    parameters: ParametersCard
    citation: str = ""
    seed: int | None = None
    notes: list[str] = []


def to_json(card: ProgramCard) -> str:
    """The card as canonical JSON: equal cards give equal text."""
    return canonical(card.model_dump(mode="json")).decode()


def from_json(text: str, *, limits: Limits = DEFAULT_LIMITS, where: str = "card") -> ProgramCard:
    """The card that a text stands for.

    Args:
        text: JSON.
        limits: how long it may be.
        where: what errors call it, such as a path.

    Raises:
        ArtifactError: it is too long, not JSON, or not a card; the message names the field.
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > limits.header_bytes:
        raise ArtifactError(say(where, f"must be at most {limits.header_bytes} bytes long", len(data)))
    parse(data, where)
    try:
        return ProgramCard.model_validate_json(data)
    except ValidationError as error:
        raise ArtifactError(explain(error, where)) from None


def explain(error: ValidationError, where: str) -> str:
    """Word the first complaint of a failed validation, with the path to the field."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join([where, *(str(step)[:60] for step in first["loc"])])
    rest = error.error_count() - 1
    remedy = f"{rest} more of its fields are wrong." if rest else ""
    return say(field, f"must be valid ({first['msg']})", first["input"], remedy)
