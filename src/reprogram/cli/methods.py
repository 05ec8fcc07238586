"""`reprogram methods`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reprogram.cli._run import Json, emit, grid, pairs, tell
from reprogram.cli.show import flat

if TYPE_CHECKING:
    from reprogram.core.method import Method


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A method, to see its settings.")] = None,
    configuration: Annotated[str | None, typer.Option(help="learnable or fixed.")] = None,
    location: Annotated[str | None, typer.Option(help="input, embedding or hidden.")] = None,
    operator: Annotated[str | None, typer.Option(help="additive, concatenative or parametric.")] = None,
    alignment: Annotated[str | None, typer.Option(help="identity, rule-based, linear or statistical.")] = None,
    json: Json = False,
) -> None:
    """List the methods, or show one's settings.

    The axes of the taxonomy choose among them; with a name, its settings, presets and paper are shown.

    Example: `reprogram methods --alignment statistical`
    """
    from reprogram.catalogue import find
    from reprogram.catalogue import methods as matching

    if name is not None:
        card = find(name)
        emit(_facts(card)) if json else _one(card)
        return
    axes = {"configuration": configuration, "location": location, "operator": operator, "alignment": alignment}
    found = matching(**{axis: value for axis, value in axes.items() if value is not None})
    if json:
        emit([_facts(card) for card in found])
    else:
        heads = ["method", "year", "taxonomy", "summary"]
        tell(grid(heads, ([m.name, m.paper.year, m.taxonomy, m.summary] for m in found)))


def _one(card: "Method") -> None:
    settings = flat(asdict(card.config()))
    tell(pairs({"method": card.name, "summary": card.summary, "taxonomy": card.taxonomy, "paper": _paper(card)}))
    tell()
    columns = {preset: flat(dict(values)) for preset, values in card.presets.items()}
    rows = [[k, v, *(c.get(k, "") for c in columns.values())] for k, v in settings.items()]
    tell(grid(["setting", "paper", *columns], rows))


def _paper(card: "Method") -> str:
    paper = card.paper
    where = ", ".join(filter(None, [paper.venue, str(paper.year), paper.arxiv and f"arXiv:{paper.arxiv}"]))
    return f"{paper.authors}: {paper.title}. {where}"


def _facts(card: "Method") -> dict[str, Any]:
    return {
        "name": card.name,
        "summary": card.summary,
        "taxonomy": card.taxonomy.axes(),
        "control": card.control,
        "needs": sorted(map(str, card.needs)),
        "paper": asdict(card.paper),
        "settings": asdict(card.config()),
        "presets": {name: dict(values) for name, values in card.presets.items()},
    }
