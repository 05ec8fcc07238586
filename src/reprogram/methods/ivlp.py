"""IVLP: learned words at many layers of the text tower and, independent of them, learned tokens at the image tower's.

The baselines of Khattak, Rasheed, Maaz, Khan, Khan, "MaPLe: Multi-modal Prompt Learning", CVPR 2023, arXiv:2210.03117:
independent vision-language prompts, and the presets `deep_vision` and `deep_language` with one side of them.

Departures: widths and depths are the source's own; float32; in place of a first epoch at a constant rate of 1e-5, a
linear warm-up of 50 steps. The paper compares at 2 tokens and 9 layers, the default here; the released configuration
has 12 layers. For an image tower without tokens (a convolutional network), `vision="frame"` learns a frame of pixels.
"""

from dataclasses import dataclass

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Program
from reprogram.core.source import Capability, Source, image_text_source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Place, VisionPrompt, image_prompts, pixel_frame, text_prompts, with_classes
from reprogram.outputs import ClassScores, texts_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The values of the MaPLe paper's comparison, and of the released configuration for the recipe.

    Attributes:
        tokens: n, learned words and image tokens at every layer.
        depth: J, layers that have their own; as many as a tower has if those are fewer.
        words: that the first layer's words start as; what stands before the class name where no words are learned.
            None for N(0, 0.02^2), or for nothing.
        text: learn words at the text side.
        vision: what is learned at the image side: "tokens", "frame" (pixels) or "none".
        width: pixels of that frame.
        layout: of the class texts, after the words.
        canvas: pixels of the source's input; None for what the source was trained on.
        recipe: SGD at 0.0035 with momentum 0.9 and weight decay 5e-4, cosine, 5 epochs in batches of 4.
    """

    tokens: int = 2
    depth: int = 9
    words: str | None = "a photo of a"
    text: bool = True
    vision: VisionPrompt = "tokens"
    width: int = 16
    layout: str = "{class}."
    canvas: int | None = None
    recipe: Recipe = Recipe(
        optimizer="sgd", lr=0.0035, momentum=0.9, weight_decay=5e-4, schedule="cosine", warmup_steps=50, epochs=5,
        batch_size=4, augment="crop", refresh="once",
    )  # fmt: skip


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = resize, [P_i; class text] and [picture, V_i] at every layer i``, ``O = the closest class text``."""
    model, task = image_text_source(source), with_classes(task, METHOD.name)
    if not config.text and config.vision == "none":
        raise ConfigError(say("text and vision", "must not both be off", (config.text, config.vision)))
    size = source.spec.canvas(config.canvas)
    layout = config.layout if config.text or not config.words else f"{config.words} {config.layout}"
    edits: list[Edit] = [Place(size, size)]
    if config.text:
        edits += text_prompts(model, config.tokens, config.depth, config.words)
    if config.vision == "tokens":
        edits += image_prompts(source, config.tokens, config.depth)
    elif config.vision == "frame":
        edits.append(pixel_frame(source, size, config.width))
    elif config.vision != "none":
        raise ConfigError(say("vision", "must be tokens, frame or none", config.vision))
    output = ClassScores(texts_for(model, task.classes, [layout]))
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


METHOD = Method(
    name="ivlp",
    summary="learned words and, independent of them, learned image tokens at many layers of both frozen towers",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.EMBEDDING, Location.HIDDEN, Operator.CONCATENATIVE, Alignment.RULE_BASED
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
        "deep_vision": {"text": False, "tokens": 8, "depth": 12, "recipe.lr": 0.0025},
        "deep_language": {"vision": "none", "tokens": 4, "depth": 12, "recipe.lr": 0.0025},
        "cpu": {
            "layout": "{class}", "recipe.optimizer": "adam", "recipe.lr": 2e-3, "recipe.weight_decay": 0.0,
            "recipe.epochs": 10, "recipe.batch_size": 50, "recipe.warmup_steps": 0, "recipe.augment": "none",
        },
    },
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES, Capability.CLASS_TEXTS}),
)  # fmt: skip
