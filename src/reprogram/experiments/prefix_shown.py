"""What `prefix-limits` shows of its rows: sentences, tables and charts."""

from collections.abc import Sequence

from reprogram.experiments.claims import Row
from reprogram.experiments.experiment import of, values
from reprogram.experiments.sorting import NOTHING
from reprogram.experiments.study import mean, median, median_interval
from reprogram.report.experiment import Axis, Chart, Point, Sheet, marks


def remarks(rows: Sequence[Row]) -> list[str]:
    """What holds by the numbers beyond the verdicts."""
    made: list[str] = []
    for n in values(of(rows, part="layers"), "tokens"):
        some = of(rows, part="layers", tokens=n)
        later = [r["later"] for r in some if r["later"] is not None]
        made.append(
            f"A prefix of {n} in one layer takes {mean([r['mass'] for r in some]):.1%} of that layer's attention "
            f"({min(r['mass'] for r in some):.1%} to {max(r['mass'] for r in some):.1%} over layers) and changes its "
            f"output by {mean([r['pull'] for r in some]):.0%} of its size. Relative attention over content stays in "
            f"that layer and moves by {mean(later):.1%} (total variation) in those after it: a deep model can use a "
            "prefix to change later attention, one layer cannot."
        )
    bare = of(rows, part="mass", prompt="none")
    for name in [p for p in values(of(rows, part="mass"), "prompt") if p != "none"]:
        some = of(rows, part="mass", prompt=name)
        made.append(
            f"A prompt of {some[0]['tokens']} tokens ({name}) takes {mean([r['mass'] for r in some]):.1%} of the "
            f"attention, mean over layers; the text's first token falls from {mean([r['first'] for r in bare]):.1%} "
            f"to {mean([r['first'] for r in some]):.1%}. Loss {some[0]['loss']:.2f} nats a token "
            f"({some[0]['own_loss']:.2f} on the sentences of prompt tuning), without prompt {bare[0]['loss']:.2f} "
            f"({bare[0]['own_loss']:.2f})."
        )
    return made


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Sorting, then layers, then prompts."""
    return [_sorting_sheet(of(rows, part="sorting")), _layer_sheet(rows), _mass_sheet(of(rows, part="mass"))]


def _sorting_sheet(rows: Sequence[Row]) -> Sheet:
    lines: list[tuple[str, ...]] = []
    groups = dict.fromkeys((r["layers"], r["trained"], r["order"], r["way"]) for r in rows)
    for depth, trained, order, way in groups:
        some = of(rows, layers=depth, trained=trained, order=order, way=way)
        shares = [r["accuracy"] for r in some]
        span = median_interval(shares)
        lines.append((
            str(depth), trained, order, way, f"{median(shares):.1%}",
            "–" if span is None else f"{span[0]:.1%} to {span[1]:.1%}", f"{median([r['numbers'] for r in some]):.1%}",
        ))  # fmt: skip
    return Sheet(
        title="Sorting", rows=lines,
        heads=("layers", "trained on", "asked for", "changed", "all right", "90 % interval", "numbers right"),
        note="Medians over seeds. All right: every number of the answer. A transformer trained on both orders is not "
        "told which is wanted, so without a prefix it gets about half of each.",
    )  # fmt: skip


def _layer_sheet(rows: Sequence[Row]) -> Sheet:
    lines = [
        (str(r["tokens"]), str(r["layer"]), f"{r['identity']:.1e}", f"{r['relative']:.1e}", f"{r['rank']:.1e}",
         f"{r['mass']:.1%}", f"{r['pull']:.1%}", "–" if r["later"] is None else f"{r['later']:.1%}")
        for r in of(rows, part="layers")
    ]  # fmt: skip
    heads = ("prefix", "layer", "off the identity", "relative attention moves", "beyond n directions", "mass",
             "output moves", "later attention moves")  # fmt: skip
    note = "The first three are zero up to rounding if the theory holds: the worst of two texts."
    return Sheet(title="A prefix in one layer", heads=heads, rows=lines, note=note)


def _mass_sheet(rows: Sequence[Row]) -> Sheet:
    names = values(rows, "prompt")
    lines: list[tuple[str, ...]] = []
    for layer in values(rows, "layer"):
        found = {name: of(rows, prompt=name, layer=layer)[0] for name in names}
        lines.append((str(layer), *(f"{found[n]['mass']:.1%} / {found[n]['first']:.1%}" for n in names)))
    note = "Mass on the prompt / on the text's own first token, mean over heads and later positions."
    return Sheet(title="Attention on prompts", heads=("layer", *names), rows=lines, note=note)


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Mass by layer, the identity by layer, and accuracy of sorters."""
    layer, share = Axis(title="layer"), Axis(title="attention on the prompt", share=True)
    mass = {
        name: [Point(float(r["layer"]), r["mass"], f"{name}, layer {r['layer']}") for r in of(rows, prompt=name)]
        for name in values(of(rows, part="mass"), "prompt")
        if name != "none"
    }
    identity = {
        f"prefix of {n}": [Point(float(r["layer"]), r["identity"], f"layer {r['layer']}") for r in of(rows, tokens=n)
                           if r["part"] == "layers"]
        for n in values(of(rows, part="layers"), "tokens")
    }  # fmt: skip
    return [
        Chart(name="mass", label="Attention on prompts by layer.", figure=marks(mass, layer, share, joined=True),
              caption="Share of attention that prompts take in each layer: real text, the same learned, and noise."),
        Chart(name="identity", label="Deviation from the identity by layer.",
              figure=marks(identity, layer, Axis(title="relative deviation", log=True)),
              caption="How far a layer's output with a prefix is from what the identity says: rounding."),
        _sorting_chart(of(rows, part="sorting")),
    ]  # fmt: skip


def _sorting_chart(rows: Sequence[Row]) -> Chart:
    kinds = dict.fromkeys((r["trained"], r["order"]) for r in rows if r["way"] != NOTHING)
    places = {kind: float(i + 1) for i, kind in enumerate(kinds)}
    groups: dict[str, list[Point]] = {}
    for r in rows:
        if (r["trained"], r["order"]) in places:
            name = f"{r['trained']}, asked for {r['order']}, {r['layers']} layers, seed {r['seed']}"
            groups.setdefault(r["way"], []).append(Point(places[r["trained"], r["order"]], r["accuracy"], name))
    listed = "; ".join(f"{place:.0f}: trained on {t}, asked for {o}" for (t, o), place in places.items())
    return Chart(name="sorting", label="Accuracy of sorting, every seed.", caption=f"Every seed and depth. {listed}.",
                 figure=marks(groups, Axis(title="case"), Axis(title="sequences all right", share=True)))  # fmt: skip
