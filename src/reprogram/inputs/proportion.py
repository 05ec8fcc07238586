"""Pixels that papers give for one canvas, on another."""

from reprogram.core.errors import ConfigError, say


def in_proportion(pixels: int, canvas: int, at: int = 224) -> int:
    """As many pixels as keep their share of the canvas, 1 at least.

    Args:
        pixels: of a canvas of `at`.
        canvas: pixels of the one that is used.
        at: the paper's.

    Raises:
        ConfigError: a number is below 1.

    >>> in_proportion(30, 224), in_proportion(30, 128), in_proportion(192, 128)
    (30, 17, 110)
    """
    if min(pixels, canvas, at) < 1:
        raise ConfigError(say("pixels", "must be 1 or more, of canvases of 1 or more", (pixels, canvas, at)))
    return max(1, (2 * pixels * canvas + at) // (2 * at))
