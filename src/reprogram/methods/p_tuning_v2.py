"""P-tuning v2: learned keys and values before the text in every layer, and a linear classification head.

Liu, Ji, Fu, Tam, Du, Yang, Tang, "P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning Universally Across
Scales and Tasks", ACL 2022, arXiv:2110.07602.

Departures: the prefix starts at the keys and values of a real text; the head reads what the source's own head would
(of a masked model at the answer's place, of a causal one at the last token), standardised by a first pass over the
data. The paper's tasks of tagging every token are not built.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Prefix, Start, open_task, prefix_start, with_classes
from reprogram.outputs import head_on_features


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's range (section 3, as reported; not checked against its code).

    Attributes:
        tokens: n, of the prefix (paper: 8 to 128, by task).
        start: "text" (keys and values of a real text), "labels" (of the class names), "vocabulary" (of random tokens)
            or "random" (normal, with the scale of real ones).
        text: for start="text"; None for an instruction that names the classes.
        template: how the columns become a prompt; None for the source's default.
        recipe: AdamW; the paper searches rates from 5e-3 to 1e-2.
    """

    tokens: int = 20
    start: Start = "text"
    text: str | None = None
    template: str | None = None
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=5e-3, schedule="cosine", epochs=20, batch_size=32, refresh="once", clip_norm=1.0
    )


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template, [P; K], [Q; V]``, ``O = linear on features``."""
    model, task = text_source(source), with_classes(task, METHOD.name)
    opening = open_task(model, task, config.template, None)
    prefix = Prefix(prefix_start(model, task, config.tokens, config.start, config.text))
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, prefix], source, head_on_features(model, task), origin=origin)


METHOD = Method(
    name="p_tuning_v2",
    summary="learned keys and values before those of the text in every layer; a linear head on the source's features",
    taxonomy=Taxonomy.of(Configuration.LEARNABLE, Location.HIDDEN, Operator.CONCATENATIVE, Alignment.LINEAR),
    paper=Paper(
        title="P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning Universally Across Scales and Tasks",
        authors=(
            "Xiao Liu and Kaixuan Ji and Yicheng Fu and Weng Lam Tam and Zhengxiao Du and Zhilin Yang and Jie Tang"
        ),
        year=2022,
        arxiv="2110.07602",
        venue="ACL",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"tokens": 10, "recipe.epochs": 5, "recipe.batch_size": 16}},
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION, Capability.FEATURES}),
)
