"""`reprogram cite`."""

from pathlib import Path
from typing import Annotated

import typer

from reprogram.cli._run import tell


def cite(
    what: Annotated[str, typer.Argument(metavar="PROGRAM|METHOD", help="A program file, or a method's name.")],
) -> None:
    """Print the BibTeX entry of a program's method.

    Example: `reprogram cite blm >> paper.bib`
    """
    from reprogram.catalogue import find
    from reprogram.store import read

    if Path(what).is_file():
        card = read(what).card
        tell(card.citation or _entry(card.method))
    else:
        tell(find(what).paper.bibtex(what))


def _entry(method: str) -> str:
    from reprogram.catalogue import find

    return find(method).paper.bibtex(method)
