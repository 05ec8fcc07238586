"""What is behind an address: a language model or an image classifier.

Asked in this order: what the reference says (`?as=image`, `?as=text`); options that only one of the two has (`gives=`
or `model=`); the server itself, by one GET of the address, if it answers with the description of an image classifier
(see `endpoint_images`); and then it is taken for an OpenAI-compatible server.
"""

from collections.abc import Mapping
from typing import Any

from reprogram.core.errors import SourceError, say
from reprogram.sources.endpoint import EndpointSource, load_endpoint
from reprogram.sources.endpoint_images import EndpointImageSource, described, load_endpoint_images
from reprogram.sources.endpoint_images_options import IMAGE_WORDS
from reprogram.sources.endpoint_options import REF_WORDS

ENDPOINT_WORDS = ("as", *REF_WORDS, *IMAGE_WORDS)
"""Options that may stand in a reference."""


def load_server(url: str, options: Mapping[str, Any]) -> EndpointSource | EndpointImageSource:
    """The model behind an address.

    Args:
        url: of the server.
        options: see `EndpointOptions` and `EndpointImageOptions`; `kind` ("image" or "text") says which.

    Raises:
        SourceError: the server cannot be reached, or an option is unknown.
        ConfigError: a value is out of range.
        MissingExtraError: the extra "endpoint" is not installed.
    """
    own = {name: value for name, value in options.items() if name != "kind"}
    kind = options.get("kind")
    if kind not in (None, "image", "text"):
        raise SourceError(say("as", 'must be "image" or "text" for an endpoint', kind))
    if kind == "image" or (kind is None and own.keys() & {*IMAGE_WORDS, "labels", "max_queries", "floor"}):
        return load_endpoint_images(url, own)
    found = described(url, own) if kind is None else None
    return found if found is not None else load_endpoint(url, own)
