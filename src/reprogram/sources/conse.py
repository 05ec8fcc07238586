"""`bundled/conse`: a real image-text source without image-text weights.

EfficientNet-Lite0's class probabilities are read as a mixture of ImageNet class names, whose vectors come from the
sentence encoder MiniLM; class texts go through that encoder as they are. Convex combination of semantic embeddings:
Norouzi, Mikolov, Bengio, Singer, Shlens, Frome, Corrado, Dean, "Zero-Shot Learning by Convex Combination of Semantic
Embeddings", ICLR 2014, arXiv:1312.5650.

It has every part that CLIP has (two towers, edits in both, gradients through both), and is weak: its image vectors know
only what a thousand class names can say. Compare methods on it with one another, not with published figures of CLIP.
"""

import torch

from reprogram.core.errors import SourceError, missing_extra, say
from reprogram.core.program import Input
from reprogram.core.source import Reading, Source
from reprogram.core.texts import Texts
from reprogram.sources._rows import by_length
from reprogram.sources._towers import ConseTower
from reprogram.sources.bundled import efficientnet_lite0, imagenet_names, minilm_l6
from reprogram.sources.image_text import DualSource
from reprogram.sources.language import LanguageSource
from reprogram.sources.module import wrap

SCALE = 20.0
"""Of the cosines: what sentence encoders are commonly trained with."""

TOP = 10
"""Classes that count, the K of the paper."""

SIZE = 128
"""Pixels of its canvas unless asked otherwise: zero-shot on small pictures it is better there than at 224."""


def load_conse(*, top: int = TOP, size: int = SIZE, scale: float = SCALE, device: str = "cpu") -> Source:
    """EfficientNet-Lite0 and MiniLM as one image-text source.

    Args:
        top: K, how many of the likeliest classes count (Norouzi et al., section 3); 1,000 for all, with which the
            vector is smooth in the picture.
        size: pixels of the square canvas, 32 to 512; any other can be asked for by a method's `canvas`.
        scale: of the cosines.
        device: where to put it.

    Raises:
        MissingExtraError: the extra "bundled" is not installed.
        SourceError: an option is out of range.
    """
    if not 1 <= top <= 1000 or not 32 <= size <= 512 or not 0 < scale < float("inf"):
        got = {"top": top, "size": size, "scale": scale}
        raise SourceError(say("options", "must be 1 to 1000 classes, 32 to 512 pixels, a scale above 0", got))
    image, text = efficientnet_lite0(), minilm_l6(device=device)
    names = imagenet_names()
    if names is None:
        raise missing_extra("timm", "bundled", "The names of ImageNet's classes")
    with torch.no_grad():
        vectors = by_length(names, lambda some: _vectors(text, some), 100).cpu()
    tower = ConseTower(image.module, vectors, top, said=names)
    said = {"top": (top, TOP), "size": (size, SIZE), "scale": (scale, SCALE)}
    words = "&".join(f"{name}={value:g}" for name, (value, usual) in said.items() if value != usual)
    seen = wrap(
        tower, input_shape=(3, size, size), preprocess=image.spec.preprocessing, sites="network._blocks.*",
        resizable=True, ref="bundled/conse",
    )  # fmt: skip
    return DualSource(seen.to(device), text, ref="bundled/conse" + (f"?{words}" if words else ""), scale=scale)


def _vectors(text: LanguageSource, names: tuple[str, ...]) -> torch.Tensor:
    found = text(Texts({"text": names}), Input(), Reading(features=True)).features
    assert found is not None
    return found
