"""Small text tasks in words that every tiny tokenizer knows, and a tiny vision transformer, for tests of methods."""

import random
from functools import lru_cache

import reprogram as rp
from reprogram.catalogue import setting_names
from reprogram.core.method import Method
from reprogram.core.source import Capability, Source
from reprogram.sources import ModuleSource
from reprogram.tasks import Task
from reprogram.testing import scripted_source, tiny_language_model, tiny_source, tiny_task, tiny_text_source
from reprogram.testing.image_text import tiny_dual_source
from reprogram.testing.oracle import Brightest, CopiesLabel, OracleSource, PointAt, Rule

WORDS = {"bad": ("awful", "dull", "poor"), "funny": ("hot", "big", "odd"), "good": ("fine", "great", "best")}


@lru_cache
def opinions(n: int = 48) -> Task:
    """Sentences in which one word decides the class."""
    draw, rows, labels = random.Random(0), [], []
    for i in range(n):
        name = list(WORDS)[i % 3]
        thing, kind = draw.choice(("film", "plot", "book")), draw.choice(("long", "short", "new"))
        rows.append(f"the {thing} was {draw.choice(WORDS[name])} and {kind} ({i})")
        labels.append(name)
    return Task.from_texts(rows, labels, name="opinions")


@lru_cache
def pairs(n: int = 48) -> Task:
    """Two sentences, which say the same or not."""
    draw, rows, labels = random.Random(1), [], []
    for i in range(n):
        one = f"the {draw.choice(('film', 'plot', 'book'))} {i} was"
        same = bool(i % 2)
        first = draw.choice(("good", "bad"))
        second = first if same else {"good": "bad", "bad": "good"}[first]
        rows.append((f"{one} {first}", f"{one} {second}"))
        labels.append("same" if same else "other")
    return Task.from_texts(rows, labels, name="pairs")


@lru_cache
def orders(n: int = 40) -> Task:
    """What to write is the last word, twice."""
    draw = random.Random(2)
    words = [draw.choice(("film", "book", "game")) for _ in range(n)]
    rows = [f"number {i} get the {word}" for i, word in enumerate(words)]
    return Task.from_texts(rows, targets=[f"{word} {word}" for word in words], name="orders")


@lru_cache
def vision_transformer() -> ModuleSource:
    """16 x 16 pixels in patches of 4, two blocks, width 32."""
    model, _ = tiny_language_model("vit")
    blocks = next(path for path, _ in model.named_modules() if path.endswith(("encoder.layer", "vit.layers")))
    return rp.wrap(model, input_shape=(3, 16, 16), sites=f"{blocks}.*", tokens=True, width=32, resizable=False)


_VISUAL: dict[str, tuple[Rule, dict[str, object]]] = {
    "set_of_mark": (Brightest(), {"regions": "grid", "rows": 3, "columns": 1, "answer": "mark", "size": 96}),
    "pivot": (PointAt(0.5, 0.9), {"rows": 3, "size": 160, "rounds": 2, "first": 6, "later": 4}),
    "vtprompt": (Brightest(tiny_task().classes), {"regions": "grid", "rows": 3, "columns": 1, "size": 96}),
    "visual_icl": (CopiesLabel(tiny_task().classes), {"canvas": 64}),
}
"""What each method of visual prompts is tested with: a rule for the oracle, and settings."""


_DUAL: dict[str, dict[str, object]] = {
    "argue": {"attributes": {f"class {i}": [f"{w} bar", f"a {w} place", f"bar at {i}", "noise"]
                             for i, w in enumerate(("red", "green", "blue"))}},
    "attrvr": {"descriptions": {f"class {i}": {"descriptive": [f"a {w} bar", f"{w} at {i}"], "distinctive": f"only {w}"}
                                for i, w in enumerate(("red", "green", "blue"))}},
    "dvp": {"descriptions": {f"class {i}": {f"cause_{n}": [f"{w} {n}", f"a {w} bar {n}"] for n in (1, 2, 3)}
                             for i, w in enumerate(("red", "green", "blue"))}},
}  # fmt: skip
"""Settings of methods that need an image-text source, where their defaults do not suit a tiny one."""


def pairs_of_towers(method: Method) -> dict[str, object]:
    """Settings for a tiny pair of towers."""
    few = {"tokens": 4} if "tokens" in setting_names(method) else {}
    return {**few, **_DUAL.get(method.name, {})}


def suiting(method: Method) -> tuple[Source | None, Task | None, dict[str, object]]:  # noqa: PLR0911 - a table
    """A source, a task and settings for the contract test; None for the contract's own."""
    if method.name in _VISUAL:
        rule, settings = _VISUAL[method.name]
        return OracleSource(rule), tiny_task(), settings
    if method.name.startswith("vpt"):
        return vision_transformer(), tiny_task(), {"tokens": 4}
    if method.name in ("transhp", "refine", "evp_explicit"):
        sources = {"transhp": vision_transformer, "refine": lambda: tiny_source(classes=3)}
        settings = {"refine": {"channels": 4}, "evp_explicit": {"decoder": 8}}
        return sources.get(method.name, tiny_source)(), tiny_task(), settings.get(method.name, {})
    if method.name in ("few_shot", "structured_prompting"):
        return tiny_text_source("gpt2"), opinions(), {"shots": 2}
    if method.name in ("chain_of_thought", "zero_shot_cot", "self_consistency", "least_to_most", "decomposed", "ircot"):
        found = (("Film", "the film was shot"), ("Book", "the book was printed"))
        more = {"passages": found} if method.name == "ircot" else {}
        return scripted_source([("", "So it is. The answer is (B).")]), opinions(), more
    if method.name in ("cupl", "zpe"):
        given = {"bad": ["awful and dull", "poor"], "funny": "a big odd story", "good": ["fine", "great"]}
        return tiny_text_source("bert_encoder"), opinions(), {"descriptions": given} if method.name == "cupl" else {}
    if Capability.CLASS_TEXTS in method.needs:
        return tiny_dual_source(), tiny_task(), pairs_of_towers(method)
    if Capability.TOKEN_INSERTION in method.needs:
        kind = "bert" if method.name == "ptr" else "gpt2"
        return tiny_text_source(kind), opinions(), {"tokens": 6}
    return None, None, {}
