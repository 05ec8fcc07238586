"""`wrap`: any model in memory as a frozen source."""

from typing import Any

from torch import nn

from reprogram.core.errors import SourceError, say
from reprogram.core.source import Source
from reprogram.sources.module import wrap as wrap_module


def wrap(
    module: nn.Module, tokenizer: Any = None, *, input_shape: tuple[int, ...] | None = None, **options: Any
) -> Source:
    """A model in memory as a frozen source: a model of transformers, or any module that classifies images.

    Args:
        module: switched to eval mode and frozen, in place.
        tokenizer: of a language model; without it the source reads token ids only.
        input_shape: (channel, height, width) that a module reads. Not for models of transformers, which say themselves;
            with it they are taken as plain modules.
        options: for modules `labels`, `preprocess`, `sites`, `tokens` and facts, see `sources.module.wrap`; for models
            of transformers `ref` and `checkpoint`, see `sources.language.language_source`.

    Raises:
        SourceError: the module does not do what it must, or `input_shape` is missing.

    Example:
        source = wrap(model, tokenizer)                        # a language model
        source = wrap(net, input_shape=(3, 32, 32), labels=names)
    """
    if input_shape is not None:
        return wrap_module(module, input_shape=input_shape, **options)
    from reprogram.sources.transformers_load import is_transformers, wrap_transformers

    if is_transformers(module):
        return wrap_transformers(module, tokenizer, **options)
    remedy = "For example wrap(net, input_shape=(3, 224, 224))."
    raise SourceError(say("input_shape", "must be given for a module that is not of transformers", None, remedy))
