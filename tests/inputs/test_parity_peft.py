"""The networks that make prompts give what PEFT's give, with the same weights."""

import warnings

import pytest
import torch

from reprogram.inputs import EncodedPrefix, EncodedPrompt, MultitaskPrompt, Prefix

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft")

N, D, H, LAYERS, HEADS = 5, 24, 16, 3, 4


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def settings(**more):
    return {"num_virtual_tokens": N, "token_dim": D, "num_transformer_submodules": 1, "num_attention_heads": HEADS,
            "num_layers": LAYERS, **more}  # fmt: skip


@torch.no_grad()
def give(theirs: torch.nn.Module, ours: dict[str, torch.Tensor]) -> torch.nn.Module:
    theirs.load_state_dict(ours, strict=True)
    return theirs.eval()


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_p_tuning(encoder):
    edit = EncodedPrompt(drawn(N, D), hidden=H, encoder=encoder)
    kind = {"mlp": "MLP", "lstm": "LSTM"}[encoder]
    config = peft.PromptEncoderConfig(
        **settings(
            encoder_reparameterization_type=kind, encoder_hidden_size=H, encoder_num_layers=2, encoder_dropout=0.0
        )
    )
    state = edit.state_dict()
    weights = {"embedding.weight": state["values"]}
    if encoder == "lstm":
        weights |= {k.replace("recurrent", "lstm_head"): v for k, v in state.items() if k.startswith("recurrent")}
    inner = {"mlp": [0, 2], "lstm": [0]}[encoder]
    for place in inner:
        weights |= {f"mlp_head.{place}.{n}": state[f"inner.{place}.{n}"] for n in ("weight", "bias")}
    weights |= {f"mlp_head.{inner[-1] + 2}.{n}": state[f"last.{n}"] for n in ("weight", "bias")}
    theirs = give(peft.PromptEncoder(config), weights)
    torch.testing.assert_close(edit.tokens(), theirs(torch.arange(N)[None])[0], atol=1e-6, rtol=1e-6)


def test_prefix_with_and_without_the_network():
    start = drawn(N, LAYERS, 2, HEADS, D // HEADS)
    flat, made = Prefix(start), EncodedPrefix(start, width=D, hidden=H)
    plain = give(
        peft.PrefixEncoder(peft.PrefixTuningConfig(**settings())), {"embedding.weight": flat.values.flatten(1)}
    )
    assert torch.equal(plain(torch.arange(N)[None])[0].view(flat.values.shape), flat.keys_values())
    state = made.state_dict()
    weights = {"embedding.weight": state["values"]}
    weights |= {f"transform.0.{n}": state[f"inner.0.{n}"] for n in ("weight", "bias")}
    weights |= {f"transform.2.{n}": state[f"last.{n}"] for n in ("weight", "bias")}
    config = peft.PrefixTuningConfig(**settings(prefix_projection=True, encoder_hidden_size=H))
    theirs = give(peft.PrefixEncoder(config), weights)(torch.arange(N)[None])[0]
    torch.testing.assert_close(made.keys_values().flatten(1), theirs, atol=1e-6, rtol=1e-6)


def test_multitask_prompt():
    from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding

    u, v = drawn(N, 2, seed=1), drawn(2, D, seed=2)
    edit = MultitaskPrompt(drawn(N, D), rank=2, factors=(u, v))
    config = peft.MultitaskPromptTuningConfig(
        **settings(num_tasks=2, num_ranks=2, prompt_tuning_init="RANDOM", task_type="CAUSAL_LM")
    )
    state = {
        "embedding.weight": edit.shared,
        "prefix_task_cols": torch.stack([u, drawn(N, 2, seed=3)]),
        "prefix_task_rows": torch.stack([v, drawn(2, D, seed=4)]),
    }
    theirs = give(MultitaskPromptEmbedding(config, torch.nn.Embedding(3, D)), state)
    torch.testing.assert_close(edit.tokens(), theirs(torch.arange(N)[None], torch.tensor([0]))[0], atol=1e-6, rtol=1e-6)
