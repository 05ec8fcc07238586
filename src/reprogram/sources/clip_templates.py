"""The sentences around class names that open_clip brings for CLIP."""

import importlib

from reprogram.core.errors import missing_extra


def openai_templates() -> tuple[str, ...]:
    """The 80 layouts that were published with CLIP for ImageNet, with `{class}` for the name.

    Raises:
        MissingExtraError: the extra "clip" is not installed.
    """
    try:
        library = importlib.import_module("open_clip")
    except ImportError as problem:
        raise missing_extra("open_clip_torch", "clip", 'templates="openai"') from problem
    return tuple(str(make("{class}")) for make in library.OPENAI_IMAGENET_TEMPLATES)
