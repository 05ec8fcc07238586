"""CLIP and SigLIP of transformers as image-text sources: `hf/<folder or id>`, or models in memory."""

import math
from typing import Any, final

from torch import Tensor, nn

from reprogram.core.errors import SourceError, say
from reprogram.core.source import Preprocessing
from reprogram.sources._towers import CausalTower, PaddedTower, TextTower, TowerShape, VisionTower, projected
from reprogram.sources.image_text import DualSource
from reprogram.sources.language import language_source
from reprogram.sources.module import wrap

_PIXELS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and deviation where no file says them: those of the published preprocessors."""


def is_dual(model: object) -> bool:
    """Is it CLIP or SigLIP, both towers?"""
    return type(model).__name__ in ("CLIPModel", "SiglipModel")


def dual_source(
    model: Any, tokenizer: Any, *, preprocess: Preprocessing | tuple[Any, Any] | None = None, ref: str | None = None
) -> DualSource:
    """A `CLIPModel` or `SiglipModel` of transformers as a source; frozen and switched to eval mode, in place.

    Args:
        model: both towers.
        tokenizer: of its texts.
        preprocess: (mean, std) per channel; None for the published ones.
        ref: how to load it again.

    Raises:
        SourceError: the model is another, or there is no tokenizer.
    """
    name = ref or f"module:{type(model).__name__}"
    if not is_dual(model) or tokenizer is None:
        raise SourceError(say(name, "must be a CLIP or SigLIP model with its tokenizer", type(model).__name__))
    clip = type(model).__name__ == "CLIPModel"
    text = language_source(_text(model, clip=clip), tokenizer, ref=name, kind="encoder", pooling="own")
    vision = model.config.vision_config
    image = wrap(
        _vision(model, clip=clip),
        input_shape=(vision.num_channels, vision.image_size, vision.image_size),
        preprocess=preprocess if preprocess is not None else _PIXELS["clip" if clip else "siglip"],
        sites=["model.vision.encoder.layers.*"],
        ref=name,
        width=vision.hidden_size,
        tokens="model.vision.pre_layrnorm" if clip else True,
    )
    bias = float(model.logit_bias.detach()) if hasattr(model, "logit_bias") else 0.0
    return DualSource(image, text, ref=name, scale=math.exp(float(model.logit_scale.detach())), bias=bias)


def _text(model: Any, *, clip: bool) -> TextTower:
    tower, config = model.text_model, model.config.text_config
    shape = TowerShape(width=config.hidden_size, heads=config.num_attention_heads, layers=config.num_hidden_layers,
                       places=config.max_position_embeddings)  # fmt: skip
    table, places = tower.embeddings.token_embedding, tower.embeddings.position_embedding
    if clip:
        return CausalTower(table, places, shape, layers=tower.encoder, norm=tower.final_layer_norm,
                           project=model.text_projection, run=_masked)  # fmt: skip
    return PaddedTower(table, places, shape, pad=config.pad_token_id, layers=tower.encoder,
                       norm=tower.final_layer_norm, project=tower.head, run=_plain)  # fmt: skip


def _masked(encoder: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    return encoder(inputs_embeds=hidden, attention_mask=mask[None, None]).last_hidden_state


def _plain(encoder: Any, hidden: Tensor) -> Tensor:
    return encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state


def _vision(model: Any, *, clip: bool) -> VisionTower:
    """Pixels to the picture's vector."""
    config = model.config.vision_config
    patches = (config.image_size // config.patch_size) ** 2
    last = f"vision.encoder.layers.{config.num_hidden_layers - 1}"
    whole = _Vision(model.vision_model, model.visual_projection if clip else None)
    return VisionTower(whole, last=last, patches=patches, first=1 if clip else 0, local=_local)


@final
class _Vision(nn.Module):
    def __init__(self, vision: Any, project: nn.Module | None) -> None:
        super().__init__()
        self.vision, self.project = vision, project

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, d]."""
        return projected(self.vision(pixel_values=pixels).pooler_output, self.project)


def _local(tower: Any, hidden: Tensor) -> Tensor:
    """The patches' vectors, the way the class token's is made; SigLIP's pooling layer sees each patch alone."""
    hidden = tower.vision.post_layernorm(hidden)
    if tower.project is not None:
        return projected(hidden, tower.project)
    rows, patches, width = hidden.shape
    return tower.vision.head(hidden.reshape(rows * patches, 1, width)).view(rows, patches, -1)
