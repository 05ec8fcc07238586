"""f: frozen source models, one ecosystem a file."""

from reprogram.sources.load import load_source, source_refs
from reprogram.sources.module import ModuleSource, wrap

__all__ = ["ModuleSource", "load_source", "source_refs", "wrap"]
