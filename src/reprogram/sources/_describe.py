"""What a model of transformers is, read off its class and configuration."""

import inspect
from typing import Any, Literal

from torch import nn

Kind = Literal["causal", "masked", "seq2seq", "classifier", "encoder"]

UNBOUNDED = 1 << 20
"""Tokenizers say so that they have no limit with numbers like 1e30."""


def kind_of(name: str) -> Kind:
    """The kind of a model by the name of its class, as transformers names them.

    >>> [kind_of(n) for n in ("GPT2LMHeadModel", "BertForMaskedLM", "T5ForConditionalGeneration", "BertModel")]
    ['causal', 'masked', 'seq2seq', 'encoder']
    """
    known: list[tuple[str, Kind]] = [
        ("ForCausalLM", "causal"), ("LMHeadModel", "causal"), ("ForMaskedLM", "masked"),
        ("ForConditionalGeneration", "seq2seq"), ("ForSequenceClassification", "classifier"),
    ]  # fmt: skip
    for part, kind in known:
        if part in name:
            return kind
    return "encoder"


def body_of(model: Any, kind: str) -> Any:
    """The part that ends in hidden states; the model itself where there is none, as for encoder-decoders."""
    return model if kind in ("seq2seq", "encoder") else model.base_model


def head_of(model: Any) -> nn.Module | None:
    """The last linear layer before the scores."""
    found = model.get_output_embeddings()
    if found is not None:
        return found
    labels = getattr(model.config, "num_labels", None)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == labels]
    return linear[-1] if linear else None


def shape_of(model: Any, blocks: int) -> tuple[int, int, int]:
    """Layers, key and value heads, and numbers to a head."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    queries = config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or queries
    width = getattr(config, "head_dim", None) or getattr(config, "d_kv", None) or config.hidden_size // queries
    return blocks, heads, width


def parameters_of(module: nn.Module) -> frozenset[str]:
    return frozenset(inspect.signature(module.forward).parameters)


def position_offset(body: nn.Module) -> int:
    """RoBERTa and its kin count positions from the padding index plus one."""
    table = getattr(getattr(body, "embeddings", None), "position_embeddings", None)
    index = getattr(table, "padding_idx", None)
    return 0 if index is None else index + 1


def context_of(config: Any, tokenizer: Any) -> int | None:
    """The longest sequence, or None: the model's positions (less an offset), or the tokenizer's word."""
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    said = getattr(tokenizer, "model_max_length", None)
    found = [n for n in (limit, said) if isinstance(n, int) and 0 < n < UNBOUNDED]
    return min(found) if found else None


def ends_of(model: Any, end: int | None) -> frozenset[int]:
    """Ids that end a text: the tokenizer's, if it has one, and those that the model says."""
    said = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = said if isinstance(said, list) else [said]
    return frozenset(i for i in [*several, end] if i is not None)
