"""How every command runs: flags that may stand anywhere, errors as one line, exit codes, signals, where text goes.

Results go to stdout, everything else to stderr. With `--json`, stdout carries one JSON document and nothing else,
whatever libraries print.
"""

import contextlib
import io
import json
import logging
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reprogram.core.errors import ConfigError, ReprogramError
from reprogram.core.plain import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 100
"""Lines are at most this long, on wider terminals too."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

_USAGE: type[Exception] = typer.BadParameter.__mro__[1]  # click's UsageError, wherever typer keeps it


@dataclass(slots=True)
class _State:
    """What the command line asked for; set anew by each `run`."""

    quiet: bool = False
    debug: bool = False
    json: bool = False
    answered: bool = False
    stdout: Any = None


_state = _State()


# -- running -----------------------------------------------------------------------------------------------------------


def run(app: typer.Typer, args: list[str]) -> int:
    """Run a command line with errors as one line; returns the exit code."""
    args = args or ["--help"]
    quiet, debug = _take(args, "--quiet", "-q"), _take(args, "--debug")
    own = args[: args.index("--")] if "--" in args else args
    _state.quiet, _state.debug, _state.json = quiet, debug, "--json" in own
    _state.answered, _state.stdout = False, sys.stdout
    _tolerate(sys.stdout, sys.stderr)
    caught: list[int] = []
    with _signals(caught), _listening(), contextlib.ExitStack() as stack:
        if _state.json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        try:
            code = app(args=args, prog_name="reprogram", standalone_mode=False)
        except Exception as problem:
            code = _explain(problem)
        except KeyboardInterrupt:
            code = 130
    if caught:
        note(f"Interrupted by {signal.Signals(caught[0]).name}.")
        return 128 + caught[0]
    return int(code or 0)


def own_process() -> None:
    """The process is ours: other libraries' warnings to programmers are not the user's business."""
    if not sys.warnoptions and "--debug" not in sys.argv:
        warnings.simplefilter("ignore")


def quiet() -> bool:
    """True if only results and errors are wanted."""
    return _state.quiet


def _take(args: list[str], *names: str) -> bool:
    """Take a flag out of the arguments, wherever it stands before a `--`."""
    end = args.index("--") if "--" in args else len(args)
    kept = [a for a in args[:end] if a not in names]
    found = len(kept) < end
    args[:end] = kept
    return found


def _tolerate(*streams: object) -> None:
    """Let text that the terminal has no letters for come out escaped instead of failing."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _signals(caught: list[int]) -> Generator[None]:
    """SIGTERM interrupts as Ctrl-C does, so that a fit saves its checkpoint; the first signal is remembered."""

    def interrupt(number: int, _: object) -> None:
        caught.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _listening() -> Generator[None]:
    """Show the library's log as short lines on stderr."""
    log = logging.getLogger("reprogram")
    handler = _Lines(logging.DEBUG if _state.debug else logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """A line for a record."""
        if record.levelno >= logging.WARNING:
            warn(record.getMessage())
        else:
            note(record.getMessage())


# -- errors ------------------------------------------------------------------------------------------------------------


def _explain(problem: Exception) -> int:
    """Say what went wrong, in one line, and choose the exit code."""
    if _state.debug:
        traceback.print_exception(problem)
    if isinstance(problem, BrokenPipeError):  # the reader of our output has gone
        return 1
    code, text = _verdict(problem)
    fail(text)
    if _state.json and not _state.answered:
        emit({"error": {"kind": type(problem).__name__, "message": one_line(text)}})
    return code


def _verdict(problem: Exception) -> tuple[int, str]:
    if isinstance(problem, _USAGE):
        context: Any = getattr(problem, "ctx", None)
        where = context.command_path if context else "reprogram"
        message: Any = getattr(problem, "format_message")  # noqa: B009 (typer hides the type)
        return 2, f"{message()} Try `{where} --help`."
    if isinstance(problem, ReprogramError):
        return 2 if isinstance(problem, ConfigError) else 1, str(problem)
    if isinstance(problem, OSError):
        return 1, str(problem)
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return 1, "Out of memory. Try a smaller --set batch_size=..., a smaller --set canvas=..., or --limit-train."
    bug = "" if _state.debug else " (this is a bug, run with --debug)"
    return 1, f"{type(problem).__name__}: {problem}{bug}"


# -- text --------------------------------------------------------------------------------------------------------------


def console(*, stderr: bool = False) -> "Console":
    """Where text goes. User text is shown as it is, never read as markup."""
    from rich.console import Console

    made = Console(file=sys.stderr if stderr else sys.stdout, markup=False, highlight=False, emoji=False)
    made.width = min(made.width, WIDTH) if made.is_terminal else WIDTH
    return made


def tell(text: object = "") -> None:
    """A line of the result, or a table, on stdout."""
    console().print(clean(text) if isinstance(text, str) else text, soft_wrap=isinstance(text, str))


def note(text: str) -> None:
    """A line about what is going on, on stderr; not with --quiet."""
    if not _state.quiet:
        console(stderr=True).print(one_line(text), style="dim", soft_wrap=True)


def warn(text: str) -> None:
    """A warning, on stderr; not with --quiet."""
    if not _state.quiet:
        console(stderr=True).print(f"warning: {one_line(text)}", style="yellow", soft_wrap=True)


def fail(text: str) -> None:
    """An error, on stderr."""
    console(stderr=True).print(f"error: {one_line(text)}", style="red", soft_wrap=True)


def emit(document: object) -> None:
    """The one JSON document on stdout."""
    stream = _state.stdout or sys.stdout
    stream.write(to_json(document, indent=2) + "\n")
    stream.flush()
    _state.answered = True


def to_json(value: object, *, indent: int | None = None) -> str:
    """JSON that stdout can write, whatever its encoding."""
    encoding = (_state.stdout or sys.stdout).encoding or ""
    utf8 = encoding.lower().replace("-", "") == "utf8"
    return json.dumps(plain(value), ensure_ascii=not utf8, indent=indent, allow_nan=False)


def clean(text: str) -> str:
    r"""Text without control characters, which in a file's name could drive the terminal.

    >>> clean("a\x1b[31mb\nc")
    'a�[31mb\nc'
    """
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def one_line(text: str) -> str:
    r"""Text on one line.

    >>> one_line("a\n  b")
    'a b'
    """
    return clean(" ".join(text.split()))


def grid(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> "Table":
    """A table of aligned columns without lines; columns named in `right` are set flush right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(clean(str(cell)) for cell in row))
    return table


def pairs(facts: Mapping[str, object]) -> "Table":
    """Names and values, one pair a line; pairs without a value are left out."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value not in (None, ""):
            table.add_row(name, clean(str(value)))
    return table
