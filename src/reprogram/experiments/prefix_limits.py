"""What prompts and prefixes can and cannot do (Petrov, Torr, Bibi, ICLR 2024, arXiv 2310.19698).

Three parts: what a prefix does to one layer of a real model, how much attention prompts take there, and a task that
needs an attention pattern which the frozen model has, against one that it does not have.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from reprogram.core.errors import SourceError, say
from reprogram.core.program import Input, Program
from reprogram.experiments.claims import Row
from reprogram.experiments.experiment import of, values
from reprogram.experiments.options import Options
from reprogram.experiments.prefix_parts import prompt_mass, take_apart
from reprogram.experiments.prefix_shown import charts, remarks, sheets
from reprogram.experiments.sorting import (
    FULL,
    NOTHING,
    How,
    Plan,
    accuracy,
    as_source,
    scores_of,
    tiny_transformer,
    train,
    with_prefix,
)
from reprogram.experiments.study import Cell, Finding, Measure, Study, compared, mean, within
from reprogram.inputs import SoftPrompt
from reprogram.outputs import TokenScores
from reprogram.sources import LanguageSource, load_source

SOURCE = "bundled/smollm2-135m"
TINY = "a tiny random language model"

PROMPT = "This is the log book of a small harbour, written every day in short plain sentences."
PROBES = (
    "The grey ferry left before noon with nine people and two dogs.",
    "Wind from the west all night, and nobody went out to fish.",
)
LEARNING = (
    "The first boat came in at six with mackerel and a torn net.",
    "Fog until ten, then a light wind and good visibility.",
    "The crane is broken again, so the timber stays on the quay.",
    "Two yachts asked for water and left with the evening tide.",
    "Rain in the morning, and the harbour master painted the office.",
    "The trawler will be in dock until Friday for a new propeller.",
)

PROMPT_RATE = 0.01

ROUNDING = {"identity": 1e-5, "relative": 1e-9, "rank": 1e-4}
"""What float32 leaves of a zero: outputs are computed in it, weights taken again from queries and keys in float64."""

NARROW, BROAD = "ascending", "ascending or descending"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done.

    Attributes:
        tokens: of the prefixes that are taken apart.
        steps: of learning a prompt.
        depths: of the sorting transformers, layers.
        small: tokens of a prefix for sorting.
        large: the same where the small one might be said to be too small.
        plan: of sorting.
    """

    tokens: tuple[int, ...] = (1, 8)
    steps: int = 120
    depths: tuple[int, ...] = (1, 2)
    small: int = 8
    large: int = 32
    plan: Plan


WHOLE = Scale(plan=Plan())
QUICK = Scale(tokens=(1, 2), steps=2, depths=(1,), small=2, large=3,
              plan=Plan(width=16, length=3, steps=4, batch=8, test=20))  # fmt: skip


def scale(options: Options) -> Scale:
    """How much of everything."""
    return QUICK if options.quick else WHOLE


def reference(options: Options) -> str:
    """Which language model is looked into."""
    return options.sources[0] if options.sources else TINY if options.quick else SOURCE


def cells(options: Options) -> list[Cell]:
    """Prefixes of each length, prompts, then sorters, seed by seed."""
    chosen, ref = scale(options), reference(options)
    made: list[Cell] = [
        {"name": f"prefix of {n} in each layer", "part": "layers", "source": ref, "tokens": n} for n in chosen.tokens
    ]
    made += [{"name": "attention on prompts", "part": "mass", "source": ref, "steps": chosen.steps}]
    sizes = {"small": chosen.small, "large": chosen.large, "plan": asdict(chosen.plan)}
    for seed in range(1 if options.quick else options.seeds):
        made += [{"name": f"sorting, {depth} layers, seed {seed}", "part": "sorting", "layers": depth, "seed": seed,
                  **sizes} for depth in chosen.depths]  # fmt: skip
    return made


def bench(options: Options) -> Measure:
    """The language model is loaded when a cell needs it."""
    return _Bench(options).measure


