"""Every source `bundled/<name>`."""

from collections.abc import Callable
from dataclasses import dataclass

from reprogram.core.source import Source
from reprogram.sources import smollm2
from reprogram.sources.bundled import efficientnet_lite0, minilm_l6
from reprogram.sources.cache import Installed, Tell
from reprogram.sources.conse import load_conse


@dataclass(frozen=True, slots=True)
class Bundled:
    """A source that comes as a package.

    Attributes:
        about: one line.
        load: makes it; its keyword arguments are the options that users may give.
        install: fetches what pip cannot install as a dependency; None where there is nothing to do.
    """

    about: str
    load: Callable[..., Source]
    install: Callable[[Tell], Installed] | None = None


BUNDLED: dict[str, Bundled] = {
    "efficientnet-lite0": Bundled(
        "EfficientNet-Lite0, ImageNet-1k, 4.65 M parameters, 224 px (any size)", efficientnet_lite0
    ),
    "smollm2-135m": Bundled(smollm2.ABOUT, smollm2.load_smollm2, smollm2.install),
    "conse": Bundled(
        "EfficientNet-Lite0 and MiniLM as one image-text source (ConSE): pictures against class texts, any size",
        load_conse,
    ),
    "minilm-l6": Bundled("all-MiniLM-L6-v2, sentence encoder, 22.7 M parameters", minilm_l6),
}
