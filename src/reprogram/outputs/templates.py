"""Sentences around class names: 81 short ones, the plain one first."""

MEDIA = ("photo", "close-up photo", "picture", "drawing", "painting", "sketch", "cartoon", "rendering", "video still")
"""What a picture may be."""

LOOKS = ("", "blurry", "bright", "dark", "small", "large", "cropped", "pixelated", "black and white")
"""How it may look."""


def _layouts() -> tuple[str, ...]:
    """Every medium in every look, the looks of the first medium first."""
    return tuple(
        " ".join(("a", look, medium, "of {a class}.")).replace("  ", " ") for medium in MEDIA for look in LOOKS
    )


TEMPLATES: tuple[str, ...] = _layouts()
"""81 layouts with `{a class}`, as many as ILM-VP and AutoVP take on CLIP (a plain one and CLIP's 80 for ImageNet).

From "a photo of {a class}." to "a black and white video still of {a class}."
"""
