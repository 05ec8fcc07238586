"""The one door to open_clip: `open_clip/<name>`, image-text models with a vision transformer.

Weights come from safetensors files only; those of the hub that are pickles are refused.
"""

import importlib
import math
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reprogram.core.errors import SourceError, missing_extra, say
from reprogram.core.source import Preprocessing
from reprogram.sources._towers import CausalTower, PaddedTower, TextTower, TowerShape, VisionTower, projected
from reprogram.sources.image_text import DualSource
from reprogram.sources.language import language_source
from reprogram.sources.module import wrap

SEED = 0
"""Of random weights, so that a reference means the same model everywhere."""


def load_open_clip(name: str, *, pretrained: str | bool = True, **options: Any) -> DualSource:
    """A model of open_clip as a source.

    Args:
        name: open_clip's name of the architecture, "ViT-B-32".
        pretrained: a tag of open_clip's ("laion2b_s34b_b79k"), the path of a .safetensors file with the state, or False
            for random weights. There is no tag that suits all, so one must be given.
        options: passed on to `open_clip.create_model`.

    Raises:
        MissingExtraError: the extra "clip" is not installed.
        SourceError: open_clip knows no such model, the weights cannot be had, or they are not safetensors.
    """
    try:
        library = importlib.import_module("open_clip")
    except ImportError as problem:
        raise missing_extra("open_clip_torch", "clip", "A source open_clip/…") from problem
    if name not in library.list_models():
        near = [n for n in library.list_models() if n.startswith(name[:5])][:5]
        raise SourceError(say("open_clip model", "must be one that open_clip knows", name, f"Near: {near}."))
    ref = f"open_clip/{name}"
    if pretrained is True:
        tags = library.list_pretrained_tags_by_model(name)[:5]
        raise SourceError(say(ref, "must name its weights", None, f"For example {ref}?pretrained= and one of {tags}, "
                              "the path of a .safetensors file, or false for random weights."))  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = library.create_model(name, pretrained=None, **options)
    if pretrained is not False:
        _load(library, model, name, pretrained)
    word = "false" if pretrained is False else pretrained
    return wrap_open_clip(model, library.get_tokenizer(name), ref=f"{ref}?pretrained={word}")


