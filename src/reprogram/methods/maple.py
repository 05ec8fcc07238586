"""MaPLe: learned words at many layers of the text tower, and tokens at the image tower's that are made from them.

Khattak, Rasheed, Maaz, Khan, Khan, "MaPLe: Multi-modal Prompt Learning", CVPR 2023, arXiv:2210.03117.

Departures: widths and depths are the source's own; float32 in place of prompts cast to half precision in every block;
in place of a first epoch at a constant rate of 1e-5, a linear warm-up of 50 steps. An image tower without tokens (a
convolutional network) has no place for such prompts: there `vision="frame"` learns a frame of pixels that is not
coupled to the words, and `vision="none"` leaves the image side as it is.
"""

from dataclasses import dataclass

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place, VisionPrompt, coupled_prompts, pixel_frame, text_prompts, with_classes
from reprogram.outputs import ClassScores, texts_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's values (section 4, and the released configuration).

    Attributes:
        tokens: n learned words at every layer.
        depth: J, layers that have their own; as many as a tower has if those are fewer.
        words: that the first layer's start as, as far as there are tokens; None for N(0, 0.02^2).
        vision: "tokens", made from the words; "frame", pixels in their place; or "none".
        width: pixels of that frame.
        layout: of the class texts, after the learned words.
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD at 0.0035 with momentum 0.9 and weight decay 5e-4, cosine, 5 epochs in batches of 4.
    """

    tokens: int = 2
    depth: int = 9
    words: str | None = "a photo of a"
    vision: VisionPrompt = "tokens"
    width: int = 16
    layout: str = "{class}."
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.0035, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_steps=50, epochs=5,
        batch_size=4, augment="crop", refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [P_i; class text] and [picture, P_i W_i] at every layer i``, ``O = the closest class text``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    size = source.spec.canvas(config.canvas)
    texts = texts_for(model, task.classes, [config.layout])
    prompts = text_prompts(model, config.tokens, config.depth, config.words)
    edits: list[Edit] = [Place(size, size), *prompts]
    if config.vision == "tokens":
        edits += coupled_prompts(source, prompts)
    elif config.vision == "frame":
        edits.append(pixel_frame(source, size, config.width))
    elif config.vision != "none":
        raise ConfigError(say("vision", "must be tokens, frame or none", config.vision))
    origin = Origin(method=METHOD.name, config=config, task=task)
    return Program(edits, source, ClassScores(texts), origin=origin)


METHOD = Method(
    name="maple",
    summary="learned words at many layers of a frozen text tower, and image tokens made from them at the image tower's",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.EMBEDDING, Location.HIDDEN, Operator.CONCATENATIVE, Operator.PARAMETRIC,
        Alignment.RULE_BASED,
    ),
    paper=Paper(
        title="MaPLe: Multi-modal Prompt Learning",
        authors=(
            "Muhammad Uzair Khattak and Hanoona Rasheed and Muhammad Maaz and Salman Khan and Fahad Shahbaz Khan"
        ),
        year=2023,
        arxiv="2210.03117",
        venue="CVPR",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {
            "layout": "{class}", "recipe.optimizer": "adam", "recipe.lr": 2e-3, "recipe.weight_decay": 0.0,
            "recipe.epochs": 10, "recipe.batch_size": 50, "recipe.warmup_steps": 0, "recipe.augment": "none",
        },
        "cnn": {"vision": "none"},
    },
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS}),
)  # fmt: skip
