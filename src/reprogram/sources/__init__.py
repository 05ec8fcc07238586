"""f: frozen source models, one ecosystem a file."""

from reprogram.sources._wrap import wrap
from reprogram.sources.language import LanguageSource, language_source
from reprogram.sources.load import install_source, load_source, source_refs
from reprogram.sources.module import ModuleSource
from reprogram.sources.transformers_load import TextOptions, wrap_transformers

__all__ = [
    "LanguageSource",
    "ModuleSource",
    "TextOptions",
    "install_source",
    "language_source",
    "load_source",
    "source_refs",
    "wrap",
    "wrap_transformers",
]