def wrap_open_clip(model: Any, tokenizer: Any, *, ref: str | None = None) -> DualSource:
    """A model of open_clip in memory as a source; frozen and switched to eval mode, in place.

    Args:
        model: a `CLIP` or `CustomTextCLIP` whose image tower is a vision transformer of open_clip's own.
        tokenizer: of open_clip, `get_tokenizer(name)`.
        ref: how to load it again.

    Raises:
        SourceError: a tower is of a kind that we do not know how to edit.
    """
    name = ref or f"module:{type(model).__name__}"
    text = language_source(_text(model, tokenizer, name), _Tokens(tokenizer), ref=name, kind="encoder", pooling="own")
    visual = model.visual
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None or not getattr(visual.transformer, "batch_first", True):
        raise SourceError(say(name, "must have a vision transformer of open_clip's own", type(visual).__name__))
    height, width = _pair(visual.image_size)
    cells = (height // _pair(visual.patch_size)[0]) * (width // _pair(visual.patch_size)[1])
    pixels = Preprocessing(mean=_numbers(visual, "image_mean"), std=_numbers(visual, "image_std"))
    last = f"transformer.resblocks.{len(blocks) - 1}"
    image = wrap(
        VisionTower(visual, last=last, patches=cells, first=1, local=_local),
        input_shape=(3, height, width),
        preprocess=pixels,
        sites=["model.transformer.resblocks.*"],
        ref=name,
        width=visual.positional_embedding.shape[-1],
        tokens="model.ln_pre" if isinstance(visual.ln_pre, nn.LayerNorm) else True,
    )
    bias = model.logit_bias
    return DualSource(image, text, ref=name, scale=math.exp(float(model.logit_scale.detach())),
                      bias=0.0 if bias is None else float(bias.detach()))  # fmt: skip


def _load(library: Any, model: Any, name: str, pretrained: str | bool) -> None:
    """Put weights in from a file, or from open_clip's hub."""
    path = Path(str(pretrained)).expanduser()
    if path.suffix != ".safetensors":
        config = library.get_pretrained_cfg(name, str(pretrained))
        if not config:
            tags = library.list_pretrained_tags_by_model(name)[:5]
            raise SourceError(say("pretrained", f"must be a tag such as {tags}, or a .safetensors file", pretrained))
        try:
            path = Path(library.download_pretrained(config, prefer_hf_hub=True))
        except Exception as problem:  # the hub client's errors have no common base
            got = f"{type(problem).__name__}: {problem}"
            raise SourceError(say(f"open_clip/{name}", "needs its weights from the model hub", got)) from problem
    if path.suffix != ".safetensors" or not path.is_file():
        remedy = "Convert them to safetensors, or take the model's transformers version: hf/<id>."
        raise SourceError(say("weights", "must be a .safetensors file that is there", str(path), remedy))
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as problem:
        raise SourceError(say(str(path), f"must hold the state of {name}", str(problem)[:200])) from problem


def _text(model: Any, tokenizer: Any, name: str) -> TextTower:
    """The text tower of either class; those of CustomTextCLIP are in `model.text`."""
    tower = getattr(model, "text", model)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if blocks is None or getattr(tower, "cls_emb", None) is not None:
        raise SourceError(say(name, "must have a text transformer of open_clip's own", type(tower).__name__))
    places = tower.positional_embedding
    shape = TowerShape(width=places.shape[1], heads=blocks[0].attn.num_heads, layers=len(blocks), places=len(places))
    kind = getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", "argmax")
    causal = tower.attn_mask is not None
    if causal and kind in ("argmax", "eos"):
        return CausalTower(tower.token_embedding, places, shape, layers=tower.transformer, norm=tower.ln_final,
                           project=tower.text_projection, run=_masked)  # fmt: skip
    if not causal and kind == "last":
        pad = getattr(tower, "pad_id", 0)
        return PaddedTower(tower.token_embedding, places, shape, pad=pad, layers=tower.transformer,
                           norm=tower.ln_final, project=tower.text_projection, run=_plain)  # fmt: skip
    raise SourceError(say(name, "must end at its end token, or at its last place and read both ways", kind))


def _masked(transformer: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    return transformer(hidden, attn_mask=mask)


def _plain(transformer: Any, hidden: Tensor) -> Tensor:
    return transformer(hidden)


def _local(visual: Any, hidden: Tensor) -> Tensor:
    """The patches' vectors, the way the class token's is made."""
    return projected(visual.ln_post(hidden), visual.proj)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _numbers(visual: Any, name: str) -> tuple[float, ...]:
    known = {"image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}
    return tuple(float(v) for v in getattr(visual, name, None) or known[name])


@final
class _Tokens:
    """A tokenizer of open_clip with what ours is asked for."""

    sep_token = None

    def __init__(self, tokenizer: Any) -> None:
        inner = getattr(tokenizer, "tokenizer", None)  # of the kind that wraps one of transformers
        self._own = tokenizer if inner is None else inner
        self.wraps = inner is not None
        self.model_max_length = int(tokenizer.context_length)
        self.bos_token_id: Any = getattr(self._own, "sot_token_id" if inner is None else "bos_token_id")
        self.eos_token_id: Any = getattr(self._own, "eot_token_id" if inner is None else "eos_token_id")

    def __call__(self, text: str, *, add_special_tokens: bool = True, **options: Any) -> dict[str, list[int]]:
        """Token ids."""
        if self.wraps:
            return self._own(text, add_special_tokens=add_special_tokens, **options)
        ids: list[int] = self._own.encode(text)
        return {"input_ids": [self.bos_token_id, *ids, self.eos_token_id] if add_special_tokens else ids}

    def decode(self, ids: list[int]) -> str:
        """Their text."""
        return self._own.decode(ids)
