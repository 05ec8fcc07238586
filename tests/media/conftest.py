import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def noise() -> Callable[..., Image.Image]:
    """A picture of random colours."""

    def make(width: int = 16, height: int = 12, mode: str = "RGB", seed: int = 0) -> Image.Image:
        array = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
        return Image.fromarray(array[:, :, :3]).convert(mode) if mode != "RGBA" else Image.fromarray(array)

    return make


@pytest.fixture(scope="session")
def encode() -> Encode:
    """A picture as the bytes of a file."""

    def make(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return make
