"""`torch.compile` for sources."""

from collections.abc import Callable
from typing import Any

import torch

from reprogram.core.source import Source, SourceOutput, TextSource


def compiled(source: Source) -> Callable[..., SourceOutput]:
    """The source's forward pass, compiled; of a source of text, the model's own, because tokenizers cannot be."""
    if isinstance(source, TextSource):
        switch: Any = source
        switch.compile()
        return source
    return torch.compile(source)  # pyright: ignore[reportCallIssue, reportArgumentType]
