"""`reprogram show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reprogram.cli._numbers import percent
from reprogram.cli._open import Device, Force, ProgramFile, SourceRef, open_program
from reprogram.cli._run import Json, emit, grid, pairs, tell

if TYPE_CHECKING:
    from reprogram.store import ProgramCard
    from reprogram.store.card import SampleCard


AXES = ("configuration", "location", "operator", "alignment")


def show(
    *,
    program: ProgramFile,
    nearest: Annotated[
        int,
        typer.Option(
            "--nearest", min=0, metavar="K", help="Also load the source, and name the K tokens nearest to each learned "
            "one: a hint, not a translation."
        ),
    ] = 0,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="TEXT", help="Of a program that shows examples: the text that is asked about, "
                     "a column after the other; by default the names of the columns."),
    ] = None,
    source: SourceRef = None,
    force: Force = False,
    device: Device = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Show what is in a program file.

    Its source is needed only for --nearest, and for programs that show examples in a prompt, whose prompt is printed
    as the model reads it, with its tokens counted. No model is run for that.

    Example: `reprogram show my.safetensors`
    """
    from reprogram.store import read

    card = read(program).card
    size = program.stat().st_size
    near = _nearest(program, nearest, source, force, device) if nearest else None
    prompt = _prompt(program, text, source, force, device) if text or (card.task and card.task.context) else None
    if json:
        found = {"file": str(program), "bytes": size, **card.model_dump(mode="json")}
        emit(found | {name: part for name, part in (("nearest", near), ("prompt", prompt)) if part is not None})
        return
    tell(pairs(_facts(card) | {"file": f"{program}, {size:,} bytes"}))
    for title, facts in (("Results", _metrics(card)), ("Settings", flat(card.config))):
        if facts:
            tell(f"\n{title}")
            tell(pairs({f"  {k}": v for k, v in facts.items()}))
    if prompt is not None:
        _tell_prompt(prompt)
    if near is not None:
        tell("\nNearest tokens, with the cosine (a hint, not a translation)")
        tell(grid(["token", "nearest"], [(number, _hints(row)) for number, row in enumerate(near)]))
    if card.citation:
        tell(f"\nCite\n{card.citation}")


def _prompt(
    path: Path, text: list[str] | None, source: str | None, force: bool, device: str | None
) -> dict[str, Any] | None:
    """The prompt of one text as the model reads it, its tokens, and the examples in it."""
    from reprogram.core.conversation import Conversing
    from reprogram.core.errors import ConfigError, say
    from reprogram.core.source import PromptSource
    from reprogram.core.texts import Texts
    from reprogram.inputs import demonstrated

    loaded = open_program(path, source, force=force, device=device)
    task = loaded.origin.task if loaded.origin else None
    columns = task.sample.columns if task is not None and task.sample.columns else ("text",)
    if text is not None and len(text) != len(columns):
        raise ConfigError(say("text", f"must be given once for each of {list(columns)}", text))
    row = Texts({name: (value,) for name, value in zip(columns, text or [f"<{n}>" for n in columns], strict=True)})
    reader = loaded.source
    if not isinstance(reader, PromptSource) or any(isinstance(e, Conversing) for e in loaded.input):
        return None  # what is asked second depends on what was answered first
    rows = demonstrated(loaded.input, row)
    if rows is None and not text:
        return None
    prompt = loaded.input(row, "input").prompts[0]
    examples, dropped = (None, None) if rows is None else (list(rows[0].examples), list(rows[0].dropped))
    return {"text": reader.rendered(prompt), "tokens": reader.count(prompt), "context": reader.context,
            "examples": examples, "dropped": dropped}  # fmt: skip


def _tell_prompt(prompt: dict[str, Any]) -> None:
    most = f" of {prompt['context']:,}" if prompt["context"] else ""
    shown = "" if prompt["examples"] is None else f", {len(prompt['examples'])} examples"
    left = f", {len(prompt['dropped'])} left out for want of room" if prompt["dropped"] else ""
    tell(f"\nPrompt, as the model reads it: {prompt['tokens']:,}{most} tokens{shown}{left}")
    tell(prompt["text"])


def _nearest(path: Path, k: int, source: str | None, force: bool, device: str | None) -> list[list[dict[str, Any]]]:
    from dataclasses import asdict

    from reprogram.catalogue import nearest_tokens

    found = nearest_tokens(open_program(path, source, force=force, device=device), k)
    return [[asdict(token) for token in row] for row in found]


def _hints(row: list[dict[str, Any]]) -> str:
    return ", ".join(f"{token['text']!r} {token['cosine']:.2f}" for token in row)


def _facts(card: "ProgramCard") -> dict[str, object]:
    source, task, count = card.source, card.task, card.parameters
    return {
        "method": card.method,
        "taxonomy": _axes(card.taxonomy),
        "source": f"{source.ref}, fingerprint {source.fingerprint[:12]}",
        "form": None if card.form == "trained" else card.form,
        "task": task and f"{task.name}, {_inputs(task.sample)}",
        "classes": task and (f"{len(task.classes)}: {_few(task.classes)}" if task.classes else "none: it writes"),
        "parameters": f"{count.allocated:,} learned, {count.effective:,} of them effective; {count.fitted:,} fitted",
        "seed": card.seed,
        "made": f"{card.created} with reprogram {card.library_version}",
        "notes": " ".join(card.notes),
    }


def _inputs(sample: "SampleCard") -> str:
    if sample.columns:
        return f"texts ({', '.join(sample.columns)})"
    return f"pictures of {' x '.join(map(str, sample.shape[-2:]))}"


def _axes(taxonomy: dict[str, list[str]]) -> str:
    return "(" + "; ".join(" + ".join(taxonomy.get(axis, ())) or "–" for axis in AXES) + ")"


def _few(names: tuple[str, ...], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _metrics(card: "ProgramCard") -> dict[str, object]:
    return {
        name: percent(value) if isinstance(value, float) and name.endswith("accuracy") else value
        for name, value in card.metrics.items()
    }


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested settings under dotted names, values as text; those of a search only where the recipe searches.

    >>> flat({"a": None, "recipe": {"lr": 0.1}})
    {'a': 'null', 'recipe.lr': '0.1'}
    >>> flat({"optimizer": "adam", "search": {"draws": 5}}), flat({"optimizer": "cma_es", "search": {"draws": 5}})
    ({'optimizer': 'adam'}, {'optimizer': 'cma_es', 'search.draws': '5'})
    """
    from reprogram.core.method import ZEROTH_ORDER

    found: dict[str, object] = {}
    for name, value in settings.items():
        if name == "search" and settings.get("optimizer") not in (None, *ZEROTH_ORDER):
            continue
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            shown = repr(value) if isinstance(value, str) and not value.isprintable() else str(value)
            found[prefix + name] = "null" if value is None else shown
    return found
