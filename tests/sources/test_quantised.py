"""Quantised weights: fingerprints that see all of them, gradients that pass, nothing that is trained."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from reprogram.core.errors import SourceError
from reprogram.sources import wrap_transformers
from reprogram.sources._frozen import fingerprint
from reprogram.sources._quantised import all_tensors, keep_gradients
from reprogram.testing import tiny_language_model, tiny_source


class Int8Linear(nn.Module):
    """What a quantised model's layers look like: whole numbers as a parameter, a scale beside them."""

    def __init__(self, linear):
        super().__init__()
        self.scale = nn.Parameter(linear.weight.detach().abs().max() / 127)
        rounded = (linear.weight.detach() / self.scale).round().to(torch.int8)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x):
        return x @ (self.weight.to(x.dtype) * self.scale).T


class Packing(nn.Linear):
    """A 4-bit layer's habits: a scale that is saved though it is no buffer, and packing at the first forward."""

    def __init__(self):
        super().__init__(3, 3)
        self.absmax = torch.ones(3)
        self.support_avx512bf16_for_cpu = True

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight.absmax"] = self.absmax


def test_quantised_models_stay_usable():
    model, tokenizer = tiny_language_model("llama")
    for layer in model.model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(layer.mlp, name, Int8Linear(getattr(layer.mlp, name)))
    source = wrap_transformers(model, tokenizer)
    assert source.module.model.layers[0].mlp.up_proj.weight.dtype == torch.int8
    assert not any(p.requires_grad for p in source.module.parameters())
    embeds = source.embeddings[torch.tensor([source.encode("a great movie")])].clone().requires_grad_()
    source.module(inputs_embeds=embeds).logits.square().mean().backward()
    assert torch.isfinite(embeds.grad).all()
    assert embeds.grad.abs().max() > 0
    assert all(p.grad is None for p in source.module.parameters())
    before = source.fingerprint()
    source.module.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    assert source.fingerprint() != before


def test_plain_models_have_their_parameters_and_buffers():
    module = tiny_source().module
    want = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert all_tensors(module).keys() == want.keys()
    tied = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    tied["b"].weight = tied["a"].weight
    assert sorted(all_tensors(tied)) == ["a.bias", "a.weight", "b.bias"]  # each once


def test_wrapped_tensors_are_seen_through():
    module = nn.Linear(3, 2, bias=False)
    first, second = torch.rand(2, 3), torch.rand(2, 3)
    module.weight = nn.Parameter(TwoTensor(first, second), requires_grad=False)
    found = all_tensors(module)
    assert sorted(found) == ["weight.a", "weight.b"]
    assert torch.equal(found["weight.b"], second)
    before = fingerprint(module)
    second[1, 2] += 1
    assert fingerprint(module) != before


def test_what_is_only_saved_counts_too():
    layer = Packing()
    before = fingerprint(layer)
    assert "weight.absmax" in all_tensors(layer)
    layer.absmax[0] = 2
    assert fingerprint(layer) != before


def test_weights_are_not_packed_for_inference_only():
    model, tokenizer = tiny_language_model("gpt2")
    model.extra = nn.Sequential(Packing(), nn.Linear(3, 3))
    wrap_transformers(model, tokenizer)
    assert model.extra[0].support_avx512bf16_for_cpu is False
    assert not hasattr(model.extra[1], "support_avx512bf16_for_cpu")
    packed = Packing()
    packed.weight.quant_state = SimpleNamespace(packing_format_for_cpu=True)
    with pytest.raises(SourceError, match=r"inference only.*Packing.*anew"):
        keep_gradients(nn.Sequential(packed))
    packed.weight.quant_state.packing_format_for_cpu = False
    keep_gradients(nn.Sequential(packed))
    assert packed.support_avx512bf16_for_cpu is False
