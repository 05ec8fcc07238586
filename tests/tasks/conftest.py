from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int = 0, width: int = 8, height: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """Write a picture; other seeds are other pictures."""

    def make(path: Path, seed: int = 0, width: int = 8, height: int = 8) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower(), "PNG")
        picture(seed, width, height).save(path, kind)
        return path

    return make


@pytest.fixture
def pets(tmp_path, save) -> Path:
    """root/{cat,dog}/0.png .. 9.png"""
    root = tmp_path / "pets"
    for c, name in enumerate(("cat", "dog")):
        for i in range(10):
            save(root / name / f"{i}.png", 100 * c + i)
    return root
