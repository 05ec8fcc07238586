"""`reprogram show`."""

from typing import TYPE_CHECKING, Any

from reprogram.cli._numbers import percent
from reprogram.cli._open import ProgramFile
from reprogram.cli._run import Json, emit, pairs, tell

if TYPE_CHECKING:
    from reprogram.store import ProgramCard
    from reprogram.store.card import SampleCard


AXES = ("configuration", "location", "operator", "alignment")


def show(program: ProgramFile, json: Json = False) -> None:
    """Show what is in a program file.

    Its source is not needed, and nothing is run.

    Example: `reprogram show my.safetensors`
    """
    from reprogram.store import read

    card = read(program).card
    size = program.stat().st_size
    if json:
        emit({"file": str(program), "bytes": size, **card.model_dump(mode="json")})
        return
    tell(pairs(_facts(card) | {"file": f"{program}, {size:,} bytes"}))
    for title, facts in (("Results", _metrics(card)), ("Settings", flat(card.config))):
        if facts:
            tell(f"\n{title}")
            tell(pairs({f"  {k}": v for k, v in facts.items()}))
    if card.citation:
        tell(f"\nCite\n{card.citation}")


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
    """Nested settings under dotted names, values as text.

    >>> flat({"a": None, "recipe": {"lr": 0.1}})
    {'a': 'null', 'recipe.lr': '0.1'}
    """
    found: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = "null" if value is None else str(value)
    return found
