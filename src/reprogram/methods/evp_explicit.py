"""EVP, explicit visual prompting: small adaptors at every block see the picture's high frequencies; a learned decoder.

Liu, Shen, Pun, Cun, "Explicit Visual Prompting for Low-Level Structure Segmentations", CVPR 2023, arXiv:2303.10883.
(Not EVP of the pixel level, which is `evp_pixel`.)

Departures: any source with blocks will do, also a convolutional one, whose blocks read maps instead of tokens; a stage
is a row of blocks that read maps of one shape. The decoder reads what the last block of each grid returns, without
SegFormer's layer norms, and is fitted to the cross-entropy plus a soft IoU loss over all classes. Tasks with one class
for a picture get the mean over its pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reprogram.core.errors import ConfigError, say
from reprogram.core.method import Method, Origin, Paper, Recipe
from reprogram.core.program import Edit, Program
from reprogram.core.source import Capability, Source
from reprogram.core.task import TaskSpec
from reprogram.core.taxonomy import Alignment, Configuration, Location, Operator, Taxonomy
from reprogram.inputs import Block, ExplicitPrompt, HighFrequency, Place, look_at_blocks
from reprogram.outputs import Frame, PixelDecoder, ReadMap

Use = Literal["both", "frequencies", "embeddings", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The released configuration for camouflaged objects (COD).

    Attributes:
        canvas: pixels of the source's input; None for what the source was trained on (released: 352).
        factor: adaptors have 1 / factor of a stage's width (released: 4).
        share: rho, the part of the spectrum that is taken for low frequencies (released: 0.25).
        use: what prompts are made of. "none" is a control: the decoder alone.
        decoder: width of the decoder (SegFormer-B4: 768).
        grids: how many of the deepest grids the decoder reads; SegFormer has four.
        dropout: of the decoder (SegFormer: 0.1).
        recipe: AdamW at 2e-4, 20 epochs in batches of 4.
    """

    canvas: int | None = None
    factor: int = 4
    share: float = 0.25
    use: Use = "both"
    decoder: int = 768
    grids: int = 4
    dropout: float = 0.1
    recipe: Recipe = Recipe(optimizer="adamw", lr=2e-4, schedule="cosine", epochs=20, batch_size=4)


def build(source: Source, task: TaskSpec, config: Config) -> Program:
    """``I = x_b + up_i(GELU(linear_b(F_hfc + F_pe)))`` at every block b, ``O = decoder``.

    Raises:
        ConfigError: a setting out of range.
        CapabilityError: the source knows no blocks.
    """
    if config.grids < 1:
        raise ConfigError(say("grids", "must be 1 or more", config.grids))
    size = source.spec.canvas(config.canvas)
    place, blocks = Place(size, size), look_at_blocks(source, size)
    edits: list[Edit] = [place]
    if config.use != "none":
        edits += _prompts([reads for reads, _ in blocks], size, config)
    deepest = {gives.grid: gives for _, gives in blocks}  # of each grid the last, since later ones replace earlier
    maps = [ReadMap(b.site, b.width, b.grid, b.extra, b.is_map) for b in list(deepest.values())[-config.grids :]]
    height, width = task.sample.height, task.sample.width
    frame = Frame(size, place.size(height, width), (height, width))
    output = PixelDecoder(
        maps, len(task.classes), width=config.decoder, frame=frame, dense=task.dense, dropout=config.dropout
    )
    return Program(edits, source, output, origin=Origin(method=METHOD.name, config=config, task=task))


def _prompts(blocks: Sequence[Block], size: int, config: Config) -> list[Edit]:
    """The look at the picture, and a prompt at every block. A stage is a row of blocks that read maps of one shape."""
    begins = [not i or (b.width, b.grid) != (blocks[i - 1].width, blocks[i - 1].grid) for i, b in enumerate(blocks)]
    stages = [block for block, first in zip(blocks, begins, strict=True) if first]
    picture = HighFrequency(
        stages, size, factor=config.factor, share=config.share, frequencies=config.use != "embeddings",
        embeddings=config.use != "frequencies",
    )  # fmt: skip
    prompts = [
        ExplicitPrompt(picture, block, sum(begins[: i + 1]) - 1, first=begins[i], last=i == len(blocks) - 1)
        for i, block in enumerate(blocks)
    ]
    return [picture, *prompts]


METHOD = Method(
    name="evp_explicit",
    summary="adaptors on high frequencies at every block of a frozen network, and a decoder: a class for every pixel",
    taxonomy=Taxonomy.of(
        Configuration.LEARNABLE, Location.HIDDEN, Operator.PARAMETRIC, Operator.ADDITIVE, Alignment.LINEAR
    ),
    paper=Paper(
        title="Explicit Visual Prompting for Low-Level Structure Segmentations",
        authors="Weihuang Liu and Xi Shen and Chi-Man Pun and Xiaodong Cun",
        year=2023,
        arxiv="2303.10883",
        venue="CVPR",
    ),
    config=Config,
    build=build,
    presets={
        "cpu": {
            "canvas": 128,
            "decoder": 64,
            "grids": 5,
            "recipe.lr": 0.005,
            "recipe.epochs": 10,
            "recipe.batch_size": 8,
        }
    },
    needs=frozenset({Capability.GRADIENTS, Capability.HIDDEN_SITES}),
    paper_tags="location: embedding and hidden",
)
