"""The role of attention in prompt tuning (Oymak, Rawat, Soltanolkotabi, Thrampoulidis, ICML 2023, arXiv 2306.03435).

What one layer can do when some tokens of an input matter and others do not: with a learned prompt, with a linear one,
with self-attention and no prompt, and with no attention. The facts it is held against are derived in
`prompt_attention`; the paper's own theorems and constants are not used.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import final

import torch
from torch import Tensor

from reprogram.experiments.attention_shown import charts, remarks, sheets
from reprogram.experiments.claims import Row
from reprogram.experiments.experiment import of, values
from reprogram.experiments.options import Options
from reprogram.experiments.prompt_attention import (
    LINEAR,
    MEAN,
    MODELS,
    PROMPT,
    SELF,
    Descent,
    Kind,
    Mixture,
    Params,
    begin,
    best_prompt,
    ceiling,
    descend,
    draw,
    population,
    prompt_accuracy,
    pull,
    relevant_mass,
    right,
)
from reprogram.experiments.study import Cell, Finding, Measure, Study, compared, within

Data = tuple[Tensor, Tensor, Tensor]

CONTRARY = (Kind(0.5), Kind(0.25, -4.0, 4.0), Kind(0.25, 0.6, 1.0))
"""Half of the examples have silent irrelevant tokens; others speak against the label, far away from the context or
nearly in it. The second kind is what self-attention stumbles over, the third what a linear prompt does."""

HALF = (Kind(0.5), Kind(0.5, 0.0, 1.0))
"""Half of the examples have irrelevant tokens that speak against the label; below a third relevant these win."""

CHOSEN = 8
"""Relevant tokens of 32 at which models are compared."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done.

    Attributes:
        relevant: k, of 32 tokens, where it is varied.
        turning: the same where gradient descent may turn either way.
        runs: starts of every model where the question is what it can do.
        able: how a run is fitted.
        down: plain gradient descent.
        train: examples.
        test: examples.
    """

    relevant: tuple[int, ...] = (4, 8, 10, 14, 20, 28)
    turning: tuple[int, ...] = (4, 8, 14, 18)
    runs: int = 8
    able: Descent
    down: Descent
    train: int = 1000
    test: int = 4000


WHOLE = Scale(able=Descent(steps=400, rate=0.1, adam=True), down=Descent(steps=600, rate=0.3))
QUICK = Scale(relevant=(4, 8), turning=(4, 18), runs=2, able=Descent(steps=5, rate=0.1, adam=True),
              down=Descent(steps=5, rate=0.3), train=40, test=50)  # fmt: skip


def scale(options: Options) -> Scale:
    """How much of everything."""
    return QUICK if options.quick else WHOLE


def cells(options: Options) -> list[Cell]:
    """Four parts, seed by seed."""
    chosen, made = scale(options), list[Cell]()
    for seed in range(1 if options.quick else options.seeds):
        known = {"seed": seed, **asdict(chosen)}
        made += [{"name": f"{part}, seed {seed}", "part": part, **known} for part in PARTS]
    return made


def bench(options: Options) -> Measure:
    """Nothing is shared between cells."""
    chosen = scale(options)
    return lambda cell: [
        {"part": cell["part"], "seed": cell["seed"], **row} for row in PARTS[cell["part"]](cell["seed"], chosen)
    ]


def capacity(seed: int, chosen: Scale) -> list[Row]:
    """Without noise: the best of several starts of every model on all examples there are, and what can be derived."""
    made: list[Row] = []
    for relevant in chosen.relevant:
        mixture = Mixture(tokens=32, relevant=relevant, width=2, noise=0.0, kinds=CONTRARY)
        data = population(mixture)
        for model in MODELS:
            params = begin(model, 2, 1.0, torch.Generator().manual_seed(seed), chosen.runs)
            losses = descend(model, data, params, chosen.able)
            shares = right(model, data, params)
            made.append({"share": mixture.share, "model": model, "accuracy": float(shares.max()),
                         "lowest_loss": float(losses.min()), "ceiling": ceiling(model, mixture)})  # fmt: skip
    return made


def noisy(seed: int, chosen: Scale) -> list[Row]:
    """The same at one share with a little noise and more dimensions: the start of the lowest loss, on test data."""
    mixture = Mixture(tokens=32, relevant=CHOSEN, width=16, noise=0.1, kinds=CONTRARY)
    generator = torch.Generator().manual_seed(seed)
    data, test = _even(mixture, chosen.train // 2, generator), _even(mixture, chosen.test // 2, generator)
    made: list[Row] = []
    for model in MODELS:
        params = begin(model, mixture.width, 1.0, generator, max(1, chosen.runs // 2))
        best = int(descend(model, data, params, chosen.able).argmin())
        one = {name: p[best : best + 1] for name, p in params.items()}
        made.append({"share": mixture.share, "model": model, "accuracy": float(right(model, test, one)),
                     "train_accuracy": float(right(model, data, one))})  # fmt: skip
    return made


def descent(seed: int, chosen: Scale) -> list[Row]:
    """Irrelevant tokens are noise alone: what gradient descent finds, against the best prompt along the context."""
    mixture = Mixture(tokens=64, relevant=8, width=16, noise=0.8)
    generator = torch.Generator().manual_seed(seed)
    data, test = _even(mixture, chosen.train, generator), _even(mixture, chosen.test, generator)
    best = max(right(PROMPT, test, _along(mixture, 0.05 * i)).item() for i in range(41))
    row: Row = {"share": mixture.share, "model": PROMPT, **_descended(mixture, data, test, generator, chosen),
                "best": best, "derived_best": prompt_accuracy(mixture, best_prompt(mixture)),
                "at_derived": float(right(PROMPT, test, _along(mixture, best_prompt(mixture))))}  # fmt: skip
    bare = begin(MEAN, mixture.width, 0.01, generator)
    descend(MEAN, data, bare, chosen.down)
    mean: Row = {"share": mixture.share, "model": MEAN, "accuracy": float(right(MEAN, test, bare)),
                 "derived_best": prompt_accuracy(mixture, 0.0)}  # fmt: skip
    return [row, mean]


def turning(seed: int, chosen: Scale) -> list[Row]:
    """Irrelevant tokens may speak against the label: to which tokens gradient descent takes the prompt."""
    made: list[Row] = []
    for relevant in chosen.turning:
        mixture = Mixture(tokens=32, relevant=relevant, width=16, noise=0.3, kinds=HALF)
        generator = torch.Generator().manual_seed(seed)
        data, test = _even(mixture, chosen.train, generator), _even(mixture, chosen.test, generator)
        made.append({"share": mixture.share, "model": PROMPT, "pull": pull(mixture),
                     **_descended(mixture, data, test, generator, chosen)})  # fmt: skip
    return made


PARTS = {"capacity": capacity, "noisy": noisy, "descent": descent, "turning": turning}


def _even(mixture: Mixture, count: int, generator: torch.Generator) -> Data:
    x, y = draw(mixture, count, generator)
    return x, y, torch.full((count,), 1 / count)


def _along(mixture: Mixture, kappa: float) -> Params:
    """The prompt kappa q* and the head w*."""
    axes = torch.eye(mixture.width)
    return {"prompt": kappa * axes[:1], "head": axes[1:2]}


def _descended(mixture: Mixture, data: Data, test: Data, generator: torch.Generator, chosen: Scale) -> Row:
    """The softmax prompt from nearly zero: accuracy, attention and direction at the end, and the way there."""
    params = begin(PROMPT, mixture.width, 0.01, generator)
    way: list[tuple[int, float, float]] = []
    every = max(1, chosen.down.steps // 30)

    def look(step: int, now: Params) -> None:
        if step % every == 0:
            mass = relevant_mass(PROMPT, test[0], mixture.relevant, now)
            way.append((step, float(mass), float(right(PROMPT, test, now))))

    descend(PROMPT, data, params, chosen.down, look)
    prompt, head = params["prompt"][0], params["head"][0]
    return {"accuracy": way[-1][2], "best_on_the_way": max(a for _, _, a in way), "mass_before": way[0][1],
            "mass": way[-1][1], "kappa": float(prompt[0]), "cosine": float(prompt[0] / prompt.norm()),
            "head_cosine": float(head[1] / head.norm()), "way": way}  # fmt: skip


# -- verdicts ----------------------------------------------------------------------------------------------------------


def judge(rows: Sequence[Row]) -> list[Finding]:
    """What the models can do, then what gradient descent finds."""
    exact = of(rows, part="capacity")
    known = [r for r in exact if r["ceiling"] is not None]
    made = [within("No model beats what can be derived for it: accuracy above its ceiling",
                   f"no noise, {len(values(exact, 'share'))} shares of relevant tokens",
                   [max(0.0, r["accuracy"] - r["ceiling"]) for r in known], 1e-6)]  # fmt: skip
    where = {"capacity": "no noise", "noisy": "noise 0.1, test data"}
    for part, noise in where.items():
        some = of(rows, part=part, share=CHOSEN / 32)
        name = f"{noise}, a quarter of the tokens relevant"
        mine = _column(some, PROMPT)
        made.append(compared("A softmax prompt gets nearly all right: accuracy above 99 %", name, mine, above=0.99))
        made += [
            compared(f"A softmax prompt does better than {other}: difference", name, _minus(mine, _column(some, model)))
            for model, other in ((SELF, "self-attention without a prompt"), (LINEAR, "a linear prompt"),
                                 (MEAN, "no attention"))
        ]  # fmt: skip
    return made + _found(of(rows, part="descent"), of(rows, part="turning"))


def _found(descents: Sequence[Row], turns: Sequence[Row]) -> list[Finding]:
    where = "noise for irrelevant tokens, an eighth relevant"
    mine = of(descents, model=PROMPT)
    made = [
        compared("Gradient descent brings attention to relevant tokens: mass gained", where,
                 [r["mass"] - r["mass_before"] for r in mine]),
        compared("Gradient descent finds the context's direction: cosine of prompt and context above 0.9", where,
                 [r["cosine"] for r in mine], above=0.9),
        compared("Gradient descent ends within two points of the best prompt along the context: accuracy less the "
                 "best's, above -2 %", where, [r["accuracy"] - r["best"] for r in mine], above=-0.02),
        compared("A prompt found by gradient descent does better than no attention: difference", where,
                 _minus([r["accuracy"] for r in mine], _column(descents, MEAN))),
        within("The closed form of the best prompt's accuracy is right: difference to test data", where,
               [abs(r["at_derived"] - r["derived_best"]) for r in mine], 0.02),
    ]  # fmt: skip
    for share in values(turns, "share"):
        some = of(turns, share=share)
        towards = some[0]["pull"] > 0
        text = "Relevant tokens win on average, and attention goes to them: mass" if towards else \
            "Irrelevant tokens win on average, and attention goes to those: mass"  # fmt: skip
        mass = [r["mass"] if towards else 1 - r["mass"] for r in some]
        made.append(compared(f"{text} above one half", f"{share:.1%} relevant, pull {some[0]['pull']:+.2f}", mass,
                             above=0.5))  # fmt: skip
    return made


def _column(rows: Sequence[Row], model: str) -> list[float]:
    """Accuracies, one a seed, in the order of seeds."""
    return [r["accuracy"] for r in sorted(of(rows, model=model), key=lambda r: r["seed"])]


def _minus(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def protocol(options: Options) -> list[str]:
    """How it was done."""
    chosen = scale(options)
    how = "relevant tokens are q* + y w*, the others c q* - m y w* + noise, with (share, c, m)"
    return [
        f"Can do: {how} of {_listed(CONTRARY)}; 32 tokens. The best of {chosen.runs} normal starts, "
        f"{chosen.able.steps} steps of Adam ({chosen.able.rate:g}, cosine), all examples with their shares; with "
        f"noise 0.1 half as many starts in 16 dimensions on {chosen.train // 2} examples, scored on "
        f"{chosen.test // 2}.",
        f"Found: {chosen.down.steps} steps of gradient descent ({chosen.down.rate:g}) from 0.01 on {chosen.train} "
        f"examples in 16 dimensions, scored on {chosen.test}. 64 tokens, 8 of them relevant, the others noise of 0.8; "
        f"then 32 tokens, noise 0.3, and {_listed(HALF)}.",
        "The loss is the logistic one, the head has no bias. Best prompt: the best of kappa q*, kappa in 0, 0.05 … 2, "
        "with the head w*, chosen on the test data itself.",
    ]  # fmt: skip


def _listed(kinds: Sequence[Kind]) -> str:
    return ", ".join(f"({k.share:g}, {k.context:g}, {k.against:g})" for k in kinds)


STUDY = Study(
    name="attention-role",
    title="The role of attention in prompt tuning",
    question="Some tokens of an input matter and others mislead. A prompt that attention compares tokens with is said "
    "to do what self-attention without a prompt and a linear prompt cannot, and gradient descent to find it. Is that "
    "so, in one layer?",
    cells=cells,
    bench=bench,
    judge=judge,
    charts=charts,
    sheets=sheets,
    remarks=remarks,
    protocol=protocol,
    caveats=(
        "The mixtures were made for the differences to show; they are in the spirit of the paper's, and its theorems "
        "and constants were not checked.",
        "The ceilings hold without noise only: the ones of the mean and the linear prompt by a search over angles, "
        "that of self-attention by a short argument (see `prompt_attention`).",
        "Best prompt means best along the context with the head w*; that no other is better is not shown.",
        "Intervals are for the median over seeds, whatever the distribution; they need five seeds. Without noise, "
        "seeds differ in the starts only.",
    ),
)