@final
class _Bench:
    def __init__(self, options: Options) -> None:
        self.options = options

    @cached_property
    def source(self) -> LanguageSource:
        ref = reference(self.options)
        if ref == TINY:
            from reprogram.testing import tiny_text_source

            return tiny_text_source("llama", layers=3)
        found = load_source(ref)
        if not isinstance(found, LanguageSource):
            raise SourceError(say("sources", "must be a language model", ref))
        return found

    def measure(self, cell: Cell) -> Sequence[Row]:
        if cell["part"] == "layers":
            return self._layers(cell["tokens"])
        if cell["part"] == "mass":
            return self._mass(cell["steps"])
        return sorted_rows(cell["layers"], cell["seed"], scale(self.options))

    def _ids(self, text: str) -> Tensor:
        return torch.tensor([self.source.encode(text)], device=self.source.device)

    def _layers(self, tokens: int) -> list[Row]:
        """A prefix of the prompt's first tokens in one layer after the other; the worse of two texts, mean effects."""
        kept = self.source.keys_values(PROMPT)[:tokens]
        made: list[Row] = []
        for layer in range(self.source.blocks):
            taken = [asdict(take_apart(self.source, self._ids(t), kept[:, layer : layer + 1], layer)) for t in PROBES]
            row: dict[str, Any] = {"part": "layers", "tokens": len(kept), "layer": layer}
            row |= {name: max(t[name] for t in taken) for name in ROUNDING}
            row |= {name: None if taken[0][name] is None else mean([t[name] for t in taken])
                    for name in ("later", "mass", "pull")}  # fmt: skip
            made.append(row)
        return made

    def _mass(self, steps: int) -> list[Row]:
        """Attention on a real prompt, on the same prompt learned, on noise of its scale; and without any."""
        real = self.source.embedded(self._ids(PROMPT))[0].detach()
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(real.shape, generator=generator).to(real) * self.source.embeddings.std()
        inputs = {"none": Input(), "real text": Input(SoftPrompt(real)), "learned": Input(self._learned(real, steps)),
                  "noise": Input(SoftPrompt(noise))}  # fmt: skip
        made: list[Row] = []
        for name, input in inputs.items():
            both = [prompt_mass(self.source, self._ids(t), input) for t in PROBES]
            loss, own = (mean([float(_surprise(self._program(input), self._ids(t)).detach()) for t in texts])
                         for texts in (PROBES, LEARNING))  # fmt: skip
            for layer in range(self.source.blocks):
                mass, first = (mean([pair[k][layer] for pair in both]) for k in (0, 1))
                made.append({"part": "mass", "prompt": name, "tokens": len(real) if name != "none" else 0,
                             "layer": layer, "mass": mass, "first": first, "loss": loss, "own_loss": own})  # fmt: skip
        return made

    def _program(self, input: Input) -> Program:
        return Program(input, self.source, TokenScores())

    def _learned(self, start: Tensor, steps: int) -> SoftPrompt:
        """Prompt tuning on a handful of sentences: Adam, one sentence a step."""
        prompt = SoftPrompt(start)
        program = self._program(Input(prompt))
        optimizer = torch.optim.Adam(prompt.parameters(), lr=PROMPT_RATE)
        for step in range(steps):
            loss = _surprise(program, self._ids(LEARNING[step % len(LEARNING)]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return prompt


def _surprise(program: Program, ids: Tensor) -> Tensor:
    """Mean cross-entropy of the second and later tokens, nats."""
    return nn.functional.cross_entropy(program(ids)[0, :-1], ids[0, 1:])


def sorted_rows(layers: int, seed: int, chosen: Scale) -> list[Row]:
    """Two transformers are trained: one to sort ascending, one in either direction without being told which.

    Each is then given an order: by nothing, by a prefix, and where it knows no such order, by training all its weights.

    Args:
        layers: of both.
        seed: of weights and sequences.
        chosen: how much.
    """
    made: list[Row] = []
    plan = chosen.plan
    known = {NARROW: ["ascending"], BROAD: ["ascending", "descending"]}
    new = {NARROW: "descending", BROAD: "evens first"}
    for trained, orders in known.items():
        model = tiny_transformer(layers, plan, seed)
        train(scores_of(model), model.parameters(), orders, plan, How(rate=plan.rate, seed=3 * seed))
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        source = as_source(model)
        facts = {"part": "sorting", "layers": layers, "seed": seed, "trained": trained}
        asked = [*orders, new[trained]]
        made += [{**facts, "order": o, "way": NOTHING, **accuracy(scores_of(model), o, plan)} for o in asked]
        sizes = [(o, chosen.small) for o in asked] + [(new[trained], chosen.large)]
        for order, tokens in sizes:
            program = with_prefix(source, tokens, plan, seed)
            train(program, program.parameters(), [order], plan, How(rate=plan.prefix_rate, seed=3 * seed + 1))
            made.append({**facts, "order": order, "way": f"prefix of {tokens}", **accuracy(program, order, plan)})
        free = tiny_transformer(layers, plan, seed)
        free.load_state_dict(state)
        train(scores_of(free), free.parameters(), [new[trained]], plan, How(rate=plan.rate, seed=3 * seed + 2))
        made.append({**facts, "order": new[trained], "way": FULL, **accuracy(scores_of(free), new[trained], plan)})
    return made


# -- verdicts ----------------------------------------------------------------------------------------------------------


def judge(rows: Sequence[Row]) -> list[Finding]:
    """The identity layer by layer, then what prefixes make of sorters, depth by depth."""
    parts = of(rows, part="layers")
    where = (
        f"{len(values(parts, 'layer'))} layers, prefixes of {' and '.join(map(str, values(parts, 'tokens')))} tokens"
    )
    made = [
        within("A prefix replaces a share of a head's output by a mean of its values: relative deviation", where,
               [r["identity"] for r in parts], ROUNDING["identity"]),
        within("A prefix leaves the relative attention over content as it is in its own layer: largest change", where,
               [r["relative"] for r in parts], ROUNDING["relative"]),
        within("What n prefix tokens add to a head spans at most n directions: singular value n + 1 over the first",
               where, [r["rank"] for r in parts], ROUNDING["rank"]),
    ]  # fmt: skip
    for depth in values(of(rows, part="sorting"), "layers"):
        made += _sorting(of(rows, part="sorting", layers=depth), f"{depth} layer{'s' if depth > 1 else ''}")
    return made


def _sorting(rows: Sequence[Row], where: str) -> list[Finding]:
    small, large = _prefixes(rows)
    seen, taught, strange = ("descending", BROAD), ("descending", NARROW), ("evens first", BROAD)
    cases = {taught: "descending to a transformer trained on ascending",
             strange: "evens first to a transformer trained on ascending and descending"}  # fmt: skip
    made = [
        compared(f"A prefix elicits {order} from a transformer trained on both orders: accuracy gained over no prefix",
                 where, _gaps(rows, (order, BROAD, small), (order, BROAD, NOTHING)))
        for order in ("ascending", "descending")
    ]  # fmt: skip
    made.append(
        compared("A prefix elicits descending from a transformer that was trained on it rather than from one that was "
                 "not: difference", where, _gaps(rows, (*seen, small), (*taught, small)))
    )  # fmt: skip
    for case, name in cases.items():
        made += [
            compared(f"A {way} fails to teach {name}: share wrong above one half", where,
                     [1 - share for share in _accuracies(rows, *case, way)], above=0.5)
            for way in (small, large)
        ]  # fmt: skip
        made.append(
            compared(f"Training all weights teaches {name}: share right above one half", where,
                     _accuracies(rows, *case, FULL), above=0.5)
        )  # fmt: skip
    return made


def _prefixes(rows: Sequence[Row]) -> tuple[str, str]:
    """The small and the large prefix's names."""
    ways = [way for way in values(rows, "way") if way not in (NOTHING, FULL)]
    return ways[0], ways[-1]


def _accuracies(rows: Sequence[Row], order: str, trained: str, way: str) -> list[float]:
    """One a seed, in the order of seeds."""
    found = of(rows, order=order, trained=trained, way=way)
    return [r["accuracy"] for r in sorted(found, key=lambda r: r["seed"])]


def _gaps(rows: Sequence[Row], one: tuple[str, str, str], other: tuple[str, str, str]) -> list[float]:
    return [a - b for a, b in zip(_accuracies(rows, *one), _accuracies(rows, *other), strict=True)]


def protocol(options: Options) -> list[str]:
    """How it was done."""
    chosen = scale(options)
    plan = chosen.plan
    return [
        f"Layers: {reference(options)}, float32. A prefix is the keys and values of the first tokens of a real text, "
        "in one layer at a time; content positions do not move. Attention weights are computed again in float64.",
        f"Prompts: the same text as a soft prompt, at the start and after {chosen.steps} steps of prompt tuning "
        f"(Adam, {PROMPT_RATE:g}) on {len(LEARNING)} sentences; noise has the scale of the embedding table.",
        f"Sorting: {plan.length} different numbers below 16, Llama blocks of width {plan.width} with 4 heads; "
        f"{plan.steps} steps of Adam on {plan.batch} new sequences each, {plan.rate:g} for weights and "
        f"{plan.prefix_rate:g} for prefixes (keys and values of every layer, from real ones), gradients clipped at 1; "
        f"{plan.test} test sequences.",
    ]


STUDY = Study(
    name="prefix-limits",
    title="What a prefix can and cannot change",
    question="A prefix adds keys and values that do not depend on the content. It is said to bias the output of an "
    "attention layer in fixed directions and to leave relative attention as it is, so that it elicits what a model "
    "can do already and fails where a new attention pattern is needed. Is that so?",
    cells=cells,
    bench=bench,
    judge=judge,
    charts=charts,
    sheets=sheets,
    remarks=remarks,
    protocol=protocol,
    caveats=(
        "The identity is exact mathematics; what is tested is that this library's prefixes obey it in a real model.",
        "Failure to teach is shown for these sizes, rates and steps only. A deeper transformer can do more with a "
        "prefix, because later layers attend differently once their inputs have moved.",
        "One prompt and two texts for the real model: masses say little about others.",
        "Intervals are for the median over seeds, whatever the distribution; they need five seeds.",
    ),
    ready=True,
)
