"""f: frozen source models, one ecosystem a file."""

from reprogram.sources._wrap import wrap
from reprogram.sources.endpoint import EndpointSource
from reprogram.sources.endpoint_images import EndpointImageSource
from reprogram.sources.endpoint_images_options import EndpointImageOptions
from reprogram.sources.endpoint_limits import BudgetError, EndpointError, Prices, Usage
from reprogram.sources.endpoint_options import EndpointOptions
from reprogram.sources.language import LanguageSource, language_source
from reprogram.sources.load import install_source, load_source, source_refs
from reprogram.sources.module import ModuleSource
from reprogram.sources.query_only import QueryOnly, query_only
from reprogram.sources.transformers_load import TextOptions, wrap_transformers

__all__ = [
    "BudgetError",
    "EndpointError",
    "EndpointImageOptions",
    "EndpointImageSource",
    "EndpointOptions",
    "EndpointSource",
    "LanguageSource",
    "ModuleSource",
    "Prices",
    "QueryOnly",
    "TextOptions",
    "Usage",
    "install_source",
    "language_source",
    "load_source",
    "query_only",
    "source_refs",
    "wrap",
    "wrap_transformers",
]
