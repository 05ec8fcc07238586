"""`reprogram predict`."""

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reprogram.cli._open import Device, Force, ProgramFile, SourceRef, open_program
from reprogram.cli._run import clean, console, fail, quiet, to_json
from reprogram.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from reprogram.core.program import Program

Row = dict[str, Any]
NONE = "(no answer)"
"""Stands where no answer could be read off what the source wrote."""


def predict(
    *,
    program: ProgramFile,
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Pictures and folders; for a program on texts: texts, tables or .txt "
            "files of them. - reads stdin, one a line.",
        ),
    ],
    format: Annotated[
        Literal["table", "csv", "jsonl"], typer.Option("--format", "-f", help="Of the output.")
    ] = "table",
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Give the K most likely classes.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write there instead of to stdout.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable input.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs to a forward pass.")] = 64,
    source: SourceRef = None,
    force: Force = False,
    device: Device = None,
) -> None:
    """Say what is on pictures, or of which class texts are.

    Unreadable pictures are reported and skipped; the exit code is then 1.

    Example: `reprogram predict my.safetensors photos/ --format csv --out answers.csv`
    """
    loaded = open_program(program, source, force=force, device=device)
    work = _Work(loaded, top, strict)
    texts = loaded.source.spec.modality == "text"
    kind = "text" if texts else "file"
    batches = work.texts(pictures, batch_size) if texts else work.batches(_paths(pictures, work), batch_size)
    lines = {"table": _table, "csv": _csv, "jsonl": _jsonl}[format](_watched(batches, out), kind)
    if out is not None:
        from reprogram.store import write_atomic

        write_atomic(out, (text.encode("utf-8", "backslashreplace") for text in lines))
    else:
        for text in lines:
            sys.stdout.write(text)
            sys.stdout.flush()
    if work.failed:
        raise typer.Exit(1)


