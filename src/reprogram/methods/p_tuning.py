"""P-tuning: a soft prompt that a small network makes, so that its tokens hang together.

Liu, Zheng, Du, Ding, Qian, Yang, Tang, "GPT Understands, Too", 2021, arXiv:2103.10385.

Departures: the language model stays frozen (the paper also tunes it in some experiments); the prompt goes before the
text unless the template has places for it (`{soft:N}`), as it may in the paper; the network's last layer is fitted so
that the prompt starts at real embeddings.
"""

from dataclasses import dataclass

from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Program
from reprogram.core.source import Capability, Source, text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import EncodedPrompt, Encoder, Start, open_task, prompt_start
from reprogram.outputs import Words, answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's network (section 3.2); sizes and recipe are ours, for no figure of the paper's could be checked.

    Attributes:
        tokens: n, of the soft prompt.
        encoder: "lstm" (the paper's: bidirectional, then two linear layers) or "mlp" (three linear layers).
        hidden: width of the network; None for that of the embeddings.
        layers: of the LSTM.
        dropout: between the layers of the LSTM, while training.
        start: "vocabulary", "labels", "text" or "random".
        text: for start="text"; None for an instruction that names the classes.
        template: how the columns become a prompt; None for the source's default.
        words: label words by class; None for the class names.
        recipe: AdamW at a rate for networks.
    """

    tokens: int = 20
    encoder: Encoder = "lstm"
    hidden: int | None = None
    layers: int = 2
    dropout: float = 0.0
    start: Start = "vocabulary"
    text: str | None = None
    template: str | None = None
    words: Words | None = None
    recipe: Recipe = Recipe(
        optimizer="adamw", lr=1e-3, schedule="cosine", epochs=20, batch_size=32, refresh="once", clip_norm=1.0
    )


def build(source: Source, task: TaskSpec | None, config: Config) -> Program:
    """``I = template, [g(E); x]``, ``O = label words`` (or scores of tokens)."""
    model = text_source(source)
    opening = open_task(model, task, config.template, config.tokens)
    prompt = EncodedPrompt(
        prompt_start(model, task, opening.tokens, config.start, config.text),
        hidden=config.hidden,
        encoder=config.encoder,
        layers=config.layers,
        dropout=config.dropout,
        where=opening.where,
    )
    output = answers(model, task, config.words, after=opening.lead)
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program([*opening.edits, prompt], source, output, origin=origin)


METHOD = Method(
    name="p_tuning",
    summary="a soft prompt made by a small recurrent network; label words stand for the classes",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE,
        Location.EMBEDDING,
        Operator.CONCATENATIVE,
        Operator.PARAMETRIC,
        Alignment.RULE_BASED,
    ),
    paper=Paper(
        title="GPT Understands, Too",
        authors=("Xiao Liu and Yanan Zheng and Zhengxiao Du and Ming Ding and Yujie Qian and Zhilin Yang and Jie Tang"),
        year=2021,
        arxiv="2103.10385",
    ),
    config=Config,
    build=build,
    presets={"cpu": {"encoder": "mlp", "hidden": 128, "recipe.epochs": 5, "recipe.batch_size": 16}},
    needs=frozenset({Capability.GRADIENTS, Capability.TOKEN_INSERTION}),
    paper_tags="alignment: identity (the language model's own head) with a verbalizer",
)
