"""What `attention-role` shows of its rows: sentences, tables and charts."""

from collections.abc import Sequence

from reprogram.experiments.claims import Row
from reprogram.experiments.experiment import of, values
from reprogram.experiments.prompt_attention import MEAN, PROMPT
from reprogram.experiments.study import median
from reprogram.report.experiment import Axis, Chart, Point, Sheet, marks


def remarks(rows: Sequence[Row]) -> list[str]:
    """What holds by the numbers beyond the verdicts."""
    mine = of(rows, part="descent", model=PROMPT)
    bare = of(rows, part="descent", model=MEAN)
    made = [
        f"Gradient descent on noise: the prompt ends at {_of(mine, 'kappa'):.2f} along the context, attention on the "
        f"relevant eighth goes from {_of(mine, 'mass_before'):.1%} to {_of(mine, 'mass'):.1%}, accuracy "
        f"{_of(mine, 'accuracy'):.1%}; it was {_of(mine, 'best_on_the_way'):.1%} at its best on the way, "
        f"{_of(mine, 'best'):.1%} is the best prompt's and {mine[0]['derived_best']:.1%} its closed form; "
        f"{_of(bare, 'accuracy'):.1%} without attention, whose closed form is {bare[0]['derived_best']:.1%}."
    ]
    for model in values(of(rows, part="noisy"), "model"):
        some = of(rows, part="noisy", model=model)
        exact = of(rows, part="capacity", model=model, share=some[0]["share"])
        made.append(f"A quarter relevant, {model}: {_of(exact, 'accuracy'):.1%} without noise ({_ceiling(exact)}), "
                    f"{_of(some, 'accuracy'):.1%} on test data with noise 0.1 "
                    f"({_of(some, 'train_accuracy'):.1%} on its own).")  # fmt: skip
    return made


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """What models can do by the share of relevant tokens, and where gradient descent goes."""
    exact, turns = of(rows, part="capacity"), of(rows, part="turning")
    models = values(exact, "model")
    lines: list[tuple[str, ...]] = []
    for share in values(exact, "share"):
        groups = [of(exact, share=share, model=m) for m in models]
        lines.append((f"{share:.1%}", *(f"{_of(g, 'accuracy'):.1%} ({_ceiling(g)})" for g in groups)))
    turned = [
        (f"{share:.1%}", f"{some[0]['pull']:+.3f}", f"{_of(some, 'mass_before'):.1%}", f"{_of(some, 'mass'):.1%}",
         f"{_of(some, 'cosine'):+.2f}", f"{_of(some, 'head_cosine'):+.2f}", f"{_of(some, 'accuracy'):.1%}")
        for share in values(turns, "share") for some in [of(turns, share=share)]
    ]  # fmt: skip
    return [
        Sheet(title="What each model can do, without noise", heads=("relevant tokens", *models), rows=lines,
              note="Medians over seeds of the best of several starts; in brackets what can be derived to be the most. "
              "A fit minimises the logistic loss, not the errors, so it may stay below a ceiling that can be reached."),
        Sheet(title="Where gradient descent takes the prompt", rows=turned,
              heads=("relevant tokens", "pull", "mass before", "mass after", "prompt with context", "head with label",
                     "accuracy"),
              note="Medians over seeds. Pull: the label's mean signal in an average over tokens. Where it is negative "
              "the head turns against the label first, and the prompt then away from the context."),
    ]  # fmt: skip


def charts(rows: Sequence[Row]) -> list[Chart]:
    """Accuracy by the share of relevant tokens, and attention on them against training."""
    exact = of(rows, part="capacity")
    able = {
        model: [Point(s, _of(of(exact, share=s, model=model), "accuracy"), f"{model}, {s:.1%} relevant")
                for s in values(exact, "share")]
        for model in values(exact, "model")
    }  # fmt: skip
    ways = {
        f"{r['share']:.1%} relevant{', others noise' if r['part'] == 'descent' else ''}": [
            Point(float(step), mass, f"step {step}, accuracy {accuracy:.1%}") for step, mass, accuracy in r["way"]
        ]
        for r in rows if r.get("way") and r["seed"] == rows[0]["seed"]
    }  # fmt: skip
    share, right = Axis(title="relevant tokens", share=True), Axis(title="accuracy", share=True)
    return [
        Chart(name="able", label="Accuracy by the share of relevant tokens.",
              caption="What each model can do without noise, by the share of relevant tokens; medians over seeds.",
              figure=marks(able, share, right, joined=True)),
        Chart(name="mass", label="Attention on relevant tokens against training.",
              caption="Attention on relevant tokens against steps of gradient descent, first seed.",
              figure=marks(ways, Axis(title="step"), Axis(title="attention on relevant tokens", share=True),
                           joined=True)),
    ]  # fmt: skip


def _of(rows: Sequence[Row], column: str) -> float:
    return median([r[column] for r in rows])


def _ceiling(rows: Sequence[Row]) -> str:
    most = rows[0]["ceiling"]
    return "not known" if most is None else f"at most {most:.1%}"
