"""The command `reprogram`: one file a command.

Nothing here imports torch before a command runs, so that `--help` answers at once. Exit codes: 0 done, 1 it failed,
2 the command line or a setting is wrong, 130 and 143 ended by Ctrl-C and by SIGTERM.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from reprogram._version import __version__
from reprogram.cli import _run
from reprogram.cli.cite import cite
from reprogram.cli.combine import combine
from reprogram.cli.compile import compile
from reprogram.cli.demo import demo
from reprogram.cli.describe import describe
from reprogram.cli.diagnose import diagnose
from reprogram.cli.doctor import doctor
from reprogram.cli.evaluate import evaluate
from reprogram.cli.experiment import experiment
from reprogram.cli.export import export
from reprogram.cli.fit import fit
from reprogram.cli.generate import generate
from reprogram.cli.import_ import import_
from reprogram.cli.methods import methods
from reprogram.cli.predict import predict
from reprogram.cli.rank import rank
from reprogram.cli.report import report
from reprogram.cli.search import search
from reprogram.cli.show import show
from reprogram.cli.sources import sites, sources
from reprogram.cli.tasks import tasks

ANYWHERE = "--quiet and --debug may stand before or after the command."

app = typer.Typer(
    name="reprogram",
    epilog=ANYWHERE,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for panel, commands in {
    "Make and use programs": (fit, evaluate, predict, generate, show, report, demo),
    "Change programs": (compile, combine, import_, export),
    "Before training": (describe, diagnose, rank, search, experiment),
    "Look around": (methods, sources, sites, tasks, cite, doctor),
}.items():
    for command in commands:
        app.command(command.__name__.rstrip("_"), rich_help_panel=panel)(command)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"reprogram {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Make frozen pretrained models do new tasks by changing only what goes in and how the answer is read.

    Start with `reprogram demo`, then `reprogram fit --help`.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    if args is None:
        _run.own_process()
    return _run.run(app, list(sys.argv[1:] if args is None else args))


__all__ = ["app", "main"]
