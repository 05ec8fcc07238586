"""Constrained writing: which tokens a grammar allows next, through llguidance."""

import importlib
import re
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from reprogram.core.errors import ConfigError, MissingExtraError, say
from reprogram.core.writing import Grammar

_TOKENIZERS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


@final
class Constraint:
    """The state of one text under a grammar."""

    def __init__(self, matcher: Any, library: Any, size: int) -> None:
        self._matcher, self._library = matcher, library
        self._mask = library.allocate_token_bitmask(1, size)

    def allowed(self, logits: Tensor) -> Tensor:
        """Logits [vocabulary] with all tokens that the grammar forbids at minus infinity."""
        self._library.fill_next_token_bitmask(self._matcher, self._mask)
        bits = torch.as_tensor(self._mask[0]).view(torch.int32)
        allowed = ((bits[:, None] >> torch.arange(32, dtype=torch.int32)) & 1).bool().flatten()[: len(logits)]
        if len(allowed) < len(logits):  # the model's table may be longer than the tokenizer's
            allowed = torch.cat([allowed, allowed.new_zeros(len(logits) - len(allowed))])
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def took(self, token: int) -> bool:
        """Tell it which token was chosen; True if the text is complete and can only end."""
        self._matcher.consume_token(token)
        return bool(self._matcher.is_stopped())


def constraint(tokenizer: Any, grammar: Grammar) -> Constraint:
    """A fresh state of a grammar for a fast tokenizer.

    Raises:
        MissingExtraError: llguidance is not installed.
        ConfigError: the grammar is none.
    """
    try:
        llguidance = importlib.import_module("llguidance")
        library = importlib.import_module("llguidance.numpy")
    except ModuleNotFoundError as problem:
        raise MissingExtraError(say("llguidance", "must be installed to write by a grammar", "it is not",
                                    'pip install "reprogram[grammar]"')) from problem  # fmt: skip
    known = _TOKENIZERS.get(tokenizer)
    if known is None:
        known = importlib.import_module("llguidance.hf").from_tokenizer(tokenizer)
        _TOKENIZERS[tokenizer] = known
    matcher = llguidance.LLMatcher(known, _compiled(llguidance, grammar))
    if matcher.is_error():
        raise ConfigError(say("grammar", "must be one that can be followed", matcher.get_error()))
    return Constraint(matcher, library, known.vocab_size)


def _compiled(llguidance: Any, grammar: Grammar) -> str:
    matcher = llguidance.LLMatcher
    if grammar.kind == "json":
        return matcher.grammar_from_json_schema(grammar.text, overrides={"whitespace_flexible": False})
    if grammar.kind == "choice":
        return matcher.grammar_from_regex("|".join(re.escape(line) for line in grammar.text.splitlines() if line))
    return matcher.grammar_from_regex(grammar.text)
