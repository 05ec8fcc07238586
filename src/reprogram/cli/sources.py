"""`reprogram sources` and `reprogram sites`."""

from typing import Annotated

import typer

from reprogram.cli._run import Json, emit, grid, note, tell


def sources(json: Json = False) -> None:
    """List the source models that can be loaded.

    Example: `reprogram sources`
    """
    from reprogram.sources import source_refs

    found = source_refs()
    if json:
        emit([{"ref": ref, "about": about} for ref, about in found.items()])
    else:
        tell(grid(["source", "about"], found.items()))


def sites(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="For example bundled/efficientnet-lite0.")],
    everything: Annotated[bool, typer.Option("--all", help="Every module's path, too.")] = False,
    json: Json = False,
) -> None:
    """List the sites of a source, where programs act.

    Example: `reprogram sites bundled/efficientnet-lite0`
    """
    from reprogram.sources import load_source

    found = {name: str(location) for name, location in load_source(source).sites.items()}
    main = {n: v for n, v in found.items() if n in ("input", "normalised", "embedding") or n.startswith("hidden.")}
    shown = found if everything else main
    if json:
        emit([{"site": name, "location": location} for name, location in shown.items()])
        return
    tell(grid(["site", "location"], shown.items()))
    if len(shown) < len(found):
        note(f"{len(found) - len(shown)} more with --all")