@dataclass(slots=True)
class _Work:
    """Answers batch by batch, and counts what could not be read."""

    program: "Program"
    top: int
    strict: bool
    failed: int = 0

    def batches(self, paths: Iterable[str], size: int) -> Iterator[list[Row]]:
        """Rows of answers, in the order of the paths."""
        waiting = iter(paths)
        while chunk := list(islice(waiting, size)):
            good = self._read(chunk)
            if good:
                yield self._answer(good)

    def texts(self, given: Iterable[str], size: int) -> Iterator[list[Row]]:
        """The same for texts, tables and stdin."""
        from reprogram.cli._texts import rows_from
        from reprogram.core.errors import ConfigError, say
        from reprogram.core.program import Answering

        task = self.program.origin.task if self.program.origin else None
        answering = isinstance(self.program.output, Answering)
        if task is None or (task.generates and not answering):
            got = task.name if task else "a program for no task"
            raise ConfigError(say("program", "must have classes to predict", got, "Use `reprogram generate`."))
        columns = task.sample.columns or ("text",)
        waiting = rows_from(given, columns)
        while chunk := list(islice(waiting, size)):
            yield self._classified([" | ".join(row.values()) for row in chunk], chunk)

    def reject(self, problem: DataError) -> None:
        """An input is no good."""
        if self.strict:
            raise problem
        self.failed += 1
        fail(str(problem))

    def _read(self, paths: list[str]) -> "list[tuple[str, Tensor]]":
        """All at once, on several threads; one after another only if one of them fails."""
        origin = self.program.origin
        found: Any = self.program.source.prepare(paths, origin.task.sample if origin and origin.task else None)
        try:
            return list(zip(paths, found[:], strict=True))
        except DataError:
            pass
        good: list[tuple[str, Tensor]] = []
        for number, path in enumerate(paths):
            try:
                good.append((path, found[number]))
            except DataError as problem:
                self.reject(problem)
        return good

    def _answer(self, read: "list[tuple[str, Tensor]]") -> list[Row]:
        import torch

        return self._classified([path for path, _ in read], torch.stack([picture for _, picture in read]))

    def _classified(self, called: list[str], inputs: "Tensor | list[dict[str, str]]") -> list[Row]:
        answers = self.program.predict(inputs, batch_size=len(called))
        if answers.answers is not None:
            said = [(a.value, a.share) if a.value is not None else (NONE, 0.0) for a in answers.answers]
            return [{"file": path, "top": [one]} for path, one in zip(called, said, strict=True)]
        if answers.indices.ndim > 1:  # label maps: the classes that occur, and how sure the pixels are on average
            sure = zip(called, answers.labels, answers.confidence.tolist(), strict=True)
            return [{"file": path, "top": [(names, share)]} for path, names, share in sure]
        best = answers.probabilities.topk(min(self.top, answers.scores.shape[1]), dim=1)
        names = answers.classes or tuple(map(str, range(answers.scores.shape[1])))
        return [
            {"file": path, "top": [(names[i], p) for i, p in zip(index, chance, strict=True)]}
            for path, index, chance in zip(called, best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def _paths(given: Iterable[str], work: _Work) -> Iterator[str]:
    """Files, with folders opened and `-` read from stdin as lines come in."""
    for path in given:
        if path == "-":
            yield from _expand((os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer), work)
        else:
            yield from _expand([path], work)


def _expand(paths: Iterable[str], work: _Work) -> Iterator[str]:
    from reprogram.core.errors import say
    from reprogram.media.files import find

    for path in paths:
        if not os.path.isdir(path):
            if path:
                yield path
            continue
        try:
            found = find(Path(path), allow_outside=True).pictures
            if not found:
                raise DataError(say(path, "must hold PNG, JPEG or WEBP pictures", "a folder without any"))
        except DataError as problem:
            work.reject(problem)
            continue
        yield from (os.path.join(path, one) for one in found)


def _watched(batches: Iterable[list[Row]], out: Path | None) -> Iterator[list[Row]]:
    """The same, with a count on the terminal where the answers go elsewhere."""
    if quiet() or not sys.stderr.isatty() or (out is None and sys.stdout.isatty()):
        yield from batches
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.completed} inputs"), TimeElapsedColumn()
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        line = bar.add_task("predict", total=None)
        for rows in batches:
            yield rows
            bar.advance(line, len(rows))


def _table(batches: Iterable[list[Row]], kind: str) -> Iterator[str]:
    width = label = 0
    for rows in batches:
        if not width:
            width = min(60, max(4, *(len(clean(r["file"])) for r in rows)))
            label = min(40, max(10, *(len(clean(name)) for r in rows for name, _ in r["top"])))
            yield f"{kind:{width}}  {'prediction':{label}}  confidence\n"
        for row in rows:
            for place, (name, chance) in enumerate(row["top"]):
                file = "" if place else clean(row["file"])
                yield f"{file:{width}}  {clean(name):{label}}  {100 * chance:8.1f} %\n"


def _csv(batches: Iterable[list[Row]], kind: str) -> Iterator[str]:
    first = True
    for rows in batches:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        if first:
            rest = [f"{name}_{k}" for k in range(2, len(rows[0]["top"]) + 1) for name in ("prediction", "confidence")]
            writer.writerow([kind, "prediction", "confidence", *rest])
            first = False
        for row in rows:
            writer.writerow([row["file"], *(cell for name, p in row["top"] for cell in (name, f"{p:.6f}"))])
        yield buffer.getvalue()


def _jsonl(batches: Iterable[list[Row]], kind: str) -> Iterator[str]:
    for rows in batches:
        for row in rows:
            (name, chance), more = row["top"][0], row["top"]
            line: Row = {kind: row["file"], "prediction": name, "confidence": round(chance, 6)}
            if len(more) > 1:
                line["top"] = [{"prediction": n, "confidence": round(p, 6)} for n, p in more]
            yield to_json(line) + "\n"
