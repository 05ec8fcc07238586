"""Search over the settings of a method, and over sources: trials, pruning, resumption, ranked by validation."""

from reprogram.search.options import SearchOptions
from reprogram.search.result import SearchResult, Trial
from reprogram.search.search import search
from reprogram.search.space import Choices, Range, parse_axis, space_of

__all__ = ["Choices", "Range", "SearchOptions", "SearchResult", "Trial", "parse_axis", "search", "space_of"]
