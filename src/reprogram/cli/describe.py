"""`reprogram describe`."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reprogram.cli._open import Device
from reprogram.cli._run import Json, emit, note, pairs, tell, warn
from reprogram.core.errors import ConfigError, DataError, say

if TYPE_CHECKING:
    from reprogram.core.source import PromptSource
    from reprogram.inputs.describing import Describing

LOOKS = (
    "What does {a class} look like? Answer in one sentence.",
    "Describe the shape, the colours and the parts of {a class} in one sentence.",
    "How would you recognise {a class} in a photo? Answer in one sentence.",
)
APART = (
    "What does {a class} have that similar things do not? Answer in one sentence.",
    "By which visible feature can one tell {a class} from everything else? Answer in one sentence.",
    "How does {a class} differ in looks from what it is often confused with? Answer in one sentence.",
)
CAUSES = (
    ("Which shape or parts in a photo show that it is {a class}? Answer in one sentence.",),
    ("Which colours, patterns or materials in a photo show that it is {a class}? Answer in one sentence.",),
    ("Which surroundings or actions in a photo hint at {a class}? Answer in one sentence.",),
)
"""What a writer is asked for each set of causes; after the last of them, the first again."""

Kind = Literal["descriptive", "distinctive", "both", "causes"]


def describe(
    *,
    classes: Annotated[
        list[str] | None, typer.Option("--classes", metavar="A,B,...", help="Class names, with commas between them.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", metavar="REF|PATH", help="Take the class names from a task.")
    ] = None,
    source: Annotated[
        str, typer.Option("--source", "-s", metavar="REF", help="A language model, here or behind an endpoint.")
    ] = "bundled/smollm2-135m",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The JSON file; what is in it is not asked again.")
    ] = Path("descriptions.json"),
    kind: Annotated[
        Kind, typer.Option(help="What a class looks like, what tells it apart, both (attrvr), or causes (dvp).")
    ] = "descriptive",
    number: Annotated[int, typer.Option(min=1, metavar="M", help="Sentences for each class and set.")] = 20,
    sets: Annotated[int, typer.Option(min=1, metavar="V", help="Sets of causes.")] = 3,
    question: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Ask this, with {class} or {a class} in it; may be repeated."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Of an answer at most.")] = 50,
    rounds: Annotated[int, typer.Option(min=1, help="Times that a class is asked about at most.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of the draws.")] = 0.7,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    chat: Annotated[bool, typer.Option(help="Ask as in a chat; off for models that only go on with a text.")] = True,
    device: Device = None,
    json: Json = False,
) -> None:
    """Let a language model write about classes: the file that `--set descriptions=` of several methods takes.

    Sentences are kept that are distinct and 20 letters long. The file is written after every class, so that a command
    that was cut short goes on where it was.

    Example: `reprogram describe --classes daisy,rose --source bundled/smollm2-135m --out flowers.json`
    """
    from reprogram.fit import FitOptions
    from reprogram.inputs.describing import Describing

    asked = _questions(kind, sets, question)
    names = _names(classes, task)
    _check(asked, names[0])
    how = Describing(count=number, tokens=tokens, rounds=rounds, temperature=temperature, seed=seed, chat=chat)
    found = _there(out, names)
    missing = [(name, one) for name in names for one in asked if not found.get(name, {}).get(one)]
    facts: dict[str, Any] = {"file": str(out), "source": source, "classes": len(names), "sets": list(asked)}
    facts["kept"] = len(names) * len(asked) - len(missing)
    short: list[str] = []
    if missing:
        writer = _writer(source, str(FitOptions(device=device).place()))
        short = _write(writer, missing, asked, how, out, found)
        facts |= _cost(writer)
    facts |= {"written": len(missing), "short": short}
    _end(facts, names, list(asked), found, json)


def _write(
    writer: "PromptSource", missing: Sequence[tuple[str, str]], asked: Mapping[str, Sequence[str]], how: "Describing",
    out: Path, found: dict[str, dict[str, Any]],
) -> list[str]:  # fmt: skip
    """Ask, and put the file in order after every answer; the classes that got too few."""
    from reprogram.inputs.describing import describe as sentences
    from reprogram.outputs.class_texts import named

    short: list[str] = []
    for place, (name, one) in enumerate(missing, 1):
        began = time.perf_counter()
        texts = sentences(writer, [named(layout, name) for layout in asked[one]], how)
        note(f"{place}/{len(missing)} {name}, {one}: {len(texts)} sentences in {time.perf_counter() - began:.1f} s")
        if len(texts) < how.count:
            short.append(f"{name} ({one}): {len(texts)}")
        if texts:
            found.setdefault(name, {})[one] = texts
            _save(out, found)
    return short


def _end(
    facts: dict[str, Any], names: Sequence[str], sets: Sequence[str], found: Mapping[str, Any], json: bool
) -> None:  # fmt: skip
    if facts["short"]:
        some = ", ".join(facts["short"][:5]) + (" ..." if len(facts["short"]) > 5 else "")
        warn(f"Fewer sentences than asked for: {some}. What came is kept.")
    empty = [name for name in names if any(not found.get(name, {}).get(one) for one in sets)]
    if empty:
        remedy = "Ask another source or another --question; the rest is in the file."
        raise DataError(say("source", "must write about every class", f"nothing of use about {empty[:5]}", remedy))
    if json:
        emit(facts)
        return
    tell(pairs({name: ", ".join(value) if isinstance(value, list) else value for name, value in facts.items()
                if name not in ("short", "usage")}))  # fmt: skip


def _questions(kind: Kind, sets: int, own: Sequence[str] | None) -> dict[str, Sequence[str]]:
    """By set, what is asked."""
    from reprogram.inputs.descriptions import PAIR, cause_sets

    if own and kind == "both":
        raise ConfigError(say("question", "must be for one kind of text", kind, "Run it once for each --kind."))
    if kind == "causes":
        return {one: own or CAUSES[place % len(CAUSES)] for place, one in enumerate(cause_sets(sets))}
    asked = {PAIR[0]: own or LOOKS, PAIR[1]: own or APART}
    return asked if kind == "both" else {kind: asked[kind]}


def _check(asked: Mapping[str, Sequence[str]], name: str) -> None:
    """Before a model is loaded."""
    from reprogram.outputs.class_texts import named

    for layouts in asked.values():
        for layout in layouts:
            named(layout, name)


def _names(classes: Sequence[str] | None, task: str | None) -> list[str]:
    if bool(classes) == bool(task):
        raise ConfigError(say("classes, task", "must be one of the two", (classes, task)))
    if task:
        from reprogram.tasks import load_task

        names = list(load_task(task).classes)
    else:
        names = [name.strip() for text in classes or () for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ConfigError(say("classes", "must be one or more, each once", names))
    if not all(any(map(str.isalnum, name)) for name in names):
        raise ConfigError(say("classes", "must have letters or digits in their names", names))
    return names


def _there(out: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What is in the file already."""
    from reprogram.inputs.descriptions import parse_descriptions

    if not out.exists():
        if not out.resolve().parent.is_dir():
            raise ConfigError(say("out", "must be in a folder that is there", str(out)))
        return {}
    found = parse_descriptions(out)
    odd = [name for name, own in found.items() if not isinstance(own, dict)]
    if odd:
        remedy = "Name another file: lists without sets are not added to."
        raise DataError(say(str(out), "must hold sets of texts by class", odd[:5], remedy))
    other = sorted(found.keys() - set(names))
    if other:
        remedy = "Name another file."
        raise DataError(say(str(out), f"must be about the {len(names)} classes", f"{other[:5]}, too", remedy))
    return found


def _writer(ref: str, device: str) -> "PromptSource":
    from reprogram.core.source import prompt_source
    from reprogram.sources import load_source

    writer = prompt_source(load_source(ref))
    writer.to(device)
    return writer


def _cost(writer: "PromptSource") -> dict[str, Any]:
    """What a server was asked; nothing for a model that runs here."""
    from dataclasses import asdict

    from reprogram.sources import EndpointSource
    from reprogram.sources.endpoint_limits import spent

    if not isinstance(writer, EndpointSource):
        return {}
    return {"server": spent(writer.usage), "usage": asdict(writer.usage)}


def _save(out: Path, found: Mapping[str, Any]) -> None:
    import json

    from reprogram.store import write_atomic

    write_atomic(out, (json.dumps(found, ensure_ascii=False, indent=1) + "\n").encode())
