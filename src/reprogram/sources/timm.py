"""The one door to timm: `timm/<name>`, with the preprocessing that timm's own data configuration states."""

import importlib
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from reprogram.core.errors import SourceError, missing_extra, say
from reprogram.core.source import Preprocessing
from reprogram.sources.bundled import imagenet_labels
from reprogram.sources.module import ModuleSource, wrap

BLOCKS = ("blocks.*", "layer?.*", "stages.*.blocks.*", "blocks.*.*", "features.*")


def load_timm(name: str, *, pretrained: bool = True, **options: Any) -> ModuleSource:
    """A timm model as a source.

    Args:
        name: timm's model name, with its tag if any ("resnet18.a1_in1k").
        pretrained: False for random weights (no download).
        options: passed on to `timm.create_model`.

    Raises:
        MissingExtraError: the extra "vision" is not installed.
        SourceError: timm knows no such model, or its weights cannot be fetched.
    """
    try:
        timm = importlib.import_module("timm")
    except ImportError as problem:
        raise missing_extra("timm", "vision", "A source timm/…") from problem
    except RuntimeError as problem:  # torch and torchvision from different builds
        remedy = "Install the matched pair, for example torch==2.14.1 torchvision==0.29.1."
        raise SourceError(say("torchvision", "must match torch to import timm", str(problem), remedy)) from problem
    if not timm.is_model(name.split(".", maxsplit=1)[0]):
        near = get_close_matches(name, timm.list_models(), 3)
        raise SourceError(say("timm model", "must be one that timm knows", name, f"Near: {', '.join(near) or 'none'}."))
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as problem:  # the hub client's errors have no common base
        if not pretrained:
            raise
        remedy = "Check the network, or pass pretrained=False for random weights."
        got = f"{type(problem).__name__}: {problem}"
        raise SourceError(say(f"timm/{name}", "needs its weights from the model hub", got, remedy)) from problem
    return _as_source(timm, model, name, pretrained=pretrained)


def _as_source(timm: Any, model: Any, name: str, *, pretrained: bool) -> ModuleSource:
    config = timm.data.resolve_model_data_config(model)
    pixels = Preprocessing(mean=tuple(config["mean"]), std=tuple(config["std"]), interpolation=config["interpolation"])
    paths = [p for p, _ in model.named_modules()]
    sites = next((b for b in BLOCKS if any(_matches(p, b) for p in paths)), None)
    labels = imagenet_labels() if model.num_classes == 1000 else None
    return wrap(
        model,
        input_shape=tuple(config["input_size"]),
        labels=labels,
        preprocess=pixels,
        sites=sites,
        ref=f"timm/{name}" if pretrained else f"timm/{name}?pretrained=false",
        resizable=not model.pretrained_cfg.get("fixed_input_size", False),
        width=model.num_features,
        tokens=getattr(model, "global_pool", "") == "token" and getattr(model, "num_prefix_tokens", 0) > 0,
    )


def _matches(path: str, pattern: str) -> bool:
    return path.count(".") == pattern.count(".") and fnmatchcase(path, pattern)
