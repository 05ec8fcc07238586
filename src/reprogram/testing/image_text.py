"""Tiny image-text sources with random weights, for tests that need two towers and no download."""

import importlib
from typing import Any, Literal

import torch

from reprogram.sources.image_text import DualSource
from reprogram.sources.transformers_clip import dual_source
from reprogram.testing.language import tiny_tokenizer

TinyDual = Literal["clip", "siglip", "open_clip"]


def tiny_dual_model(
    kind: Literal["clip", "siglip"] = "clip", *, width: int = 16, layers: int = 3, seed: int = 0
) -> Any:
    """A CLIP or SigLIP of transformers for pictures of 16 pixels, patches of 4, texts of 64 bytes, float32."""
    library = importlib.import_module("transformers")
    tokenizer = tiny_tokenizer("roberta")
    both: dict[str, Any] = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
                            "num_attention_heads": 4}  # fmt: skip
    text = {**both, "vocab_size": len(tokenizer), "max_position_embeddings": 64,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    vision = {**both, "image_size": 16, "patch_size": 4, "num_channels": 3}
    if kind == "clip":
        more = {"projection_dim": 12}
        config = library.CLIPConfig(text_config={**text, **more}, vision_config={**vision, **more}, **more)
    else:
        config = library.SiglipConfig(text_config={**text, "projection_size": width}, vision_config=vision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(library, "CLIPModel" if kind == "clip" else "SiglipModel")(config)
        for p in model.parameters():  # far enough from 0 for classes and pictures to differ
            if p.ndim > 1:
                torch.nn.init.normal_(p, std=0.25)
    return model.eval()


def tiny_dual_source(kind: TinyDual = "clip", *, seed: int = 0, **sizes: int) -> DualSource:
    """An image-text source for pictures of 16 pixels.

    Args:
        kind: "clip" or "siglip" of transformers, or "open_clip".
        seed: of the weights.
        sizes: `width` of the tokens, `layers`.
    """
    if kind == "open_clip":
        return _open_clip(seed, **sizes)
    return dual_source(tiny_dual_model(kind, seed=seed, **sizes), tiny_tokenizer("roberta"))


def _open_clip(seed: int, *, width: int = 64, layers: int = 3) -> DualSource:
    library = importlib.import_module("open_clip")
    from reprogram.sources.clip import wrap_open_clip

    tokenizer = library.get_tokenizer("ViT-B-32")
    vision = {"image_size": 16, "layers": layers, "width": width, "patch_size": 4, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": width, "heads": 4, "layers": layers}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = library.CLIP(embed_dim=12, vision_cfg=vision, text_cfg=text)
    return wrap_open_clip(model.eval(), tokenizer)
